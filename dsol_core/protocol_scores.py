"""Scoring of predictions against a benchmark's items under a protocol's switches.

    scores = score_items(items, {key: Maps}, protocol, protocol.switches("correct"))   # any number of items, in blocks
    scores = merge([scores, more])                                                     # blocks -> one
    protocol_estimates.estimates(scores, protocol, switches)                           # metric -> Estimate (95 %)

What a prediction (`protocols.Maps`) holds: `maps` float [M, h, w] in the system's own grid, one class (or None) and one
confidence (or None) for each. Of an item with two pictures w covers both, side by side (left half: picture 0), whether
or not the protocol then takes them apart. M may differ from item to item and be 0.

Which map is compared with what:
    single     the class-agnostic map (else the most confident) with all boxes; under `oracle` the map of the class
    multi      one target for each category of each picture. Class-aware protocols (DSOL's; `Protocol.class_aware`) and
               `oracle` take the map of the target's class, maps of one class being summed before; a class-agnostic map
               stands for every class. All others: Hungarian matching on IoU, blind to classes.
    extended   as single; items without sources are negatives and give a confidence only

Values of an item (`Scores.values`, one row an item, NaN where it has none; [N, S]: one column a source):
    iou          [N] single and extended: cIoU with all boxes
    source       [N, S] multi: IoU of each source
    ciou         [N] multi: mean of `source`
    union        [N, S] multi: the maximum of all maps against all boxes, one column a canvas
    per_map      [N, M] multi, aggregate "union": NoPrior's list: the first map against all boxes, 0 for every further
    oracle       [N, S] multi: IoU of each source with the map of its class, where a prediction has classes
    source_wise  [N, S] multi, pictures side by side: each source scored in its own picture alone
    nsa          [N] class-aware: share of the silent maps' area that stays dark
    ap           [N] or [N, S] where the protocol asks for it: pixel-level AP (extended sets compute another AP from
                 confidence, see `extended`)
    confidence, positive    [N] extended
Sources whose truth covers no pixel count 0 or are left out (NaN), as the switch `empty` says; `Scores.counts` tells how
many. Items without a prediction are in `Scores.missing` and in no row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dsol_core import extended, pairing, truths
from dsol_core.canvas import Canvas, checked
from dsol_core.protocols import Item, Maps, Protocol, Switches
from dsol_core.truths import Target
from dsol_core.types import DataError

Values = dict[str, Any]  # name -> float, or list of floats
EMPTY, UNMAPPED, SILENT = "empty truths", "sources without a map", "items without maps"
UNSOURCED = "items without sources"


@dataclass(frozen=True)
class Scores:
    """Values of the items that have a prediction.

    Attributes:
        keys: of the items (N).
        groups: of each item: its set of videos, which the bootstrap draws.
        values: name -> float64 [N] or [N, S].
        missing: keys of items without a prediction.
        counts: what was special, in words -> how often.
    """

    keys: tuple[str, ...]
    groups: tuple[frozenset[str], ...]
    values: dict[str, Any]
    missing: tuple[str, ...]
    counts: Counter[str]


def score_items(
    items: Iterable[Item], predictions: Mapping[str, Maps], protocol: Protocol, switches: Switches
) -> Scores:
    """Score items one by one; memory does not grow with their number but for the values.

    Args:
        items: as the benchmark's parser gives them under the same switches.
        predictions: item key -> maps.
        protocol: the record.
        switches: of one of its modes, or others.

    Raises:
        DataError: a prediction that cannot be used (naming item, expectation and remedy), or a malformed item.
    """
    rows: list[Values] = []
    scored, missing, counts = [], [], Counter[str]()
    for item in items:
        said = predictions.get(item.key)
        if said is None:
            missing.append(item.key)
            continue
        rows.append(score_item(item, said, protocol, switches, counts))
        scored.append(item)
    names = dict.fromkeys(name for row in rows for name in row)
    return Scores(
        tuple(item.key for item in scored),
        tuple(frozenset(item.videos) for item in scored),
        {name: _column([row.get(name) for row in rows]) for name in names},
        tuple(missing),
        counts,
    )


def merge(blocks: Iterable[Scores]) -> Scores:
    """Put the scores of blocks together, in their order."""
    blocks = list(blocks)
    names = dict.fromkeys(name for block in blocks for name in block.values)
    values = {
        name: _column([value for block in blocks for value in block.values.get(name, [None] * len(block.keys))])
        for name in names
    }
    return Scores(
        tuple(key for block in blocks for key in block.keys),
        tuple(group for block in blocks for group in block.groups),
        values,
        tuple(key for block in blocks for key in block.missing),
        sum((block.counts for block in blocks), Counter[str]()),
    )


def _column(values: Sequence[Any]) -> Any:
    """Stack numbers, or lists padded with NaN, into float64 [N] or [N, S]; None is NaN."""
    lengths = [len(value) for value in values if isinstance(value, (list, np.ndarray))]
    if not lengths:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    table = np.full((len(values), max(lengths)), np.nan)
    for row, value in zip(table, values, strict=True):
        if value is not None:
            row[: len(value)] = value
    return table


def score_item(item: Item, said: Maps, protocol: Protocol, switches: Switches, counts: Counter[str]) -> Values:
    """Return the values of one item; what is special goes to `counts`. See the top of the file."""
    maps = checked(item, said)
    if not len(maps):
        counts[SILENT] += 1
    if not item.sources and protocol.kind != "extended":
        counts[UNSOURCED] += 1
        return {}
    if protocol.kind == "multi":
        return _score_multi(item, said, maps, protocol, switches, counts)
    return _score_single(item, said, maps, protocol, switches, counts)


def _score_single(
    item: Item, said: Maps, maps: Any, protocol: Protocol, switches: Switches, counts: Counter[str]
) -> Values:
    if len(item.pictures) != 1:
        raise DataError(
            f"item {item.key} has {len(item.pictures)} pictures; expected one in {protocol.name}, a benchmark of "
            'single pictures; make it one of kind "multi"'
        )
    if switches.oracle:
        said, maps = pairing.sum_classes(said, maps)
    canvas, targets = Canvas(maps, 1, switches), truths.by_canvas(item, switches, protocol.box_unit)
    category = targets[0].category if targets else None
    number = pairing.of_class(item, said, category) if switches.oracle else pairing.only_map(item, said)
    values: Values = {}
    if protocol.kind == "extended":
        given = said.confidence[number] if number is not None else 0.0
        values = {
            "positive": float(bool(targets)),
            "confidence": extended.confidence(canvas.plane(number, 0))
            if number is not None and given is None
            else given,
        }
    if targets:
        one = _Compared(canvas, targets, [number])
        values["iou"] = one.ious(counts)[0]
        if protocol.kind == "single" and "ap" in protocol.metrics:
            values["ap"] = one.average_precisions()[0]
    return values


def _score_multi(
    item: Item, said: Maps, maps: Any, protocol: Protocol, switches: Switches, counts: Counter[str]
) -> Values:
    unit, pictures = protocol.box_unit, len(item.pictures)
    targets = truths.by_source(item, switches, unit)
    by_class = protocol.class_aware or switches.oracle
    compared = _compare(item, said, maps, targets, switches, by_class)
    values: Values = {"source": compared.ious(counts)}
    values["ciou"] = _mean(values["source"])
    if "ap" in protocol.metrics:
        values["ap"] = compared.average_precisions()
    if protocol.class_aware and "nsa" in protocol.metrics:
        values["nsa"] = _nsa(item, said, Canvas(maps, pictures, switches), switches)
    if not by_class and any(said.classes):
        values["oracle"] = _compare(item, said, maps, targets, switches, True).ious()
    if switches.canvas == "horizontal" and pictures > 1:
        apart = replace(switches, canvas="separate")
        alone = truths.by_source(item, apart, unit)
        values["source_wise"] = _compare(item, said, maps, alone, apart, by_class).ious()
    return values | _union(item, maps, switches, unit)


def _union(item: Item, maps: Any, switches: Switches, unit: float) -> Values:
    targets = truths.by_canvas(item, switches, unit)
    numbers = [0 if len(maps) else None] * len(targets)
    some = maps.max(0, keepdims=True) if len(maps) else maps
    values: Values = {"union": _Compared(Canvas(some, len(item.pictures), switches), targets, numbers).ious()}
    if switches.aggregate == "union":
        first = _Compared(Canvas(maps, len(item.pictures), switches), targets, numbers).ious()
        values["per_map"] = [_mean(first), *[0.0] * (len(maps) - 1)] if len(maps) else []
    return values


def _compare(item: Item, said: Maps, maps: Any, targets: list[Target], switches: Switches, by_class: bool) -> _Compared:
    """Choose the map of each target, by its class or by Hungarian matching."""
    if by_class:
        said, maps = pairing.sum_classes(said, maps)
        numbers = [pairing.of_class(item, said, target.category) for target in targets]
        return _Compared(Canvas(maps, len(item.pictures), switches), targets, numbers)
    canvas = Canvas(maps, len(item.pictures), switches)
    kept = [place for place, target in enumerate(targets) if switches.empty == "fail" or target.area]
    matched = pairing.match(item, said, canvas, [targets[place] for place in kept])
    found: list[int | None] = [None] * len(targets)
    for place, number in zip(kept, matched, strict=True):
        found[place] = number
    return _Compared(canvas, targets, found)


class _Compared(NamedTuple):
    """Targets and the map that stands for each of them."""

    canvas: Canvas
    targets: list[Target]
    numbers: Sequence[int | None]

    def ious(self, counts: Counter[str] | None = None) -> list[float]:
        """IoU of each target; 0 without a map; `counts` takes what is special."""
        found = []
        for target, number in zip(self.targets, self.numbers, strict=True):
            if target.area and number is not None:
                found.append(self.canvas.iou(number, target))
                continue
            found.append(0.0 if target.area else self._empty)
            if counts is not None:
                counts[UNMAPPED if target.area else EMPTY] += 1
        return found

    def average_precisions(self) -> list[float]:
        """Pixel-level AP of each target; 0 without a map; of an empty truth only the swapped one can be above 0."""
        return [
            self.canvas.average_precision(number, target)
            if number is not None and (target.area or not self._empty)
            else (0.0 if target.area else self._empty)
            for target, number in zip(self.targets, self.numbers, strict=True)
        ]

    @property
    def _empty(self) -> float:
        return float("nan") if self.canvas.switches.empty == "exclude" else 0.0


def _nsa(item: Item, said: Maps, canvas: Canvas, switches: Switches) -> float:
    """Average the dark share over the maps of silent classes (2.5); of each channel, not of summed classes."""
    heard = {source.category for source in item.sources}
    if switches.nsa_unboxed == "unknown":
        heard |= item.unboxed
    numbers = range(len(said.classes))[: switches.nsa_channels]
    silent = [number for number in numbers if said.classes[number] is not None and said.classes[number] not in heard]
    if switches.nsa_leaves_out == "first":
        first = {said.classes.index(name) for name in heard if name in said.classes}
        silent = [number for number in numbers if said.classes[number] is not None and number not in first]
    return _mean([canvas.dark(number) for number in silent])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
