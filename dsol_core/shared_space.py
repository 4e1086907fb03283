"""What the pictures and the sounds of a data set have in common, before anything is learnt (canonical correlation).

Backgrounds change without the sound and tunes change without the picture; what changes in both together is the
object that sounds. Everything is computed from sums over the units, so the features may lie on any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from dsol_core.types import DataError, ShapeError

DIRECTIONS = 50  # principal directions kept of a view (of 40, 50, 60, 80, 120)
UNITS_A_DIRECTION = 6  # fewer directions for fewer units, or the two views agree by chance (of 3 to 20)
SHARED = 20  # pairs of canonical directions kept (of 10, 15, 20, 30)
SAME = 1e-12  # share of the largest variance below which a direction is none


class Moments(NamedTuple):
    """Sums over units with two views, float64."""

    units: int
    totals: tuple[Any, Any]  # [D], [E]
    squares: tuple[Any, Any]  # [D, D], [E, E]
    cross: Any  # [D, E]


class Axis(NamedTuple):
    """A view's way into the space."""

    mean: Any  # [D]
    matrix: Any  # [D, d]


def moments(views: Sequence[Any]) -> Moments:
    """Sum up what is seen [V, D] and what is heard [V, E] of units.

    Raises:
        ShapeError: not two views of the same units.
    """
    if len(views) != 2 or len(views[0]) != len(views[1]):
        raise ShapeError(f"views of {[len(view) for view in views]} units; expected two views of the same units")
    seen, heard = (np.asarray(view, np.float64) for view in views)
    return Moments(len(seen), (seen.sum(0), heard.sum(0)), (seen.T @ seen, heard.T @ heard), seen.T @ heard)


def added(parts: Iterable[Moments]) -> Moments:
    """Add up the moments of several workers."""

    def both(one: Moments, other: Moments) -> Moments:
        (a, b), (c, d) = one.totals, other.totals
        (e, f), (g, h) = one.squares, other.squares
        return Moments(one.units + other.units, (a + c, b + d), (e + g, f + h), one.cross + other.cross)

    return reduce(both, parts)


def axes(known: Moments, directions: int = DIRECTIONS, shared: int = SHARED) -> tuple[Axis, Axis]:
    """Find the directions of both views that vary together.

    Each view is standardised, reduced to its strongest principal directions and made white; the canonical directions
    are the singular vectors of the covariance between the two (Hotelling 1936), each as long as its correlation.

    Args:
        known: of all units.
        directions: principal directions kept of each view; fewer for few units.
        shared: pairs of canonical directions kept of these.

    Raises:
        DataError: a view is the same for all units.
    """
    kept = max(2, min(directions, known.units // UNITS_A_DIRECTION))
    means = [total / known.units for total in known.totals]
    white = [
        _white(square / known.units - np.outer(mean, mean), kept)
        for square, mean in zip(known.squares, means, strict=True)
    ]
    for name, matrix in zip(("pictures", "sounds"), white, strict=True):
        if matrix.shape[1] == 0:
            raise DataError(
                f"the {name} of all {known.units} units are the same; expected some that differ, or nothing tells "
                "their classes apart: look at the videos"
            )
    between = known.cross / known.units - np.outer(*means)
    left, correlation, right = np.linalg.svd(white[0].T @ between @ white[1])
    most = min(shared, len(correlation))
    return (
        Axis(means[0], white[0] @ left[:, :most] * correlation[:most]),
        Axis(means[1], white[1] @ right.T[:, :most] * correlation[:most]),
    )


def _white(covariance: Any, kept: int) -> Any:
    """Return the matrix [D, d] from centred values to their strongest directions, each with deviation 1."""
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0)) + 1e-6
    strength, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    chosen = np.argsort(strength)[::-1][:kept]
    chosen = chosen[strength[chosen] > max(SAME * strength.max(), SAME)]
    return vectors[:, chosen] / np.sqrt(strength[chosen]) / deviation[:, None]


def project(views: Sequence[Any], into: tuple[Axis, Axis]) -> Any:
    """Put units [V, D] and [V, E] into the space; return unit vectors float32 [V, d]."""
    joint = sum(
        (np.asarray(view, np.float64) - axis.mean) @ axis.matrix for view, axis in zip(views, into, strict=True)
    )
    return (joint / np.maximum(np.linalg.norm(joint, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def shared_space(views: Sequence[Any], directions: int = DIRECTIONS, shared: int = SHARED) -> Any:
    """Put what is seen [V, D] and heard [V, E] of units into their common space, unit vectors float32 [V, d]."""
    return project(views, axes(moments(views), directions, shared))


def sizes(k: int) -> tuple[int, int]:
    """Return principal and canonical directions to keep where k clusters are wanted."""
    return max(DIRECTIONS, 3 * k), max(SHARED, 2 * k)
