from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsol_core import binarise, extended, metrics
from dsol_core.types import DataError
from tests.core.tiny_benchmarks import calm

SEEDS = st.integers(0, 2**32 - 1)
SLAVC = {"misplaced_is_miss": False, "all_thresholds": False}


def sample(seed: int, count: int, levels: int) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    ious, positives = generator.random(count), generator.random(count) < 0.6
    return np.where(positives, ious, np.nan), np.round(generator.random(count) * levels) / levels, positives


def slow_precision_recall(ious: Any, confidences: Any, positives: Any, at: float, strict: bool) -> tuple[float, float]:
    """The table of method-and-benchmarks, 2.7, sample by sample; `strict`: a misplaced one is missed too."""
    true = false = missed = 0
    for iou, confidence, positive in zip(ious, confidences, positives, strict=True):
        if confidence >= at and positive and iou >= 0.5:
            true += 1
        elif confidence >= at:
            false += 1
            missed += int(positive and strict)
        elif positive:
            missed += 1
    return (true / (true + false) if true + false else 1.0), (true / (true + missed) if true + missed else 1.0)


def slow_slavc_ap(ious: Any, confidences: Any, positives: Any) -> float:
    precision, recall = [], []
    for at in np.sort(confidences)[:-1][:: -max(1, len(ious) // 200)]:
        p, r = slow_precision_recall(ious, confidences, positives, at, strict=False)
        precision.append(p)
        recall.append(r)
    envelope = [max(precision[i:]) for i in range(len(precision))]
    return sum(envelope[i] * (recall[i + 1] - recall[i]) for i in range(len(precision) - 1))


def slow_standard_ap(ious: Any, confidences: Any, positives: Any) -> float:
    points = [(1.0, 0.0)] + [
        slow_precision_recall(ious, confidences, positives, at, strict=True) for at in sorted(set(confidences))[::-1]
    ]
    return sum(max(p for p, _ in points[i:]) * (points[i][1] - points[i - 1][1]) for i in range(1, len(points)))


@calm
@given(SEEDS, st.sampled_from([1, 2, 7, 40]), st.sampled_from([3, 10**6]))
def test_both_rules_equal_the_slow_loops(seed: int, count: int, levels: int) -> None:
    some = sample(seed, count, levels)
    assert extended.average_precision(*some, **SLAVC) == pytest.approx(slow_slavc_ap(*some), abs=1e-12)
    assert extended.average_precision(*some) == pytest.approx(slow_standard_ap(*some), abs=1e-12)
    for strict, thresholds in ((False, sorted(some[1])[:: max(1, count // 10)]), (True, some[1])):
        pairs = [slow_precision_recall(*some, at, strict) for at in thresholds]
        best = max(2 * p * r / (p + r) if p + r else 0.0 for p, r in pairs)
        assert extended.max_f1(*some, misplaced_is_miss=strict, all_thresholds=strict) == pytest.approx(best)


def test_slavcs_stride_on_a_large_set() -> None:
    """From 400 samples on, only every second confidence is a threshold; the textbook's rule knows no stride."""
    some = sample(5, 450, 10**6)
    strided = extended.average_precision(*some, **SLAVC)
    assert strided == pytest.approx(slow_slavc_ap(*some), abs=1e-12)
    assert strided != extended.average_precision(*(column[:399] for column in some), **SLAVC)


def test_counts_by_hand() -> None:
    """The table of 2.7: confidences 1 to 5; a hit, a misplaced one, a negative, a hit, a misplaced one."""
    ious, positives = [0.9, 0.1, np.nan, 0.5, 0.49], [True, True, False, True, True]
    found = extended.counts(ious, [1, 2, 3, 4, 5], positives, [0, 3, 6], misplaced_is_miss=False)
    assert found.tolist() == [[2, 1, 0], [3, 2, 0], [0, 2, 4]]
    strict = extended.counts(ious, [1, 2, 3, 4, 5], positives, [0, 3, 6], misplaced_is_miss=True)
    assert strict.tolist() == [[2, 1, 0], [3, 2, 0], [2, 3, 4]]
    precision, recall = extended.precision_recall(found)
    assert precision.tolist() == [0.4, pytest.approx(1 / 3), 1] and recall.tolist() == [1, pytest.approx(1 / 3), 0]


def test_a_perfect_system_scores_one_by_the_textbook_and_nothing_by_slavcs_rule() -> None:
    """Two hits above two negatives: the textbook's AP is 1; SLAVC drops the first area and the largest threshold."""
    ious, positives = [1, 1, np.nan, np.nan], [True, True, False, False]
    assert extended.average_precision(ious, [1, 1, 0, 0], positives) == 1
    assert extended.average_precision(ious, [1, 1, 0, 0], positives, **SLAVC) == 0
    assert extended.average_precision(ious, [4, 3, 2, 1], positives) == 1
    assert extended.max_f1(ious, [4, 3, 2, 1], positives) == 1


def test_misplaced_detections_inflate_recall_in_slavcs_rule() -> None:
    """One hit, one misplaced: recall 1 there, 1/2 by the textbook; F1 accordingly."""
    ious, confidences, positives = [1, 0], [2, 1], [True, True]
    assert extended.max_f1(ious, confidences, positives, misplaced_is_miss=False, all_thresholds=True) == pytest.approx(
        2 / 3
    )
    assert extended.average_precision(ious, confidences, positives) == 0.5


@calm
@given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_confidences_counts(seed: int, scale: float, shift: float) -> None:
    ious, confidences, positives = sample(seed, 60, 50)
    moved = np.round(confidences * 50) * scale + shift
    order = np.random.default_rng(seed).permutation(60)
    for rule in (SLAVC, {}):
        for measure in (extended.average_precision, extended.max_f1):
            expected = measure(ious, confidences, positives, **rule)
            assert 0 <= expected <= 1
            assert measure(ious, moved, positives, **rule) == pytest.approx(expected)
            assert measure(ious[order], confidences[order], positives[order], **rule) == pytest.approx(expected)


@calm
@given(SEEDS)
def test_fewer_detections_never_lower_the_textbooks_recall_floor(seed: int) -> None:
    """A lower threshold never lowers the textbook's recall; SLAVC's may fall."""
    ious, confidences, positives = sample(seed, 50, 20)
    levels = np.unique(confidences)[::-1]
    _, recall = extended.precision_recall(extended.counts(ious, confidences, positives, levels, misplaced_is_miss=True))
    assert (np.diff(recall) >= 0).all()


@calm
@given(SEEDS)
def test_confidence_is_the_mean_of_the_highest_quarter(seed: int) -> None:
    plane = binarise.resize(np.random.default_rng(seed).random((7, 7)), (224, 224))
    for one in (plane, np.round(plane * 4) / 4, np.full_like(plane, 0.3)):
        expected = np.sort(one, axis=None)[-(one.size // 4) :].mean(dtype=np.float64)
        assert extended.confidence(one) == pytest.approx(expected, abs=1e-6)


def test_the_interval_comes_from_whole_videos() -> None:
    """A mean as statistic gives the interval that `metrics.mean_estimate` gives, but for its shift of the draws."""
    generator = np.random.default_rng(0)
    values, groups = generator.random(300), [f"v{i // 10}" for i in range(300)]
    found = extended.bootstrap(lambda places: float(values[places].mean()), groups, seed=3, resamples=400)
    other = metrics.mean_estimate(values, groups, seed=3, resamples=400)
    assert other is not None and found.value == pytest.approx(other.value) and found.n == 300
    assert found.low == pytest.approx(other.low, abs=2e-3) and found.high == pytest.approx(other.high, abs=2e-3)
    same = np.repeat(generator.random(30), 10)  # all of a video alike: single items would give a narrower interval
    wide = extended.bootstrap(lambda places: float(same[places].mean()), groups, seed=3, resamples=400)
    narrow = extended.bootstrap(lambda places: float(same[places].mean()), range(300), seed=3, resamples=400)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    with pytest.raises(DataError, match="no sample to estimate from"):
        extended.bootstrap(lambda places: 0.0, [], seed=0)
