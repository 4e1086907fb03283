"""Which clips of a recording are heard with a picture: its own and its neighbours. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsol_core.config import ClipsConfig


def stored(config: ClipsConfig) -> int:
    """Return how many clips are stored on each side of a clip."""
    return int((config.context - config.duration) / (2 * config.duration) + 1e-6)


def starts(length: int, first: int, size: int) -> list[int]:
    """Return where a clip of a recording begins, and its neighbours: before and after, or the next two at an end.

    Args:
        length: samples of the recording.
        first: first sample of the clip.
        size: samples of a clip.

    Returns:
        Up to three, the clip's own first; fewer where there are no more whole clips beside it, none where the recording
        does not hold the clip itself. A neighbour that reaches over an end by less than a hundredth of a clip is moved
        inside: clips need not be a whole number of samples.
    """
    last, slack = length - size, size // 100
    if not 0 <= first <= last:
        return []
    near = (first, first - size, first + size, first + 2 * size, first - 2 * size)
    return [min(max(0, one), last) for one in near if -slack <= one <= last + slack][:3]


def between_neighbours(sound: NDArray[Any], first: int, size: int) -> NDArray[Any]:
    """Return a clip of a recording between its neighbours (see `starts`); where one is missing the clip comes again.

    Args:
        sound: [S] of any type, S at least `first + size`.
        first: first sample of the clip.
        size: samples of a clip.

    Returns:
        [3 * size], the clip itself in the middle; the neighbours of a clip at an end are not in the order of time.
    """
    found = starts(len(sound), first, size)
    own, other, another = [*found, first, first][:3]
    return np.concatenate([sound[one : one + size] for one in (other, own, another)])
