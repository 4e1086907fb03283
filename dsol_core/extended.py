"""Extended sets: detection with negatives, where a system must also say how sure it is (SLAVC, Mo 2022).

For a confidence threshold a sample is a true positive (positive, above it, cIoU >= 0.5), a false positive (above it,
but negative or misplaced) or a false negative (positive, below it). SLAVC's code does not count a misplaced detection
as a missed one, takes every N // 200th confidence as threshold and integrates from the first recall on;
`misplaced_is_miss` and `all_thresholds` switch these to the textbook's.

Arrays here: cIoU `ious` [N] (any value for negatives), `confidences` [N], `positives` bool [N].
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from dsol_core import binarise
from dsol_core.types import DataError, Estimate

LOCATED = 0.5  # cIoU from which a detection is in the right place


def confidence(plane: Any) -> float:
    """Return the mean of the highest quarter of a score map, which must have a fixed range (not be stretched).

    Args:
        plane: float32 [H, W] on the evaluation grid: (cos + 1) / 2, a sigmoid, ...

    Returns:
        Mean of the `n // 4` highest pixels, in the map's range.
    """
    flat = plane.reshape(-1)
    count = flat.size // 4
    at = binarise.order_statistic(flat, flat.size - count)
    above = flat[flat > at]
    return float((above.sum(dtype=np.float64) + float(at) * (count - len(above))) / count)


def counts(ious: Any, confidences: Any, positives: Any, thresholds: Any, *, misplaced_is_miss: bool) -> Any:
    """Count at each threshold.

    Args:
        ious: float [N].
        confidences: float [N].
        positives: bool [N].
        thresholds: float [T]; a sample at the threshold is above it.
        misplaced_is_miss: whether a misplaced detection is also a false negative.

    Returns:
        int64 [3, T]: true positives, false positives, false negatives.
    """
    order = np.argsort(confidences, kind="stable")
    positive = np.asarray(positives, dtype=bool)[order]
    located = positive & (np.asarray(ious, dtype=np.float64)[order] >= LOCATED)
    first = np.searchsorted(np.asarray(confidences)[order], thresholds, side="left")  # the first one above

    def from_first(flags: Any) -> Any:
        sums = np.concatenate([[0], np.cumsum(flags)])
        return sums[-1] - sums[first]

    true, above = from_first(located), len(order) - first
    missed = positive.sum() - from_first(positive)
    misplaced = from_first(positive & ~located)
    return np.stack([true, above - true, missed + (misplaced if misplaced_is_miss else 0)])


def precision_recall(found: Any) -> tuple[Any, Any]:
    """Return precision and recall of counts [3, T], each float64 [T]; 1 where a denominator is 0."""
    true, false, missed = np.asarray(found, dtype=np.float64)

    def share(rest: Any) -> Any:
        whole = true + rest
        return np.divide(true, whole, out=np.ones_like(true), where=whole > 0)

    return share(false), share(missed)


def average_precision(
    ious: Any, confidences: Any, positives: Any, *, misplaced_is_miss: bool = True, all_thresholds: bool = True
) -> float:
    """Return the area under the precision envelope.

    Thresholds run from high to low. SLAVC's: the confidences without the largest, every max(1, N // 200)th, and the
    area starts at the first recall; else: all distinct ones, from recall 0.
    """
    known = np.sort(np.asarray(confidences, dtype=np.float64))
    if all_thresholds:
        thresholds = np.unique(known)[::-1]
    else:
        thresholds = known[:-1][:: -max(1, len(known) // 200)]
    if not len(thresholds):
        return 0.0
    found = counts(ious, confidences, positives, thresholds, misplaced_is_miss=misplaced_is_miss)
    precision, recall = precision_recall(found)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if all_thresholds:
        return float((best * np.diff(recall, prepend=0.0)).sum())
    return float((best[:-1] * np.diff(recall)).sum())


def max_f1(
    ious: Any, confidences: Any, positives: Any, *, misplaced_is_miss: bool = True, all_thresholds: bool = True
) -> float:
    """Return the highest F1 over thresholds: every confidence, or SLAVC's `sorted(q)[:: max(1, N // 10)]`."""
    known = np.sort(np.asarray(confidences, dtype=np.float64))
    thresholds = np.unique(known) if all_thresholds else known[:: max(1, len(known) // 10)]
    if not len(thresholds):
        return 0.0
    found = counts(ious, confidences, positives, thresholds, misplaced_is_miss=misplaced_is_miss)
    precision, recall = precision_recall(found)
    whole = precision + recall
    return float(np.divide(2 * precision * recall, whole, out=np.zeros_like(whole), where=whole > 0).max())


def bootstrap(
    statistic: Callable[[Any], float], groups: Sequence[Hashable], *, seed: int, resamples: int = 1000
) -> Estimate:
    """Estimate a statistic that is no mean, with its 95 % interval, drawing whole groups with replacement.

    Args:
        statistic: places of samples, int64 [n] -> value in [0, 1].
        groups: of each sample (N).
        seed: of the draws; the draws are those of `metrics.bootstrap`.
        resamples: number of draws.

    Raises:
        DataError: there is no sample.
    """
    if not len(groups):
        raise DataError("no sample to estimate from; leave the metric out instead")
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    of_sample = np.array([number[group] for group in groups])
    generator, share = np.random.default_rng(seed), np.full(len(number), 1 / len(number))
    places, value = np.arange(len(groups)), statistic(np.arange(len(groups)))
    drawn = np.array(
        [statistic(np.repeat(places, generator.multinomial(len(number), share)[of_sample])) for _ in range(resamples)]
    )
    low, high = np.quantile(drawn, (0.025, 0.975)) if resamples else (value, value)
    return Estimate(value, float(min(low, value)), float(max(high, value)), len(groups))
