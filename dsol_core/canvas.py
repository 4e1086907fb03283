"""One item's maps on the evaluation grid: resized, binarised and compared with targets, each only when asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsol_core import binarise, metrics
from dsol_core.protocols import SIDE, Item, Maps, Switches
from dsol_core.truths import Target
from dsol_core.types import DataError

_BY_RANK = ("top_half", "truth_area")  # mask rules that stretching a map cannot change


class Canvas:
    """Maps of an item, by their number and the place on the canvas; see `protocol_scores` for how they are laid out.

    Args:
        maps: float [M, h, w], finite; of a pair w holds both pictures, side by side.
        pictures: of the item.
        switches: kernel, stretching, mask rule, and whether a pair's pictures are resized apart or as one.
    """

    def __init__(self, maps: Any, pictures: int, switches: Switches) -> None:
        self.switches = switches
        apart = pictures if switches.canvas == "separate" else 1
        self.size = (SIDE, SIDE * pictures // apart)
        self._parts = np.split(maps, apart, axis=2) if apart > 1 else [maps]
        self._planes: dict[tuple[int, int], Any] = {}
        self._masks: dict[tuple[int, int], Any] = {}

    def plane(self, number: int, place: int) -> Any:
        """Return a map on the grid, float32 [H, W], as the network gave it (not stretched)."""
        if (number, place) not in self._planes:
            own = self._parts[place][number]
            self._planes[number, place] = binarise.resize(own, self.size, self.switches.resize)
        return self._planes[number, place]

    def mask(self, number: int, target: Target) -> Any:
        """Return the binarised map, bool [H, W]; only the rule "truth_area" looks at the target."""
        rule, at = self.switches.mask, (number, target.place)
        if rule.kind != "truth_area" and at in self._masks:
            return self._masks[at]
        plane = self.plane(*at)
        if self.switches.normalise == "minmax" and rule.kind not in _BY_RANK:
            plane = binarise.minmax(plane)
        found = binarise.mask(plane, rule, target.area if rule.kind == "truth_area" else 0)
        self._masks[at] = found
        return found

    def iou(self, number: int, target: Target) -> float:
        """Return cIoU (2.3) of a map and a target; 0 where both are empty."""
        mask = self.mask(number, target)
        if target.box is None and target.drawn.dtype != bool:
            return float(metrics.iou(mask, target.drawn))
        hit = target.hits(mask)
        whole = target.area + int(np.count_nonzero(mask)) - hit
        return hit / whole if whole else 0.0

    def average_precision(self, number: int, target: Target) -> float:
        """Return the pixel-level AP of a map; where `swapped_ap`, that of the truth ranking the binarised map."""
        if self.switches.swapped_ap:
            return metrics.average_precision(target.weights, self.mask(number, target))
        return metrics.average_precision(self.plane(number, target.place), target.weights > 0)

    def dark(self, number: int, level: float = 0.2) -> float:
        """Return the share of a map's pixels up to an absolute level, over all places (NSA, 2.5)."""
        planes = [self.plane(number, place) for place in range(len(self._parts))]
        return float(np.mean([np.count_nonzero(plane <= np.float32(level)) / plane.size for plane in planes]))


def checked(item: Item, said: Maps) -> Any:
    """Return an item's maps as float32 [M, h, w].

    Raises:
        DataError: another shape, maps that cannot be cut into the item's pictures, or values that are not finite.
    """
    maps = np.asarray(said.maps)
    if maps.ndim != 3 or 0 in maps.shape[1:] or maps.dtype.kind not in "fiu":
        raise _misfit(item, f"maps of shape {maps.shape} and type {maps.dtype}", "numbers [M, h, w]")
    if not len(maps) == len(said.classes) == len(said.confidence):
        raise _misfit(
            item,
            f"{len(maps)} maps, {len(said.classes)} classes and {len(said.confidence)} confidences",
            "one class and one confidence (or None) for each map",
        )
    if maps.shape[2] % len(item.pictures):
        raise _misfit(
            item, f"maps {maps.shape[2]} cells wide", f"its {len(item.pictures)} pictures side by side, equally wide"
        )
    maps = maps.astype(np.float32, copy=False)
    flat = maps.reshape(-1)
    with np.errstate(over="ignore"):  # the product is quick; where it overflows, the values are looked at
        suspicious = not math.isfinite(flat.dot(flat))
    if suspicious and not np.isfinite(maps).all():
        bad = [number for number, one in enumerate(maps) if not np.isfinite(one).all()]
        raise _misfit(item, f"NaN or infinite values in maps {_short(bad)}", "finite ones")
    return maps


def within(item: Item, said: Maps) -> Maps:
    """Return what a file's maps say about the pictures of an item, without those that its mode leaves out.

    Raises:
        DataError: the maps cannot be cut into the pictures.
    """
    if not item.spare:
        return said
    maps, own = np.asarray(said.maps), len(item.pictures)
    if maps.ndim != 3 or maps.shape[2] % (own + item.spare):
        expected = f"numbers [M, h, w] over its {own + item.spare} pictures side by side, equally wide"
        raise _misfit(item, f"maps of shape {maps.shape}", expected)
    return replace(said, maps=maps[:, :, : maps.shape[2] * own // (own + item.spare)])


def _misfit(item: Item, found: str, expected: str) -> DataError:
    return DataError(
        f"prediction of item {item.key} has {found}; expected {expected}; predict the item again, or leave it out of "
        "the predictions so that it counts as missing"
    )


def _short(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
