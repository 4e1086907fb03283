from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsol_core import extended, metrics, protocol_estimates
from dsol_core.protocol_scores import Scores
from dsol_core.types import UsageError
from tests.core.tiny_benchmarks import CUT, protocol

MULTI = protocol("multi", ("ciou@0.3", "auc", "ap"))


def scores(**columns: Any) -> Scores:
    count = len(next(iter(columns.values())))
    keys = tuple(f"k{i}" for i in range(count))
    arrays = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    return Scores(keys, tuple(frozenset({f"v{i // 2}"}) for i in range(count)), arrays, (), Counter())


def values(some: Scores, record: Any = MULTI, **switches: Any) -> dict[str, float]:
    found = protocol_estimates.estimates(some, record, replace(CUT, **switches), resamples=20)
    assert all(one.low <= one.value <= one.high for one in found.values())
    return {name: one.value for name, one in found.items()}


def test_success_and_auc_by_hand() -> None:
    """0.5 reaches 0.5; exactly 0.3 does not reach 0.05 * 6; AUC is the mean over items of the trapezoid's terms."""
    found = values(scores(iou=[0.5, 0.3, 1.0, np.nan]), protocol("single", ("iou@0.5", "iou@0.3", "auc")))
    assert found["iou@0.5"] == pytest.approx(2 / 3) and found["iou@0.3"] == pytest.approx(2 / 3)
    assert found["auc"] == pytest.approx((0.525 + 0.275 + 1.0) / 3)


def test_the_aggregate_chooses_the_main_column_and_the_others_stand_beside() -> None:
    some = scores(ciou=[0.5, 0.1], source=[[0.9, 0.1], [0.1, 0.1]], union=[[0.4], [0.4]], oracle=[[1, 1], [0, 1]])
    frame = values(some)
    assert frame["ciou@0.3"] == 0.5 and frame["ciou@0.3 (per source)"] == 0.25 and frame["ciou@0.3 (union)"] == 1
    assert frame["ciou@0.3 (oracle)"] == 0.75 and "ciou@0.3 (per frame)" not in frame and "ap" not in frame
    source = values(some, aggregate="source")
    assert source["ciou@0.3"] == 0.25 and source["ciou@0.3 (per frame)"] == 0.5
    assert values(some, aggregate="union")["ciou@0.3"] == 1
    assert source["auc"] == pytest.approx(metrics.auc_terms(some.values["source"].ravel()).mean())


def test_per_source_rates_average_the_two_rates_of_avgn() -> None:
    columns = np.random.default_rng(0).random((40, 2))
    expected = np.mean([(columns[:, place] >= 0.05 * 6).mean() for place in (0, 1)])
    assert values(scores(source=columns, ciou=columns.mean(1)), aggregate="source")["ciou@0.3"] == pytest.approx(
        expected
    )


def test_the_mean_in_place_of_a_rate() -> None:
    some = scores(source=[[0.2, 0.4], [0.0, np.nan]], ciou=[0.3, 0.0])
    assert values(some, aggregate="source", value="mean")["ciou@0.3"] == pytest.approx(0.2)


def test_nsa_and_ap_are_plain_means() -> None:
    record = protocol("multi", ("ciou@0.3", "nsa", "ap"))
    found = values(scores(ciou=[1, 0], nsa=[0.5, np.nan], ap=[[0.2, 0.4], [0.6, np.nan]]), record)
    assert found["nsa"] == 0.5 and found["ap"] == pytest.approx(0.4)


def test_padding_is_no_sample() -> None:
    some = scores(source=[[1, np.nan, np.nan], [0, 0, 0]], ciou=[1, 0])
    found = protocol_estimates.estimates(some, MULTI, replace(CUT, aggregate="source"), resamples=20)
    assert found["ciou@0.3"].n == 4 and found["ciou@0.3"].value == 0.25


def test_groups_follow_the_sources() -> None:
    some = scores(source=[[1, 0], [0, 0], [1, 1]], ciou=[1, 0, 1])
    flat, groups = protocol_estimates.parts(some, "ciou@0.3", MULTI, replace(CUT, aggregate="source"))
    assert flat.tolist() == [1, 0, 0, 0, 1, 1]
    assert groups == [frozenset({"v0"})] * 4 + [frozenset({"v1"})] * 2


def test_extended_metrics_equal_the_module_and_leave_out_what_was_left_out() -> None:
    generator = np.random.default_rng(1)
    positive = np.arange(60) % 3 > 0
    ious = np.where(positive, generator.random(60), np.nan)
    ious[1] = np.nan  # a positive whose truth is empty
    confidence = generator.random(60)
    some = scores(iou=ious, positive=positive, confidence=confidence)
    record = protocol("extended", ("loc_acc", "ap", "max_f1"))
    kept = ~positive | ~np.isnan(ious)
    for rule in ({"misplaced_is_miss": False, "all_thresholds": False}, {}):
        found = values(some, record, **rule)
        data = ious[kept], confidence[kept], positive[kept]
        assert found["ap"] == pytest.approx(extended.average_precision(*data, **rule))
        assert found["max_f1"] == pytest.approx(extended.max_f1(*data, **rule))
        assert found["loc_acc"] == pytest.approx(np.nanmean(ious >= 0.5) * 60 / (kept & positive).sum())
    negatives = scores(positive=[0, 0], confidence=[0.1, 0.2])
    assert values(negatives, record).keys() == {"ap", "max_f1"}


def test_all_predictors_are_compared_on_the_same_draws_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    usual = extended.bootstrap

    def bootstrap(statistic: Any, groups: Any, **settings: Any) -> Any:
        drawn.append(list(groups))
        return usual(statistic, groups, **settings)

    monkeypatch.setattr(extended, "bootstrap", bootstrap)
    for confidence in ([0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.3, 0.2]):
        values(scores(positive=[1, 0, 1, 0], iou=[0.9, np.nan, 0.8, np.nan], confidence=confidence),
               protocol("extended", ("ap",)))  # fmt: skip
    assert drawn[0] == drawn[1] == [frozenset({f"v{i // 2}"}) for i in range(4)]


def test_nothing_to_estimate_gives_nothing() -> None:
    assert values(scores(ciou=[np.nan], source=[[np.nan]])) == {}
    assert values(Scores((), (), {}, ("a",), Counter())) == {}
    assert values(Scores((), (), {}, ("a",), Counter()), protocol("extended", ("ap", "loc_acc"))) == {}


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="metric 'cap' is unknown; expected iou@t"):
        values(scores(ciou=[1.0], source=[[1.0]]), protocol("multi", ("cap",)))
