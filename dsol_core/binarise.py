"""Maps -> the evaluation grid -> masks, with every kernel and mask rule of the public evaluators, and ours.

Resizing is separable, hence two small matrix products; an order statistic of 50,176 pixels needs no sort: a sample of
them brackets it, and only what lies in the bracket is ordered.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from dsol_core.protocols import MaskRule
from dsol_core.types import ShapeError

Kernel = Literal["bilinear", "bilinear_corners", "bicubic", "bicubic_corners"]
_STEP = 97  # every 97th pixel is in the sample: prime, so that it walks through all columns
_SPAN = 48  # of its values, over which the density at the wanted rank is measured
_CUBIC = -0.75  # of OpenCV and torch


def resize(maps: Any, size: tuple[int, int], kernel: Kernel = "bilinear") -> Any:
    """Resize maps as torch does without smoothing; "bilinear" and "bicubic" are OpenCV's too.

    A constant map stays one: rounding must not make half of it the higher half.

    Args:
        maps: float [..., h, w].
        size: (H, W).
        kernel: "corners" puts the outer cells' centres on the outer pixels' centres.

    Returns:
        float32 [..., H, W].

    Raises:
        ShapeError: fewer than two axes.
    """
    maps = np.asarray(maps, dtype=np.float32)
    if maps.ndim < 2:
        raise ShapeError(f"maps have shape {maps.shape}; expected [..., h, w]")
    if maps.shape[-2:] == tuple(size):
        return maps
    cells, down = _bands(kernel, maps.shape[-2], size[0])
    wide = maps.reshape(-1, maps.shape[-1]).dot(_transposed(kernel, maps.shape[-1], size[1]))
    wide = wide.reshape(*maps.shape[:-1], size[1]).take(cells, axis=-2)
    found = np.matmul(down, wide).reshape(*maps.shape[:-2], *size)
    constant = maps.min((-2, -1)) == maps.max((-2, -1))
    if constant.any():
        found[constant] = maps[constant][..., :1, :1]
    return found


@lru_cache(maxsize=256)
def _transposed(kernel: Kernel, old: int, new: int) -> Any:
    """The weights as float32 [old, new], contiguous."""
    return np.ascontiguousarray(weights(kernel, old, new).T)


@lru_cache(maxsize=256)
def _bands(kernel: Kernel, old: int, new: int) -> tuple[Any, Any]:
    """The weights cut into bands of rows, without the cells that a band does not touch.

    Returns:
        Cells of each band, int [P, c], and the weights of its rows, float32 [P, new / P, c].
    """
    whole = weights(kernel, old, new)
    bands = next(count for count in (8, 7, 5, 4, 3, 2, 1) if new % count == 0)
    parts = whole.reshape(bands, new // bands, old)
    used = [np.flatnonzero(part.any(0)) for part in parts]
    span = max(int(one[-1] - one[0]) + 1 for one in used)
    cells = np.array([np.arange(span) + min(int(one[0]), old - span) for one in used])
    return cells, np.stack([part[:, own] for part, own in zip(parts, cells, strict=True)])


@lru_cache(maxsize=256)
def weights(kernel: Kernel, old: int, new: int) -> Any:
    """Return the share of each old cell in each new one along one axis, float32 [new, old], read-only."""
    if kernel.endswith("_corners"):
        place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = (np.arange(new) + 0.5) * old / new - 0.5
    found = np.zeros((new, old))
    if kernel.startswith("bilinear"):
        place = np.clip(place, 0, old - 1)
        taps, shares = _linear(place)
    else:
        taps, shares = _cubic(place)
    for offset, share in zip(taps, shares, strict=True):
        cell = np.clip(np.floor(place).astype(int) + offset, 0, old - 1)  # edges are repeated
        np.add.at(found, (np.arange(new), cell), share)
    ready = found.astype(np.float32)
    ready.flags.writeable = False
    return ready


def _linear(place: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    part = place - np.floor(place)
    return (0, 1), (1 - part, part)


def _cubic(place: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Weights of the four neighbours (Keys 1981, with a = -0.75)."""
    part, a = place - np.floor(place), _CUBIC
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (part, 1 - part)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (part + 1, 2 - part)]
    return (-1, 0, 1, 2), (far[0], near[0], near[1], far[1])


def minmax(plane: Any) -> Any:
    """Stretch one map [H, W] to 0..1; a constant one stays as it is, as in EZ-VSL's, SLAVC's and AVGN's code."""
    low, high = plane.min(), plane.max()
    return (plane - low) / (high - low) if high > low else plane


def order_statistic(values: Any, k: int) -> Any:
    """Return `sorted(values)[k]` without sorting them.

    Args:
        values: float32 [n], finite.
        k: 0 for the lowest.
    """
    n = len(values)
    sample = values[::_STEP].copy()
    sample.sort()
    middle, span = k * len(sample) // n, _SPAN
    if n < 4096 or not span <= middle < len(sample) - span:
        return np.partition(values, k)[k]
    pivot = sample[middle]
    step = (float(sample[middle + span]) - float(sample[middle - span])) / (2 * span * _STEP)  # from rank to rank
    below = values < pivot
    missing = k - int(np.count_nonzero(below))  # how many ranks the wanted one is above the sample's
    margin = math.copysign(40 + abs(missing) / 4, missing)
    between = values < float(pivot) + (missing + margin) * step
    between ^= below
    inside = values.take(between.nonzero()[0])
    if missing < 0:
        missing += len(inside)
    if not 0 <= missing < len(inside):  # the sample was off, or many values are equal
        return np.partition(values, k)[k]
    inside.partition(missing)
    return inside[missing]


def mask(plane: Any, rule: MaskRule, area: int = 0) -> Any:
    """Binarise one map by a rule (method-and-benchmarks, 2.2).

    Args:
        plane: float32 [H, W], finite, on the evaluation grid (and stretched, where the protocol stretches).
        rule: see `MaskRule`.
        area: pixels of the ground truth above zero, for "truth_area"; half of all where it is 0.

    Returns:
        bool [H, W].
    """
    at = threshold(plane, rule, area)
    return plane > at if rule.strict else plane >= at


def threshold(plane: Any, rule: MaskRule, area: int = 0) -> Any:
    """Return the value at which `mask` cuts a map, float32."""
    if rule.kind == "absolute":
        return np.float32(rule.level)
    if rule.kind == "relative":
        return np.float32(rule.level) * plane.max()
    n = plane.size
    return order_statistic(plane.reshape(-1), n // 2 if rule.kind == "top_half" else n - (area or n // 2))
