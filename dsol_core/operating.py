"""Does anything in the picture sound? One operating threshold, chosen on validation frames; rates on test frames.

Each picture is asked with its own sound (a positive) and with negative audio (`negatives`). The threshold is the one
with the highest balanced accuracy on validation, (detected + 1 - false alarms) / 2, where every kind of negative weighs
the same, among those at which silence and noise, in which nothing can sound, light at most one picture in a hundred. It
also tells which of the two scores separates better. For off-screen sounds, which can be heard and are only not seen,
the rate of false alarms is what comes out, not what was asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsol_core import metrics
from dsol_core.types import DataError, Estimate

POSITIVE = "positive"
EMPTY, ALLOWED = ("silence", "noise"), 0.01  # kinds in which nothing sounds; share of each that may light on validation
SCORES = ("peak", "sounding")  # highest value of the gated maps; highest probability of an entry


@dataclass
class Detections:
    """The scores of one split's pictures, with their own and with negative sounds.

    Attributes:
        kinds: of each: "positive", or the kind of negative.
        groups: of each: what the bootstrap draws, the picture's set of videos.
        scores: "peak" and "sounding" -> a value each.
    """

    kinds: list[str] = field(default_factory=list)
    groups: list[Hashable] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SCORES})

    def add(self, kind: str, item: str, videos: Sequence[str], peak: float, sounding: Any) -> None:
        """Add what a picture said.

        Args:
            kind: "positive", or the kind of negative.
            item: its key, for errors.
            videos: it is made of.
            peak: highest value of its gated maps.
            sounding: [K] probabilities.

        Raises:
            DataError: a value is not finite.
        """
        highest = float(np.max(sounding))
        if not np.isfinite(peak + highest):
            raise DataError(
                f"item {item} has a peak of {peak} and a highest probability of {highest} with {kind} sound; expected "
                "finite ones; training diverged: lower the learning rate and run --from train_stage_one"
            )
        self.kinds.append(kind)
        self.groups.append(frozenset(videos))
        self.scores["peak"].append(float(peak))
        self.scores["sounding"].append(highest)

    @property
    def negatives(self) -> list[str]:
        """Kinds of negatives that there are, sorted."""
        return sorted(set(self.kinds) - {POSITIVE})

    def of(self, kind: str, score: str) -> Any:
        """Return the scores of a kind, float64 [N]."""
        return np.array([v for v, one in zip(self.scores[score], self.kinds, strict=True) if one == kind], np.float64)


@dataclass(frozen=True)
class OperatingPoint:
    """From which score on something sounds.

    Attributes:
        score: "peak" or "sounding".
        threshold: a picture at it or above it sounds.
        accuracies: each score's balanced accuracy on validation, at its own best threshold.
        n: pictures with a sound, positive or negative, that it was chosen on.
    """

    score: str
    threshold: float
    accuracies: dict[str, float]
    n: int


def choose(validation: Detections) -> OperatingPoint | None:
    """Choose score and threshold on validation frames; None where positives or negatives are missing.

    Of equally good thresholds the highest is taken (fewest false alarms), in the middle of the gap below it; of equally
    good scores the first of `SCORES`. Where only a threshold above all scores keeps silence and noise dark, it is that.
    """
    if POSITIVE not in validation.kinds or not validation.negatives:
        return None
    found = {name: _best(validation, name) for name in SCORES}
    score = max(SCORES, key=lambda name: found[name][0])
    accuracies = {name: accuracy for name, (accuracy, _) in found.items()}
    return OperatingPoint(score, found[score][1], accuracies, len(validation.kinds))


def _best(validation: Detections, score: str) -> tuple[float, float]:
    """Return the highest balanced accuracy and the threshold that reaches it, silence and noise being dark."""
    levels = np.unique(validation.scores[score])
    levels = np.append(levels, levels[-1] + 1e-3)  # the last one is above all
    alarms = {kind: _share(validation.of(kind, score), levels) for kind in validation.negatives}
    accuracy = (_share(validation.of(POSITIVE, score), levels) + 1 - np.mean(list(alarms.values()), axis=0)) / 2
    for kind in EMPTY:
        accuracy = np.where(alarms.get(kind, 0.0) > ALLOWED, -1.0, accuracy)
    place = int(np.flatnonzero(accuracy >= accuracy.max() - 1e-12)[-1])
    return float(accuracy[place]), float((levels[place] + levels[max(place - 1, 0)]) / 2)


def _share(values: Any, levels: Any) -> Any:
    """Return the share of the values at or above each level, float64 [L]."""
    return 1 - np.searchsorted(np.sort(values), levels, side="left") / len(values)


def rates(found: Detections, point: OperatingPoint, resamples: int) -> dict[str, Estimate]:
    """Return "detected" and "false_alarm_<kind>": shares at or above the threshold, with intervals over videos."""
    above = np.array(found.scores[point.score]) >= point.threshold
    rates: dict[str, Estimate] = {}
    for kind in (POSITIVE, *found.negatives):
        values = np.where([one == kind for one in found.kinds], above.astype(np.float64), np.nan)
        one = metrics.mean_estimate(values, found.groups, seed=0, resamples=resamples)
        if one is not None:
            rates["detected" if kind == POSITIVE else f"false_alarm_{kind}"] = one
    return rates
