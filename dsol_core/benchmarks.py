"""Benchmarks: the values of a test set's items, for the model and the baselines, made into estimates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dsol_core import agreement, metrics, scoring
from dsol_core.config import EvaluationConfig
from dsol_core.scoring import Answer, Classes, Truth
from dsol_core.types import Box, DataError, Estimate

MODEL, UNIFORM, CENTRE, QUADRANT, VISUAL = "model", "uniform", "centre box", "random quadrant", "visual only"
ORACLE = "all boxes"  # what no class-agnostic map can pass: every box of the frame, for every class
BASELINES = (UNIFORM, CENTRE, QUADRANT, VISUAL, ORACLE)
_CENTRES = {f"{CENTRE} {size:.0%}": size for size in scoring.CENTRE_SIDES}

Values = Mapping[str, Any]  # name -> float [N]
_PARTS: dict[str, tuple[str, Callable[[Any], Any]]] = {  # metric -> what it is made of, each item's part of it
    "iou@0.5": ("iou", lambda v: metrics.success(v, 0.5)),
    "ciou@0.3": ("ciou", lambda v: metrics.success(v, 0.3)),
    "sciou@0.3": ("sciou", lambda v: metrics.success(v, 0.3)),
    "sauc": ("sciou", metrics.auc_terms),
    **{name: (name, np.asarray) for name in ("nsa", "snsa", "silent_nsa", *scoring.TOP, "agreement", "heard")},
}
SOLO = ("iou@0.5", "auc", "audio_top1")
SCENE = ("ciou@0.3", "auc", "nsa", "sciou@0.3", "sauc", "snsa", "silent_nsa", "audio_top2", "sounding_top2")
UNLABELLED = ("agreement", "heard")
_MISSING = {
    "silent_nsa": "no box of a visible but silent object",
    **dict.fromkeys(scoring.TOP, "no labels of these frames, or none of the training clips"),
    "iou@0.5": "no boxes",
}


@dataclass
class Benchmark:
    """All items of a subset and split.

    Attributes:
        subset: "solo", or the name of the scenes: "grid", "free".
        groups: of each item, what the bootstrap draws: its set of videos. A scene of four videos is a group of its own
            unless another has the same four. Simulated (200 scenes over 220 videos), that interval is right where
            videos do not differ in difficulty and 0.77 of the right width where they do by 0.5 logits; drawing single
            videos, a scene weighted by the product of its four counts, gives 3.6 and 2.9 times the right width.
        items: their names.
        values: predictor -> name -> one value an item, NaN where it cannot be had.
        classes: class -> [(IoU, audio recall)] of the items in which it sounds.
        loudest: entry that sounds most in each item.
        too_thin: class -> boxes that cover no pixel, which are left out.
    """

    subset: str
    groups: list[Hashable] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    classes: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    loudest: list[int] = field(default_factory=list)
    too_thin: Counter[str] = field(default_factory=Counter)

    @property
    def solo(self) -> bool:
        """Whether it holds frames with one source."""
        return self.subset == "solo"

    def add(self, item: str, videos: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> None:
        """Add an item: predictor -> name -> value."""
        for predictor, found in values.items():
            columns = self.values.setdefault(predictor, {})
            for name in found:
                columns.setdefault(name, [float("nan")] * len(self.items))
        self.items.append(item)
        self.groups.append(frozenset(videos))
        for predictor, columns in self.values.items():
            for name, column in columns.items():
                column.append(float(values.get(predictor, {}).get(name, float("nan"))))

    def parts(self, predictor: str, metric: str) -> Any:
        """Return each item's part of a metric, float64 [N], NaN where it has none; the metric is their mean."""
        source, part = ("iou" if self.solo else "ciou", metrics.auc_terms) if metric == "auc" else _PARTS[metric]
        column = self.values.get(predictor, {}).get(source)
        return part(np.full(len(self.items), np.nan) if column is None else np.array(column))

    def ious(self, predictor: str) -> Any:
        """Return each item's IoU (solo) or CIoU, float64 [N]."""
        return np.array(self.values.get(predictor, {}).get("iou" if self.solo else "ciou", []), dtype=np.float64)

    def estimates(self, predictor: str, resamples: int) -> dict[str, Estimate]:
        """Return every metric that can be had; the same videos are drawn for each predictor."""
        names = (*(SOLO if self.solo else SCENE), *UNLABELLED)
        found = {
            name: metrics.mean_estimate(self.parts(predictor, name), self.groups, seed=0, resamples=resamples)
            for name in names
        }
        return {name: one for name, one in found.items() if one is not None}

    def evenness(self, entries: int, resamples: int) -> Estimate:
        """Return the entropy of the entries that sound most, as a share of its largest value."""
        hot = np.eye(entries)[self.loudest]
        return metrics.bootstrap(hot, self.groups, agreement.evenness, seed=0, resamples=resamples)

    def left_out(self) -> dict[str, str]:
        """Return the metrics that no item has, each with the reason."""
        names = SOLO if self.solo else SCENE
        missing = [name for name in names if np.isnan(self.parts(MODEL, name)).all()]
        reason = "no boxes with a category, or a dictionary whose entries have none"
        return {name: _MISSING.get(name, "no boxes" if self.solo else reason) for name in missing}

    def with_centre(self, name: str | None) -> Benchmark:
        """Return it with one of the centre boxes as "centre box", the others left out."""
        kept = {one: columns for one, columns in self.values.items() if one not in _CENTRES}
        if name in self.values:
            kept[CENTRE] = self.values[name]
        return replace(self, values=kept)

    def ranked(self) -> list[str]:
        """Return the items from the best to the worst: by the strict IoU of scenes, the IoU of solos."""
        columns = self.values[MODEL]
        order = ("iou", "agreement") if self.solo else ("sciou", "ciou", "agreement")
        keys = [np.nan_to_num(np.array(columns[name]), nan=-1.0) for name in order if name in columns]
        return [self.items[i] for i in np.lexsort([np.arange(len(self.items)), *(-key for key in keys[::-1])])]


def best_centre(validation: Benchmark | None) -> str | None:
    """Return the centre box that reaches the highest IoU@0.5 (then AUC) on validation frames; None without boxes."""
    if validation is None:
        return None
    scores = {
        name: (float(np.nanmean(validation.parts(name, "iou@0.5"))), float(np.nanmean(validation.parts(name, "auc"))))
        for name in _CENTRES
        if not np.isnan(validation.parts(name, "iou@0.5")).all()
    }
    return max(scores, key=lambda name: scores[name]) if scores else None


@dataclass(frozen=True)
class Judge:
    """Scores one frame for the model and the baselines.

    Attributes:
        classes: of the dictionary's entries.
        labelled: whether entries have categories; without, only what needs no labels is scored.
        config: thresholds.
        seed: of the random quadrants.
    """

    classes: Classes
    labelled: bool
    config: EvaluationConfig
    seed: int = 0

    def truth(self, boxes: Sequence[Box], labels: Sequence[str]) -> Truth:
        """Rasterise the boxes; a dictionary without categories cannot be compared with those of the boxes."""
        if not self.labelled:
            boxes, labels = [replace(box, category=None) for box in boxes], []
        return Truth.of(boxes, labels, self.config.side)

    def score(self, benchmark: Benchmark, item: str, videos: Sequence[str], frame: Frame, *, baselines: bool) -> None:
        """Add a frame to a benchmark, with the baselines' values beside the model's."""
        answer, truth = frame.answer, self.truth(frame.boxes, frame.labels)
        answers = {MODEL: answer, **self._baselines(benchmark, frame, truth, full=baselines)}
        score = scoring.score_solo if benchmark.solo else scoring.score_scene
        config = scoring.rules_of(benchmark.subset, self.config)
        # Those that have no dictionary answer for the classes: several entries of one would add up.
        own = {name: self.classes if name in (MODEL, VISUAL) else self.classes.one_each for name in answers}
        values = {name: score(one, truth, own[name], config) for name, one in answers.items()}
        named = 1 if benchmark.solo else 2
        values[MODEL] |= scoring.score_unlabelled(answer, frame.visual, named, self.config)
        if baselines:
            values[UNIFORM] |= {"agreement": min(1.0, named / len(answer.sounding))}
        benchmark.loudest.append(int(np.argmax(answer.sounding)))
        benchmark.too_thin.update(box.category or "an unnamed class" for box in truth.too_thin)
        benchmark.add(item, videos, values)
        self._by_class(benchmark, answer, truth, values[MODEL], named)

    def _baselines(self, benchmark: Benchmark, frame: Frame, truth: Truth, *, full: bool) -> dict[str, Answer]:
        entries, side = len(self.classes.names), self.config.side
        found: dict[str, Answer] = {}
        if benchmark.solo:
            found = {name: scoring.centre_box(entries, size, side) for name, size in _CENTRES.items()}
        if not full:
            return found
        found[UNIFORM] = scoring.uniform(entries)
        if not benchmark.solo:
            drawn = np.random.default_rng((self.seed, len(benchmark.items)))
            found[QUADRANT] = scoring.random_quadrant(entries, side, drawn)
            if truth.sounding:
                found[ORACLE] = scoring.all_boxes(entries, truth)
        peaks = frame.visual.reshape(len(frame.visual), -1).max(1)
        return found | {VISUAL: Answer(frame.visual, frame.visual.max(0), peaks, np.ones(len(peaks)))}

    def _by_class(self, benchmark: Benchmark, answer: Answer, truth: Truth, own: Values, named: int) -> None:
        config = scoring.rules_of(benchmark.subset, self.config)
        ious = {name: own["iou"] for name in truth.sounding} if benchmark.solo else None
        scores = self.classes.loudest(answer.heard)
        for name, iou in (ious or scoring.class_ious(answer, truth, self.classes, config)).items():
            known = name in self.classes.names
            hot = np.isin(self.classes.names, [name])
            heard = float(metrics.top_recall(scores, hot, named)) if known else 0.0
            benchmark.classes.setdefault(name, []).append((iou, heard))


@dataclass(frozen=True)
class Frame:
    """One frame's prediction and what is annotated on it.

    Attributes:
        answer: the model's.
        visual: [K, h, w], its maps without listening.
        boxes: of the frame.
        labels: categories that sound.
    """

    answer: Answer
    visual: Any
    boxes: tuple[Box, ...] = ()
    labels: tuple[str, ...] = ()


def dictionary_quality(
    clusters: Mapping[str, int], labels: Mapping[str, tuple[str, str]], resamples: int
) -> dict[str, Estimate]:
    """Return NMI and purity of a clustering against labels, with intervals over videos.

    Args:
        clusters: key -> cluster.
        labels: key -> (video, label); keys without one are left out, the estimates' n tells how many are not.
        resamples: of the bootstrap.

    Raises:
        DataError: no key has a label.
    """
    if not labels.keys() & clusters.keys():
        raise DataError(f"none of {len(clusters)} clustered samples has a label; label some, or leave this out")
    clusters = {key: cluster for key, cluster in clusters.items() if key in labels}
    names = sorted({label for _, label in labels.values()})
    size = (max(clusters.values()) + 1, len(names))
    pairs = Counter((labels[key][0], cluster, names.index(labels[key][1])) for key, cluster in clusters.items())
    videos = list(dict.fromkeys(video for video, _, _ in pairs))
    place = {video: i for i, video in enumerate(videos)}
    tables = np.zeros((len(videos), *size))
    for (video, cluster, label), count in pairs.items():
        tables[place[video], cluster, label] = count
    flat, found = tables.reshape(len(videos), -1), {}
    for name, statistic in (("nmi", agreement.table_nmi), ("purity", agreement.table_purity)):

        def measure(sums: Any, statistic: Callable[[Any], Any] = statistic) -> Any:
            return statistic(sums.reshape(-1, *size))

        one = metrics.bootstrap(flat, videos, measure, seed=0, resamples=resamples)
        found[name] = replace(one, n=len(clusters))
    return found
