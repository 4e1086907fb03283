"""Ground truth of a benchmark's item on the evaluation grid: boxes or masks -> targets, under the protocol's switches.

A target is what one predicted map is compared with: the sources of one category in one picture, or all of a picture.
Boxes are rasterised as the public evaluators do (method-and-benchmarks, 2.1): coordinates times 224, truncated toward
zero, taken as half-open slices; of x, y, width, height the far edge is `int(224 * x + 224 * w)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsol_core.protocols import SIDE, Item, Source, Switches
from dsol_core.types import DataError


@dataclass(frozen=True)
class Target:
    """What one map is compared with.

    Attributes:
        category: of its sources; None where none is named or all of a picture are taken together.
        place: of the canvas it lies on: the picture, or 0 where pictures stand side by side on one canvas.
        weights: bool [H, W], or float32 [H, W] where the truth is a consensus or a sum of boxes.
    """

    category: str | None
    place: int
    weights: Any

    @property
    def empty(self) -> bool:
        """Whether it covers no pixel."""
        return not self.weights.any()


def width(item: Item, switches: Switches) -> int:
    """Return the columns of the item's canvas: 224, or 224 a picture where they stand side by side."""
    return SIDE * (len(item.pictures) if switches.canvas == "horizontal" else 1)


def groups(item: Item) -> dict[tuple[str | None, int, int], list[Source]]:
    """Group the sources that one map should show: those of one category in one picture; unnamed ones stay alone."""
    found: dict[tuple[str | None, int, int], list[Source]] = {}
    for number, source in enumerate(item.sources):
        alone = number if source.category is None else -1
        found.setdefault((source.category, source.picture, alone), []).append(source)
    return found


def by_source(item: Item, switches: Switches, unit: float = 1.0) -> list[Target]:
    """Return one target for each category of each picture, in the order of the sources.

    Args:
        item: with sources.
        switches: how boxes are read, clipped and summed, and whether pictures share a canvas.
        unit: what the boxes' numbers are divided by (`Protocol.box_unit`).

    Raises:
        DataError: a coordinate is not finite, or a mask is not [H, W].
    """
    return [
        _target(item, category, picture, sources, switches, unit)
        for (category, picture, _), sources in groups(item).items()
    ]


def by_canvas(item: Item, switches: Switches, unit: float = 1.0) -> list[Target]:
    """Return one target for each canvas (picture, or pair side by side) that has sources: all of them together."""
    side_by_side = switches.canvas == "horizontal"
    found: dict[int, list[Source]] = {}
    for source in item.sources:
        found.setdefault(0 if side_by_side else source.picture, []).append(source)
    categories = {source.category for source in item.sources}
    only = categories.pop() if len(categories) == 1 else None
    targets = []
    for place, sources in sorted(found.items()):
        pictures = range(len(item.pictures)) if side_by_side else (place,)
        parts = [_weights(item, [one for one in sources if one.picture == p], switches, unit) for p in pictures]
        targets.append(Target(only, place, np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]))
    return targets


def _target(
    item: Item, category: str | None, picture: int, sources: list[Source], switches: Switches, unit: float
) -> Target:
    weights = _weights(item, sources, switches, unit)
    if switches.canvas == "separate" or len(item.pictures) == 1:
        return Target(category, picture, weights)
    canvas = np.zeros((SIDE, width(item, switches)), dtype=weights.dtype)
    canvas[:, SIDE * picture : SIDE * (picture + 1)] = weights
    return Target(category, 0, canvas)


def _weights(item: Item, sources: list[Source], switches: Switches, unit: float) -> Any:
    """Rasterise sources of one picture together, bool or float32 [224, 224]."""
    boxes = sum(len(source.boxes) for source in sources)
    if switches.consensus:
        return np.minimum(_total(item, sources, switches, unit) / 2, 1)
    if not switches.clip_overlap and boxes > 1:
        total = _total(item, sources, switches, unit)
        return total if total.max() > 1 else total > 0
    union = np.zeros((SIDE, SIDE), dtype=bool)
    for rows, columns in _slices(item, sources, switches, unit):
        union[rows, columns] = True
    for source in sources:
        if source.mask is not None:
            union |= resize_mask(item, source.mask)
    return union


def _total(item: Item, sources: list[Source], switches: Switches, unit: float) -> Any:
    total = np.zeros((SIDE, SIDE), dtype=np.float32)
    for rows, columns in _slices(item, sources, switches, unit):
        total[rows, columns] += 1
    for source in sources:
        if source.mask is not None:
            total += resize_mask(item, source.mask)
    return total


def _slices(item: Item, sources: Iterable[Source], switches: Switches, unit: float) -> Iterable[tuple[slice, slice]]:
    for source in sources:
        for box in source.boxes:
            try:
                left, top, right, bottom = corners(box, switches, unit)
            except (ValueError, OverflowError):
                raise DataError(
                    f"item {item.key} has a box {box}; expected four finite numbers; mend its annotation"
                ) from None
            yield slice(top, bottom), slice(left, right)


def corners(box: tuple[float, float, float, float], switches: Switches, unit: float = 1.0) -> tuple[int, ...]:
    """Return a box as pixels left, top, right, bottom, to be used as slices.

    Slices as the reference's: what lies beyond the frame is cut off, right <= left is empty, and, where coordinates
    are not clipped, negative numbers count from the far edge.

    Args:
        box: raw numbers.
        switches: `box_format` and `clip_coordinates`.
        unit: what the numbers are divided by.
    """
    a, b, c, d = (SIDE * (value / unit) for value in box)
    right, bottom = (a + c, b + d) if switches.box_format == "xywh" else (c, d)
    edges = (a, b, right, bottom)
    if not all(map(math.isfinite, edges)):
        raise ValueError
    if switches.clip_coordinates == "none":
        return tuple(int(edge) for edge in edges)
    top = float(SIDE) if switches.clip_coordinates == "frame" else math.inf
    return tuple(int(min(max(edge, 0.0), top)) for edge in edges)


def resize_mask(item: Item, mask: Any) -> Any:
    """Resize a mask by nearest neighbour (the cell that holds the pixel's corner), [H, W] -> bool [224, 224].

    Raises:
        DataError: it is not [H, W] or has no pixel.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise DataError(f"item {item.key} has a mask of shape {mask.shape}; expected [H, W]; mend its annotation")
    rows, columns = (np.arange(SIDE) * size // SIDE for size in mask.shape)
    return mask[rows[:, None], columns] > 0
