"""The best, median and worst frames of each benchmark as pictures: the frame, and one map a class laid over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsol_core import binarise, image
from dsol_core.benchmarks import Benchmark, Frame, Judge
from dsol_core.types import Box
from tasks.adapters import shards, tables
from tasks.adapters.heat_video import colour

RANKS = ("best", "median", "worst")
GREEN, RED = (46, 204, 113), (255, 71, 87)  # sounding and silent boxes
_LARGEST = 320  # pixels of a picture's longer side
_SHOWN = 0.5  # of the scene's maximum, from which a class that nobody annotated is shown too
_STRENGTH = 0.72  # opacity of a map at its peak
_GAP = 6  # pixels between the panels of a strip

Row = dict[str, Any]
Chosen = dict[str, dict[str, list[str]]]  # benchmark -> rank -> items


@dataclass(frozen=True)
class Panel:
    """One class's map on the frame.

    Attributes:
        title: class, or what the map shows.
        state: "sounding", "silent" (visible, not heard), "absent" (neither: a false alarm), or "" for none of these.
        picture: uint8 [H, W, 3], the map laid over the frame.
        boxes: to draw.
        colour: RGB of the class.
        probability: that it sounds, or None.
        iou: of the map with its boxes, or None.
    """

    title: str
    state: str
    picture: Any
    boxes: tuple[Box, ...]
    colour: tuple[int, int, int]
    probability: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class Picture:
    """One frame of the gallery: the frame itself with all boxes, then its panels."""

    benchmark: str
    rank: str
    item: str
    values: dict[str, float]
    panels: tuple[Panel, ...]


def choose(benchmarks: Mapping[str, Benchmark], count: int) -> Chosen:
    """Choose `count` items of each rank, none twice; small benchmarks give fewer."""
    found: Chosen = {}
    for name, benchmark in benchmarks.items():
        ranked = benchmark.ranked()
        size = min(count, (len(ranked) + 2) // 3)
        middle = max(size, (len(ranked) - size) // 2)
        best, median, worst = (
            ranked[:size],
            ranked[middle : middle + size],
            ranked[max(middle + size, len(ranked) - size) :],
        )
        found[name] = dict(zip(RANKS, (best, median, worst), strict=True))
    return found


def find_rows(path: Path, chosen: Chosen) -> dict[str, Row]:
    """Return the rows of the chosen items of predictions.parquet, test split."""
    wanted = {item for ranks in chosen.values() for items in ranks.values() for item in items}
    return {row["item"]: row for row in tables.read(path, batch=64) if row["split"] == "test" and row["item"] in wanted}


def draw(chosen: Chosen, rows: Mapping[str, tuple[Row, Frame]], folder: Path, judge: Judge) -> tuple[Picture, ...]:
    """Lay the chosen frames' maps over their pictures.

    Args:
        chosen: by benchmark and rank.
        rows: item -> its row of the predictions, and that as a frame.
        folder: of the shards.
        judge: its classes and thresholds.
    """
    frames: dict[str, Any] = {}
    for subset in sorted({row["subset"] for row, _ in rows.values()}):
        keys = {item for item, (row, _) in rows.items() if row["subset"] == subset}
        for sample in shards.samples(folder, subset=subset, split="test", keys=keys):
            frames[sample["key"]] = shrink(sample["frame"])
    found = []
    for name, ranks in chosen.items():
        for rank in RANKS:
            for item in (one for one in ranks[rank] if one in frames and one in rows):
                scored = Benchmark(name)
                judge.score(scored, item, (), rows[item][1], baselines=False)
                values = {metric: column[0] for metric, column in scored.values["model"].items()}
                panels = make_panels(frames[item], rows[item][1], judge, name)
                found.append(Picture(name, rank, item, values, panels))
    return tuple(found)


def shrink(frame: Any) -> Any:
    """Return the frame, no larger than the gallery needs it."""
    from tasks.adapters import images

    height, width = frame.shape[:2]
    factor = min(1.0, _LARGEST / max(height, width))
    return images.resize(frame, (max(1, round(height * factor)), max(1, round(width * factor))))


def muted(frame: Any) -> Any:
    """Return the frame as a darker grey picture, on which a coloured map can be seen whatever the frame's colours."""
    grey = frame @ np.array(image.GREY)
    return np.repeat((20 + 0.6 * grey)[..., None], 3, axis=2).astype(np.uint8)


def make_panels(frame: Any, row: Frame, judge: Judge, subset: str) -> tuple[Panel, ...]:
    """Return the frame with all boxes, then a panel a class: sounding ones, silent ones, false alarms.

    All class maps of a frame share one scale, the maximum over the classes, so that what is dim looks dim.
    """
    size, truth = frame.shape[:2], judge.truth(row.boxes, row.labels)
    maps = binarise.resize(judge.classes.summed(row.answer.maps), size)
    peak = max(float(maps.max()), 1e-9)
    scores = judge.classes.loudest(row.answer.sounding)
    panels = [Panel("frame", "", frame, row.boxes, (128, 128, 128))]
    if subset == "solo":
        heat = binarise.resize(row.answer.agnostic, size)
        shown = image.overlay(muted(frame), heat / max(float(heat.max()), 1e-9), (255, 170, 0), _STRENGTH)
        panels.append(Panel("anything that sounds", "", shown, row.boxes, (255, 170, 0)))
    for name, state in _classes_to_show(truth, maps, peak, scores, judge):
        if name not in judge.classes.names:
            panels.append(Panel(name, state, muted(frame), _of(row.boxes, name), (128, 128, 128)))
            continue
        place = judge.classes.names.index(name)
        tint = colour(int(np.argmax(judge.classes.of_entry == place)))
        shown = image.overlay(muted(frame), maps[place] / peak, tint, _STRENGTH)
        iou = _iou(row, truth, judge, name, subset) if state == "sounding" else None
        panels.append(Panel(name, state, shown, _of(row.boxes, name), tint, float(scores[place]), iou))
    return tuple(panels)


def _of(boxes: Sequence[Box], name: str) -> tuple[Box, ...]:
    return tuple(box for box in boxes if box.category == name)


def _iou(row: Frame, truth: Any, judge: Judge, name: str, subset: str) -> float | None:
    from dsol_core.scoring import class_ious, rules_of

    return class_ious(row.answer, truth, judge.classes, rules_of(subset, judge.config)).get(name)


def _classes_to_show(truth: Any, maps: Any, peak: float, scores: Any, judge: Judge) -> list[tuple[str, str]]:
    """Name the annotated classes, and the strongest other one where it would be mistaken for a sounding one."""
    sounding = list(dict.fromkeys([*truth.sounding, *truth.labels]))
    silent = [name for name in dict.fromkeys(name for name, _ in truth.silent) if name not in sounding]
    known = {*sounding, *silent}
    others = [(float(maps[i].max()), name) for i, name in enumerate(judge.classes.names) if name not in known]
    others.sort(reverse=True)
    if not known:  # nobody annotated the frame: show what the model hears best
        order = np.argsort(-scores, kind="stable")[:2]
        return [(judge.classes.names[i], "") for i in order]
    alarm = [(name, "absent") for strength, name in others[:1] if strength > _SHOWN * peak]
    return [*((name, "sounding") for name in sounding), *((name, "silent") for name in silent), *alarm]


def strip(picture: Picture) -> Any:
    """Return the panels side by side with their boxes, uint8 [H, W', 3], for files outside the page."""
    drawn = [with_boxes(panel.picture, panel.boxes) for panel in picture.panels]
    gap = np.full((drawn[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for one in drawn for part in (one, gap)]
    return np.concatenate(parts[:-1], 1)


def with_boxes(frame: Any, boxes: Sequence[Box], thickness: int = 2) -> Any:
    """Draw boxes on a picture: green where the object sounds, red where it is silent."""
    found = frame.copy()
    height, width = frame.shape[:2]
    for box in boxes:
        top, left = round(box.y * height), round(box.x * width)
        bottom, right = round((box.y + box.height) * height), round((box.x + box.width) * width)
        inside = found[top + thickness : bottom - thickness, left + thickness : right - thickness].copy()
        found[top:bottom, left:right] = GREEN if box.sounding else RED
        found[top + thickness : bottom - thickness, left + thickness : right - thickness] = inside
    return found
