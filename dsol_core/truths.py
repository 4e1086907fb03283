"""Ground truth of a benchmark's item on the evaluation grid: boxes or masks -> targets, under the protocol's switches.

A target is what one predicted map is compared with: the sources of one category in one picture, or all of a picture.
Boxes are rasterised as the public evaluators do (method-and-benchmarks, 2.1): coordinates times 224, truncated toward
zero, taken as half-open slices; of x, y, width, height the far edge is `int(224 * x + 224 * w)`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from dsol_core.protocols import SIDE, Item, Source, Switches
from dsol_core.types import DataError

Box = tuple["slice[int, int, None]", "slice[int, int, None]"]  # rows, columns


class Target(NamedTuple):
    """What one map is compared with.

    Attributes:
        category: of its sources; None where none is named, or where they differ.
        place: of the canvas it lies on: the picture, or 0 where pictures stand side by side on one canvas.
        size: (H, W) of that canvas.
        area: how many of its pixels are above zero.
        box: the truth where it is a single box, so that it need not be drawn; else None.
        drawn: else bool [H, W], or float32 [H, W] where it is a consensus or a sum of boxes.
    """

    category: str | None
    place: int
    size: tuple[int, int]
    area: int
    box: Box | None = None
    drawn: Any = None

    @property
    def weights(self) -> Any:
        """The truth, bool or float32 [H, W]."""
        if self.box is None:
            return self.drawn
        weights = np.zeros(self.size, dtype=bool)
        weights[self.box] = True
        return weights

    def hits(self, mask: Any) -> int:
        """Count the pixels of a mask, bool [H, W], that lie on a truth which is a box or bool."""
        return int(np.count_nonzero(mask & self.drawn if self.box is None else mask[self.box]))


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
    return [_target(item, sources, switches, unit) for sources in groups(item).values()]


def by_canvas(item: Item, switches: Switches, unit: float = 1.0) -> list[Target]:
    """Return one target for each canvas (picture, or pair side by side) that has sources: all of them together."""
    if len(item.sources) == 1:
        return [_target(item, list(item.sources), switches, unit)]
    found: dict[int, list[Source]] = {}
    for source in item.sources:
        found.setdefault(0 if switches.canvas == "horizontal" else source.picture, []).append(source)
    return [_target(item, sources, switches, unit) for _, sources in sorted(found.items())]


def _target(item: Item, sources: list[Source], switches: Switches, unit: float) -> Target:
    """Rasterise sources of one canvas together."""
    side_by_side = switches.canvas == "horizontal"
    category, place = sources[0].category, 0 if side_by_side else sources[0].picture
    if len(sources) > 1 and any(source.category != category for source in sources):
        category = None
    size = (SIDE, SIDE * len(item.pictures) if side_by_side else SIDE)
    areas: list[tuple[Box, Any]] = []  # where, and the mask there or True
    for source in sources:
        left = SIDE * source.picture if side_by_side else 0
        areas += [(_box(item, box, switches, unit, left), True) for box in source.boxes]
        if source.mask is not None:
            areas.append(((slice(0, SIDE), slice(left, left + SIDE)), resize_mask(item, source.mask)))
    if len(areas) == 1 and areas[0][1] is True and not switches.consensus:
        (rows, columns), _ = areas[0]
        height, width = rows.stop - rows.start, columns.stop - columns.start
        return Target(category, place, size, height * width if height > 0 < width else 0, (rows, columns))
    if switches.consensus or (not switches.clip_overlap and len(areas) > 1):
        total = np.zeros(size, dtype=np.float32)
        for where, what in areas:
            total[where] += what
        if switches.consensus:
            total = np.minimum(total / 2, 1)
        return Target(category, place, size, int(np.count_nonzero(total)), drawn=total)
    union = np.zeros(size, dtype=bool)
    for where, what in areas:
        union[where] |= what
    return Target(category, place, size, int(np.count_nonzero(union)), drawn=union)


def _box(item: Item, box: tuple[float, float, float, float], switches: Switches, unit: float, left: int) -> Box:
    """Return a box as slices of the canvas, its picture's left edge being at column `left`."""
    try:
        x1, y1, x2, y2 = corners(box, switches, unit)
    except ValueError:
        raise DataError(f"item {item.key} has a box {box}; expected four finite numbers; mend its annotation") from None
    if switches.clip_coordinates == "none":
        x1, x2, _ = slice(x1, x2).indices(SIDE)
        y1, y2, _ = slice(y1, y2).indices(SIDE)
    return slice(y1, y2), slice(left + x1, left + x2)


def corners(box: tuple[float, float, float, float], switches: Switches, unit: float = 1.0) -> tuple[int, int, int, int]:
    """Return a box as pixels left, top, right, bottom, to be used as slices; right <= left is empty.

    What lies beyond the right and lower edge is cut off, as slices do; so clipping "below" 0 only (LVS) comes to the
    same as clipping to the "frame". Where coordinates are not clipped, negative ones count from the far edge, as they
    do in a slice.

    Args:
        box: raw numbers.
        switches: `box_format` and `clip_coordinates`.
        unit: what the numbers are divided by.

    Raises:
        ValueError: a number is not finite.
    """
    x, y, a, b = box if unit == 1 else (value / unit for value in box)
    left, top, right, bottom = SIDE * x, SIDE * y, SIDE * a, SIDE * b
    if switches.box_format == "xywh":
        right, bottom = left + right, top + bottom
    if not math.isfinite(left + top + right + bottom):
        raise ValueError
    if switches.clip_coordinates == "none":
        return int(left), int(top), int(right), int(bottom)
    return _inside(left), _inside(top), _inside(right), _inside(bottom)


def _inside(edge: float) -> int:
    return 0 if edge < 0 else SIDE if edge > SIDE else int(edge)


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
