"""Items, protocols and slow, obvious references for the tests of benchmark scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import settings

from dsol_core.protocols import Item, Maps, MaskRule, Picture, Protocol, Sound, Source, Switches

calm = settings(deadline=None, max_examples=40)  # of a test with maps of 50,176 pixels, on a machine that may be busy
LEFT, RIGHT, TOP = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 0.5)  # xywh
QUARTER = (0.0, 0.0, 0.5, 0.5)
CUT = Switches(mask=MaskRule("absolute", 0.5), canvas="separate")


def protocol(kind: Any = "single", metrics: Sequence[str] = ("iou@0.5", "auc"), **changes: Any) -> Protocol:
    made = Protocol(
        name="tiny",
        title="Tiny",
        row=1,
        kind=kind,
        annotations=(),
        media="",
        items=1,
        metrics=tuple(metrics),
        reference=CUT,
        correct=CUT,
        measures="",
        trap="",
    )
    return replace(made, **changes)


def item(*sources: Source, key: str = "a", videos: Sequence[str] = ("v",), pictures: int = 1) -> Item:
    frames = tuple(Picture(f"{key}{number}", 0.5) for number in range(pictures))
    return Item(key, tuple(videos), frames, (Sound(key),), sources)


def source(*boxes: Any, category: str | None = None, picture: int = 0) -> Source:
    return Source(category, boxes, picture=picture)


def box_map(box: Any, side: int = 224) -> Any:
    """Ones in a box (xywh), zeros elsewhere, float32 [S, S]."""
    made = np.zeros((side, side), dtype=np.float32)
    x, y, w, h = (int(side * value) for value in box)
    made[y : y + h, x : x + w] = 1
    return made


def said(maps: Any, classes: Sequence[str | None] | None = None, confidence: Any = None, key: str = "a") -> Maps:
    maps = np.asarray(maps, dtype=np.float32)
    classes = tuple(classes or (None,) * len(maps))
    return Maps(key, maps, classes, tuple(confidence or (None,) * len(maps)))


def slow_iou(mask: Any, truth: Any) -> float:
    """The literature's cIoU, word by word."""
    infer = np.zeros(mask.shape)
    infer[mask] = 1
    return float(np.sum(infer * truth) / (np.sum(truth) + np.sum(infer * (truth == 0))))


def slow_mask(plane: Any, rule: MaskRule, area: int) -> Any:
    """The mask rules with a sort."""
    ordered = np.sort(plane, axis=None)
    n = plane.size
    if rule.kind == "top_half":
        at = ordered[int(n * 0.5)]
    elif rule.kind == "truth_area":
        at = ordered[n - (area if area else n // 2)]
    else:
        at = np.float32(rule.level) * (plane.max() if rule.kind == "relative" else np.float32(1))
    return plane > at if rule.strict else plane >= at
