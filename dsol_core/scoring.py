"""One frame against its boxes: the values of every metric for the model's maps and for the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsol_core import binarise, metrics
from dsol_core import maps as localisation
from dsol_core.config import EvaluationConfig
from dsol_core.types import Box, CheckpointError, ShapeError

CENTRE_SIDES = (0.5, 0.6, 0.7)  # of the frame's side; the centre box is the best of them on validation frames
TOP = {"audio_top1": 1, "audio_top2": 2, "sounding_top2": 2}  # classes that a recall may name
_QUADRANTS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))


@dataclass(frozen=True)
class Classes:
    """Which class each dictionary entry stands for.

    Attributes:
        names: classes that have a map (C), sorted; an entry without a category is a class of its own.
        of_entry: int64 [K], place in `names` of each entry's class.
    """

    names: tuple[str, ...]
    of_entry: Any

    @classmethod
    def of(cls, entries: Sequence[str], categories: Sequence[str | None] | None) -> Classes:
        """Make them of the entries' names and, where labels exist, their categories."""
        own = [category or entry for entry, category in zip(entries, categories or entries, strict=True)]
        names = tuple(sorted(set(own)))
        return cls(names, np.array([names.index(name) for name in own]))

    @property
    def one_each(self) -> Classes:
        """The same classes with one entry each: for answers that do not come from the dictionary."""
        return Classes(self.names, np.arange(len(self.names)))

    def summed(self, maps: Any) -> Any:
        """Sum the maps of each class's entries, [K, h, w] -> float32 [C, h, w] (the reference sums, then resizes)."""
        total = np.zeros((len(self.names), *maps.shape[1:]), dtype=np.float32)
        for place, one in zip(self.of_entry, maps, strict=True):
            total[place] += one
        return total

    def loudest(self, sounding: Any) -> Any:
        """Return each class's highest entry, [K] -> float64 [C]."""
        best = np.full(len(self.names), -np.inf)
        np.maximum.at(best, self.of_entry, sounding)
        return best

    def silent_entries(self, sounding: Sequence[str], leaves_out: str) -> Any:
        """Mark the entries that count as silent, bool [K].

        Args:
            sounding: classes that sound.
            leaves_out: "all" entries of the sounding classes, or only the "first" of each (the code's quirk).
        """
        heard = [self.names.index(name) for name in sounding if name in self.names]
        silent = ~np.isin(self.of_entry, heard)
        if leaves_out == "first":
            silent[:] = True
            silent[[int(np.argmax(self.of_entry == place)) for place in heard]] = False
        return silent


@dataclass(frozen=True)
class Truth:
    """What is annotated on a frame, on the evaluation grid.

    Attributes:
        union: bool [S, S] union of all sounding boxes.
        sounding: class -> bool [S, S] union of its sounding boxes.
        silent: (class, bool [S, S]) of each box of a visible but silent object.
        labels: classes that sound, boxed or not.
        too_thin: boxes that cover no pixel of the grid; they are in none of the masks.
    """

    union: Any
    sounding: dict[str, Any]
    silent: tuple[tuple[str, Any], ...]
    labels: tuple[str, ...]
    too_thin: tuple[Box, ...] = ()

    @property
    def boxed(self) -> list[str]:
        """Classes with a sounding box, however thin."""
        return sorted({*self.sounding, *(box.category for box in self.too_thin if box.sounding and box.category)})

    @classmethod
    def of(cls, boxes: Sequence[Box], labels: Sequence[str], side: int) -> Truth:
        """Rasterise the boxes; those without a category count for the union only."""
        size = (side, side)
        too_thin = tuple(box for box in boxes if not localisation.boxes_to_mask([box], size).any())
        known = {box.category for box in boxes if box.sounding and box.category} | set(labels)
        boxes = [box for box in boxes if box not in too_thin]
        heard = [box for box in boxes if box.sounding]
        named = sorted({box.category for box in heard if box.category})
        return cls(
            localisation.boxes_to_mask(heard, size),
            {name: localisation.boxes_to_mask([b for b in heard if b.category == name], size) for name in named},
            tuple(
                (box.category, localisation.boxes_to_mask([box], size))
                for box in boxes
                if not box.sounding and box.category
            ),
            tuple(sorted(known)),
            too_thin,
        )


@dataclass(frozen=True)
class Answer:
    """What is scored: the maps of one frame as the network gives them.

    Attributes:
        maps: [K, h, w] in [0, 1].
        agnostic: [h, w], where anything sounds.
        sounding: [K] in [0, 1], which entries sound.
        heard: [K] in [0, 1], the same of one who only listens.
    """

    maps: Any
    agnostic: Any
    sounding: Any
    heard: Any

    def __post_init__(self) -> None:
        sizes = {len(self.maps), len(self.sounding), len(self.heard)}
        if self.maps.ndim != 3 or len(sizes) > 1 or self.agnostic.shape != self.maps.shape[1:]:
            raise ShapeError(
                f"maps {self.maps.shape}, agnostic {self.agnostic.shape}, sounding {self.sounding.shape} and heard "
                f"{self.heard.shape} do not fit; expected [K, h, w], [h, w], [K] and [K]"
            )


def rules_of(subset: str, config: EvaluationConfig) -> EvaluationConfig:
    """Return the thresholds of a subset: "solo", "grid", or the name of the multi-source frames."""
    if config.multi_threshold is None or subset in ("solo", "grid"):
        return config
    return replace(config, scene_threshold=config.multi_threshold)


def score_solo(answer: Answer, truth: Truth, classes: Classes, config: EvaluationConfig) -> dict[str, float]:
    """Score the class-agnostic map of a frame against all its boxes, and its sound against its labels.

    Returns:
        "iou" where there are boxes, "audio_top1" where there are labels.
    """
    found = _recall("audio_top1", classes.loudest(answer.heard), truth, classes)
    if not truth.union.any():
        return found
    mask = localisation.relative_mask(binarise.resize(answer.agnostic, truth.union.shape), config.solo_threshold)
    return found | {"iou": float(metrics.iou(mask, truth.union))}


def score_scene(answer: Answer, truth: Truth, classes: Classes, config: EvaluationConfig) -> dict[str, float]:
    """Score the class maps of a frame against the boxes of its classes.

    A class that is annotated but has no dictionary entry scores 0, as a class that the model cannot find.

    Returns:
        "ciou" mean IoU of the sounding classes, each map against its own maximum; "nsa" as the reference; "sciou" and
        "snsa" with one threshold for the scene; "silent_nsa" where silent objects are boxed; where labels exist
        "audio_top2" of what is heard alone and "sounding_top2" of what is seen too. Values that cannot be had are left
        out.
    """
    if len(answer.maps) != len(classes.of_entry):
        raise CheckpointError(
            f"prediction has {len(answer.maps)} maps, the dictionary {len(classes.of_entry)} entries; "
            "run --force predict_maps"
        )
    found = _recall("audio_top2", classes.loudest(answer.heard), truth, classes)
    found |= _recall("sounding_top2", classes.loudest(answer.sounding), truth, classes)
    if not truth.boxed:
        return found
    size = truth.union.shape
    maps = binarise.resize(classes.summed(answer.maps), size)
    one_to_one = len(classes.names) == len(answer.maps) and (np.diff(classes.of_entry) > 0).all()
    entries = maps if one_to_one else binarise.resize(answer.maps, size)
    strict = localisation.scene_mask(maps, config.strict_threshold)
    asked = [name for name in truth.sounding if name in classes.names]
    own = {name: localisation.relative_mask(maps[classes.names.index(name)], config.scene_threshold) for name in asked}
    # The reference knows a scene's boxes only: a sound without a box is silent to its "nsa" (evaluation of the DSOL
    # code, paper section 4). Ours asks what is known to sound.
    silent = classes.silent_entries(truth.boxed, config.nsa_leaves_out)
    if truth.sounding:
        found |= _overlaps(own, {name: strict[classes.names.index(name)] for name in asked}, truth)
    return found | {
        **_known(nsa=metrics.nsa(entries, silent, config.nsa_threshold), snsa=_off(strict, truth.labels, classes)),
        **_known(silent_nsa=_silent_off(dict(zip(classes.names, strict, strict=True)), truth)),
    }


def _known(**values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if not np.isnan(value)}


def _recall(name: str, scores: Any, truth: Truth, classes: Classes) -> dict[str, float]:
    """Share of the labelled classes among the best `TOP[name]`; one without an entry is never found."""
    if not truth.labels:
        return {}
    names = [*classes.names, *(name for name in truth.labels if name not in classes.names)]
    padded = np.concatenate([scores, np.full(len(names) - len(scores), -np.inf)])
    return {name: float(metrics.top_recall(padded, np.isin(names, truth.labels), TOP[name]))}


def _overlaps(own: dict[str, Any], strict: dict[str, Any], truth: Truth) -> dict[str, float]:
    values = {"ciou": own, "sciou": strict}
    return {
        name: float(np.mean([metrics.iou(masks[c], box) if c in masks else 0.0 for c, box in truth.sounding.items()]))
        for name, masks in values.items()
    }


def _off(strict: Any, sounding: Sequence[str], classes: Classes) -> Any:
    return metrics.mean_where(metrics.share(~strict), ~np.isin(classes.names, sounding))


def _silent_off(strict: dict[str, Any], truth: Truth) -> float:
    """Share of the silent boxes that stays off, each in its own class's map; a class without a map is off."""
    shares = [metrics.off_share(strict[name], box) if name in strict else 1.0 for name, box in truth.silent]
    return float(np.mean(shares)) if shares else float("nan")


def score_unlabelled(answer: Answer, visual: Any, k: int, config: EvaluationConfig) -> dict[str, float]:
    """Score what needs neither labels nor boxes.

    Args:
        answer: of the model.
        visual: [K, h, w], the maps without listening.
        k: how many of the entries may count as visually strongest (1 of a solo, 2 of a scene).
        config: from which probability an entry counts as heard.

    Returns:
        "heard" whether any entry sounds; "agreement" whether the entry that sounds most is among the `k` that are
        seen best (highest peak of the visual map), ties broken evenly.
    """
    strength = visual.reshape(len(visual), -1).max(1)
    loudest = np.arange(len(visual)) == np.argmax(answer.sounding)
    return {
        "heard": float(answer.sounding.max() >= config.present),
        "agreement": float(metrics.top_recall(strength, loudest, k)),
    }


def class_ious(answer: Answer, truth: Truth, classes: Classes, config: EvaluationConfig) -> dict[str, float]:
    """Return the IoU of each sounding class's map, thresholded at its own maximum: the parts of "ciou"."""
    maps, found = classes.summed(answer.maps), {}
    for name, box in truth.sounding.items():
        found[name] = 0.0
        if name in classes.names:
            own = binarise.resize(maps[classes.names.index(name)], box.shape)
            found[name] = float(metrics.iou(localisation.relative_mask(own, config.scene_threshold), box))
    return found


def _deaf(maps: Any, agnostic: Any) -> Answer:
    """Maps [K, h, w] and [h, w] of one to whom every entry sounds alike."""
    return Answer(maps, agnostic, np.ones(len(maps)), np.ones(len(maps)))


def uniform(entries: int) -> Answer:
    """The map that says nothing: every entry equally likely everywhere."""
    maps = np.full((entries, 2, 2), 1 / entries, np.float32)
    return _deaf(maps, np.ones((2, 2), np.float32))


def box_answer(entries: int, x: float, y: float, size: float, side: int) -> Answer:
    """One square for every entry, fractions of the frame."""
    mask = localisation.boxes_to_mask([Box(x, y, size, size)], (side, side)).astype(np.float32)
    return _deaf(np.broadcast_to(mask, (entries, side, side)), mask)


def centre_box(entries: int, size: float, side: int) -> Answer:
    """A square in the middle of the frame for every entry, `size` of its side."""
    return box_answer(entries, (1 - size) / 2, (1 - size) / 2, size, side)


def all_boxes(entries: int, truth: Truth) -> Answer:
    """Every box of the frame, sounding or not, for every entry: the best that a map without classes can show."""
    mask = np.maximum.reduce([truth.union, *(silent for _, silent in truth.silent)]).astype(np.float32)
    return _deaf(np.broadcast_to(mask, (entries, *mask.shape)), mask)


def random_quadrant(entries: int, side: int, generator: np.random.Generator) -> Answer:
    """A quadrant of the frame drawn for each entry; the class-agnostic map shows a quadrant drawn too."""
    quarters = np.stack([box_answer(1, x, y, 0.5, side).agnostic for x, y in _QUADRANTS])
    drawn = generator.integers(len(quarters), size=entries + 1)
    return _deaf(quarters[drawn[:-1]], quarters[drawn[-1]])
