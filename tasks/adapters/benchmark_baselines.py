"""What a benchmark gives to nobody and to everybody: scores of maps that hear nothing, and of a perfect ranking.

    whole    every pixel
    disk     the half of the frame nearest to its middle, in every picture
    ceiling  the best that any map can reach under the protocol's mask rule: all pixels of the object ranked first

The first two are predictions like any other and go through the scorer; print them beside every result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from dsol_core import truths
from dsol_core.protocol_estimates import parts
from dsol_core.protocol_scores import Scores, score_items
from dsol_core.protocols import SIDE, Item, Maps, Protocol, Switches
from dsol_core.truths import Target

Shape = Literal["whole", "disk"]
SHAPES: tuple[Shape, ...] = ("whole", "disk")


def shape(name: Shape) -> Any:
    """Return a baseline's map of one picture, float32 [224, 224] of 0 and 1.

    The disk holds the pixels at or above the middle rank of nearness: 25,100, a few more than half because of ties.
    """
    if name == "whole":
        return np.ones((SIDE, SIDE), dtype=np.float32)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    near = -((rows - (SIDE - 1) / 2) ** 2 + (columns - (SIDE - 1) / 2) ** 2)
    return (near >= np.sort(near, axis=None)[near.size // 2]).astype(np.float32)


class Baseline(Mapping[str, Maps]):
    """Predictions of a baseline: for each item as many equal maps as it has sources, sure of all of them."""

    def __init__(self, items: Iterable[Item], name: Shape) -> None:
        self._items = {item.key: item for item in items}
        self._plane = shape(name)

    def __getitem__(self, key: str) -> Maps:
        item = self._items[key]
        count = max(1, len(item.sources))
        row = np.tile(self._plane, (1, len(item.pictures)))
        return Maps(key, np.broadcast_to(row, (count, *row.shape)), (None,) * count, (1.0,) * count)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def baseline(items: Iterable[Item], protocol: Protocol, switches: Switches, name: Shape) -> Scores:
    """Score a baseline on items that were read under the same switches."""
    known = tuple(items)
    return score_items(known, Baseline(known, name), protocol, switches)


def ceiling(items: Iterable[Item], protocol: Protocol, switches: Switches) -> Scores:
    """Return what a perfect ranking of the pixels scores on the IoUs, item by item, as `score_items` would."""
    scored = tuple(item for item in items if item.sources)
    find = truths.by_source if protocol.kind == "multi" else truths.by_canvas
    rows = [[best(one, switches) for one in find(item, switches, protocol.box_unit)] for item in scored]
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    known = ~np.isnan(table)
    mean = np.divide(np.nansum(table, axis=1), known.sum(1), out=np.full(len(rows), np.nan), where=known.any(1))
    single = protocol.kind != "multi"
    values = {"iou": table[:, 0]} if single else {"source": table, "ciou": mean}
    groups = tuple(frozenset(item.videos) for item in scored)
    return Scores(tuple(item.key for item in scored), groups, values, (), Counter())


def best(target: Target, switches: Switches) -> float:
    """Return the highest cIoU with a target that the mask rule allows; only "top_half" fixes the mask's size.

    NaN where an empty target is left out.
    """
    if target.empty:
        return float("nan") if switches.empty == "exclude" else 0.0
    if switches.mask.kind != "top_half":
        return 1.0
    weights = target.weights
    area = weights.size - weights.size // 2
    covered = int(np.count_nonzero(weights))
    total = float(weights.sum(dtype=np.float64))
    if covered <= area:
        return float(total / (total + area - covered))
    if weights.dtype == bool:
        return float(area / total)
    top = np.sort(weights, axis=None)[-area:]
    return float(top.sum(dtype=np.float64)) / total


def rate(scores: Scores, metric: str, protocol: Protocol, switches: Switches) -> float:
    """Return a metric that is a mean over items or sources, a fraction; NaN where no item has a value."""
    values, _ = parts(scores, metric, protocol, switches)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
