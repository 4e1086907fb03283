from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from dsol_core import binarise, extended
from dsol_core.protocol_scores import EMPTY, SILENT, UNMAPPED, UNSOURCED, Scores, merge, score_items
from dsol_core.protocols import Item, Maps, MaskRule, Protocol, Switches
from dsol_core.types import DataError
from tests.core.tiny_benchmarks import (
    CUT,
    LEFT,
    QUARTER,
    RIGHT,
    TOP,
    box_map,
    calm,
    item,
    protocol,
    said,
    slow_iou,
    source,
)

DSOL = ("ciou@0.3", "auc", "nsa")
AVGN = ("ciou@0.3", "auc")
BOTTOM = (0.0, 0.5, 1.0, 0.5)


def one(asked: Item, answer: Maps, record: Protocol, switches: Switches = CUT) -> Scores:
    return score_items([asked], {asked.key: answer}, record, switches)


def values(asked: Item, answer: Maps, record: Protocol, switches: Switches = CUT) -> dict[str, Any]:
    return {name: column[0].tolist() for name, column in one(asked, answer, record, switches).values.items()}


def maps(*boxes: Any) -> Any:
    return np.stack([box_map(box) for box in boxes])


def wide(*pairs: tuple[Any, Any]) -> Any:
    """Maps of pairs of pictures, side by side."""
    return np.stack([np.concatenate([box_map(left), box_map(right)], axis=1) for left, right in pairs])


NOWHERE = (0.0, 0.0, 0.0, 0.0)


def test_single_source_by_hand() -> None:
    """A quarter against the left half: 1/2; against two boxes that make the whole frame: 1/4."""
    assert values(item(source(LEFT)), said(maps(QUARTER)), protocol()) == {"iou": 0.5}
    assert values(item(source(LEFT, RIGHT)), said(maps(QUARTER)), protocol()) == {"iou": 0.25}
    assert values(item(source(LEFT), source(RIGHT)), said(maps(QUARTER)), protocol()) == {"iou": 0.25}


def test_single_source_takes_the_agnostic_or_the_oracles_map() -> None:
    asked = item(source(LEFT, category="x"))
    answer = said(maps(LEFT, QUARTER, RIGHT), ["x", None, "y"], [0.1, 0.1, 0.9])
    assert values(asked, answer, protocol()) == {"iou": 0.5}
    assert values(asked, answer, protocol(), replace(CUT, oracle=True)) == {"iou": 1}
    named = said(maps(LEFT, RIGHT), ["x", "y"], [0.1, 0.9])
    assert values(asked, named, protocol()) == {"iou": 0}  # the most confident, not the best
    other = one(asked, said(maps(LEFT), ["y"]), protocol(), replace(CUT, oracle=True))
    assert other.values["iou"].tolist() == [0] and other.counts[UNMAPPED] == 1


def test_ap_is_computed_where_it_is_asked_for() -> None:
    raw = np.random.default_rng(0).random((1, 7, 7)).astype(np.float32)
    found = values(item(source(LEFT)), said(raw), protocol(metrics=("iou@0.5", "ap")))
    plane = binarise.resize(raw[0], (224, 224))
    assert found["ap"] == pytest.approx(average_precision_score(box_map(LEFT).ravel() > 0, plane.ravel()))
    assert "ap" not in values(item(source(LEFT)), said(raw), protocol())


def test_class_aware_ciou_is_the_mean_over_annotated_classes() -> None:
    """Two clusters make the cello: their sum covers the left half (1), the flute's map half of its truth (1/2)."""
    asked = item(source(LEFT, category="cello"), source(TOP, category="flute"))
    answer = said(maps(QUARTER, (0.0, 0.5, 0.5, 0.5), QUARTER, RIGHT), ["cello", "cello", "flute", "tuba"])
    found = values(asked, answer, protocol("multi", DSOL))
    assert found["source"] == [1, 0.5] and found["ciou"] == 0.75
    assert found["nsa"] == 0.5  # the tuba's map leaves half of the frame dark
    assert found["union"] == [pytest.approx(0.75)]  # the maximum of all maps is everywhere, the boxes cover 3/4


def test_a_class_without_a_map_scores_nothing_and_is_counted() -> None:
    asked = item(source(LEFT, category="cello"), source(TOP, category="flute"))
    scores = one(asked, said(maps(LEFT), ["cello"]), protocol("multi", DSOL))
    assert scores.values["source"].tolist() == [[1, 0]] and scores.counts[UNMAPPED] == 1
    agnostic = one(asked, said(maps(LEFT)), protocol("multi", DSOL))
    assert agnostic.values["source"][0].tolist() == [1, pytest.approx(1 / 3)]  # stands for every class
    assert np.isnan(agnostic.values["nsa"]).all() and not agnostic.counts[UNMAPPED]


@calm
@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_the_order_of_classes_does_not_matter(order: Sequence[int], seed: int) -> None:
    raw = np.random.default_rng(seed).random((4, 7, 7)).astype(np.float32)
    names, confidence = ["a", "b", "c", "d"], [0.4, 0.3, 0.2, 0.1]
    asked = item(source(LEFT, category="a"), source(TOP, category="b"))
    shuffled = said(raw[list(order)], [names[i] for i in order], [confidence[i] for i in order])
    for record in (protocol("multi", DSOL), protocol("multi", AVGN)):
        first, second = (values(asked, answer, record) for answer in (said(raw, names, confidence), shuffled))
        assert first.keys() == second.keys()
        assert all(np.allclose(first[name], second[name], equal_nan=True) for name in first)


@calm
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 50))
def test_scale_does_not_matter_where_the_rule_is_relative(seed: int, scale: float) -> None:
    raw = np.random.default_rng(seed).random((1, 7, 7)).astype(np.float32)
    for rule in (MaskRule("relative", 0.3), MaskRule("top_half")):
        found = [
            values(item(source(LEFT)), said(raw * np.float32(factor)), protocol(), replace(CUT, mask=rule))["iou"]
            for factor in (1, scale)
        ]
        assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_nsa_looks_at_channels_as_the_switches_say() -> None:
    """Two clusters of the sounding class, two silent ones, the last channel bright everywhere."""
    asked = item(source(LEFT, category="x"))
    whole = (0.0, 0.0, 1.0, 1.0)
    answer = said(maps(LEFT, whole, NOWHERE, QUARTER, whole), ["x", "x", "y", "y", "z"])
    record = protocol("multi", DSOL)
    assert values(asked, answer, record)["nsa"] == pytest.approx((1 + 0.75 + 0) / 3)
    first = replace(CUT, nsa_leaves_out="first")
    assert values(asked, answer, record, first)["nsa"] == pytest.approx((0 + 1 + 0.75 + 0) / 4)
    assert values(asked, answer, record, replace(CUT, nsa_channels=4))["nsa"] == pytest.approx((1 + 0.75) / 2)
    unsure = replace(asked, unboxed=frozenset({"x", "z"}))  # z may sound: its bright map is neither right nor wrong
    assert values(unsure, answer, record)["nsa"] == pytest.approx((1 + 0.75) / 2)
    silent = replace(CUT, nsa_unboxed="silent")
    assert values(unsure, answer, record, silent)["nsa"] == pytest.approx((1 + 0.75 + 0) / 3)


def test_matching_is_blind_to_classes_and_the_oracle_stands_beside() -> None:
    """Right places under wrong names: matched 1 and 1, by name 0 and 0."""
    asked = item(source(LEFT, category="x"), source(RIGHT, category="y"))
    found = values(asked, said(maps(RIGHT, LEFT), ["x", "y"]), protocol("multi", AVGN))
    assert found["source"] == [1, 1] and found["ciou"] == 1 and found["oracle"] == [0, 0]
    switched = values(asked, said(maps(RIGHT, LEFT), ["x", "y"]), protocol("multi", AVGN), replace(CUT, oracle=True))
    assert switched["source"] == [0, 0] and "oracle" not in switched
    assert "oracle" not in values(asked, said(maps(RIGHT, LEFT)), protocol("multi", AVGN))


def test_fewer_maps_than_sources_leave_a_source_without() -> None:
    asked = item(source(LEFT), source(RIGHT))
    scores = one(asked, said(maps(RIGHT)), protocol("multi", AVGN))
    assert scores.values["source"].tolist() == [[0, 1]] and scores.counts == {UNMAPPED: 1}
    nothing = one(asked, said(np.zeros((0, 7, 7))), protocol("multi", AVGN))
    assert nothing.values["source"].tolist() == [[0, 0]] and nothing.values["union"].tolist() == [[0]]
    assert nothing.counts == {UNMAPPED: 2, SILENT: 1}


def test_a_pair_frame_wise_and_source_wise() -> None:
    """Each map covers its source and as much of the other picture: frame-wise 1/2, alone 1."""
    asked = item(source(LEFT, category="x"), source(TOP, category="y", picture=1), pictures=2)
    answer = said(wide((LEFT, RIGHT), (QUARTER, TOP)), ["x", "y"])
    joint = replace(CUT, canvas="horizontal")
    found = values(asked, answer, protocol("multi", AVGN), joint)
    assert found["source"] == [0.5, pytest.approx(1 / 1.5)] and found["source_wise"] == [1, 1]
    assert found["oracle"] == found["source"] and len(found["union"]) == 1
    apart = values(asked, answer, protocol("multi", AVGN))
    assert apart["source"] == [1, 1] and "source_wise" not in apart and len(apart["union"]) == 2
    oracle = values(asked, answer, protocol("multi", AVGN), replace(CUT, oracle=True))
    assert oracle["source"] == [1, 1]


@calm
@given(st.integers(0, 2**32 - 1))
def test_with_a_fixed_threshold_source_wise_is_never_lower(seed: int) -> None:
    generator = np.random.default_rng(seed)
    cells = generator.random((2, 7, 14)).astype(np.float32)
    raw = np.repeat(np.repeat(cells, 32, axis=1), 32, axis=2)  # on the grid, so that no neighbour bleeds over
    asked = item(source((0.1, 0.2, 0.5, 0.4), category="x"), source(TOP, category="y", picture=1), pictures=2)
    switches = replace(CUT, canvas="horizontal", oracle=True)
    found = values(asked, said(raw, ["x", "y"]), protocol("multi", AVGN), switches)
    assert all(alone >= joint for alone, joint in zip(found["source_wise"], found["source"], strict=True))


@calm
@given(st.integers(0, 2**32 - 1))
def test_a_pair_as_the_slow_loop(seed: int) -> None:
    raw = np.random.default_rng(seed).random((2, 7, 14)).astype(np.float32)
    boxes = ((0.1, 0.2, 0.5, 0.4), (0.4, 0.1, 0.5, 0.5))
    asked = item(source(boxes[0], category="x"), source(boxes[1], category="y", picture=1), pictures=2)
    switches = Switches(canvas="horizontal")
    found = values(asked, said(raw, ["x", "y"]), protocol("multi", AVGN), switches)
    planes = binarise.resize(raw, (224, 448))
    masks = [plane >= np.sort(plane, axis=None)[224 * 224] for plane in planes]
    truths = [np.concatenate(parts, axis=1) for parts in _halves(boxes)]
    table = [[slow_iou(mask, truth) for truth in truths] for mask in masks]
    straight, crossed = table[0][0] + table[1][1], table[0][1] + table[1][0]
    assert found["oracle"] == pytest.approx([table[0][0], table[1][1]])
    assert found["ciou"] == pytest.approx(max(straight, crossed) / 2)
    assert found["union"] == [pytest.approx(_union(binarise.resize(raw.max(0), (224, 448)), truths))]


def _halves(boxes: Sequence[Any]) -> list[tuple[Any, Any]]:
    nothing, drawn = np.zeros((224, 224)), []
    for x, y, w, h in boxes:
        drawn.append(np.zeros((224, 224)))
        drawn[-1][int(224 * y) : int(224 * y + 224 * h), int(224 * x) : int(224 * x + 224 * w)] = 1
    return [(drawn[0], nothing), (nothing, drawn[1])]


def _union(plane: Any, truths: Sequence[Any]) -> float:
    return slow_iou(plane >= np.sort(plane, axis=None)[224 * 224], np.maximum(*truths))


def test_no_priors_list_scores_every_further_map_nothing() -> None:
    asked = item(source(LEFT), source(RIGHT))
    switches = replace(CUT, aggregate="union")
    found = values(asked, said(maps(LEFT, RIGHT, TOP), confidence=[3, 2, 1]), protocol("multi", AVGN), switches)
    assert found["per_map"] == [0.5, 0, 0] and found["union"] == [1]
    assert values(asked, said(np.zeros((0, 7, 7))), protocol("multi", AVGN), switches)["per_map"] == []


def test_empty_truths_fail_or_are_left_out_and_counted() -> None:
    void = source((0.5, 0.5, 0.0, 0.1), category="x")
    excluded = one(item(void), said(maps(LEFT)), protocol(metrics=("iou@0.5", "ap")))
    assert np.isnan(excluded.values["iou"]).all() and np.isnan(excluded.values["ap"]).all()
    assert excluded.counts == {EMPTY: 1}
    fail = replace(CUT, empty="fail")
    failed = one(item(void), said(maps(LEFT)), protocol(metrics=("iou@0.5", "ap")), fail)
    assert failed.values["iou"].tolist() == failed.values["ap"].tolist() == [0] and failed.counts == {EMPTY: 1}
    swapped = one(item(void), said(maps(LEFT)), protocol(metrics=("iou@0.5", "ap")), replace(fail, swapped_ap=True))
    assert swapped.values["ap"].tolist() == [0.5]  # the library's answer to a truth of one level: the mask's share
    pair = item(void, source(LEFT, category="y"))
    left_out, kept = (values(pair, said(maps(LEFT)), protocol("multi", AVGN), s) for s in (CUT, fail))
    assert left_out["ciou"] == 1 and np.isnan(left_out["source"][0]) and left_out["source"][1] == 1
    assert kept["ciou"] == 0.5 and kept["source"] == [0, 1]


def test_a_source_that_is_left_out_lets_no_further_map_take_part() -> None:
    pair = item(source((0.5, 0.5, 0.0, 0.1), category="x"), source(LEFT, category="y"))
    answer = said(maps(RIGHT, LEFT), confidence=[0.9, 0.1])
    assert values(pair, answer, protocol("multi", AVGN))["ciou"] == 0
    assert values(pair, answer, protocol("multi", AVGN), replace(CUT, empty="fail"))["ciou"] == 0.5


def test_extended_sets_have_confidences_and_negatives() -> None:
    record = protocol("extended", ("loc_acc", "ap", "max_f1"))
    raw = np.random.default_rng(0).random((1, 7, 7)).astype(np.float32)
    positive, negative = item(source(LEFT), key="p"), item(key="n")
    answers = {"p": said(maps(LEFT), confidence=[0.7], key="p"), "n": said(raw, key="n")}
    scores = score_items([positive, negative], answers, record, CUT)
    assert scores.values["positive"].tolist() == [1, 0]
    expected = extended.confidence(binarise.resize(raw[0], (224, 224)))
    assert scores.values["confidence"].tolist() == [0.7, expected]
    assert scores.values["iou"][0] == 1 and np.isnan(scores.values["iou"][1])
    silent = one(positive, said(np.zeros((0, 7, 7)), key="p"), record)
    assert silent.values["confidence"].tolist() == [0] and silent.values["iou"].tolist() == [0]


def test_missing_predictions_are_named_and_not_scored() -> None:
    items = [item(source(LEFT), key=key) for key in "abc"]
    scores = score_items(items, {"b": said(maps(LEFT), key="b")}, protocol(), CUT)
    assert scores.keys == ("b",) and scores.missing == ("a", "c") and scores.values["iou"].tolist() == [1]
    unsourced = one(item(), said(maps(LEFT)), protocol())
    assert unsourced.counts == {UNSOURCED: 1} and unsourced.values == {}


def test_blocks_merge_to_the_whole() -> None:
    items = [
        item(*[source(LEFT), source(TOP), source(RIGHT)][: 1 + n], key=f"{n}", videos=(f"v{n}",)) for n in (0, 2, 1)
    ]
    answers = {one.key: said(maps(LEFT, TOP, RIGHT), confidence=[3, 2, 1], key=one.key) for one in items}
    record = protocol("multi", AVGN)
    whole = score_items(items, answers, record, CUT)
    parts = merge(score_items([one], answers, record, CUT) for one in items)
    assert parts.keys == whole.keys == ("0", "2", "1") and parts.groups == whole.groups
    assert parts.groups[1] == frozenset({"v2"}) and parts.counts == whole.counts
    assert whole.values["source"].shape == (3, 3) and whole.values.keys() == parts.values.keys()
    for name, column in whole.values.items():
        np.testing.assert_array_equal(column, parts.values[name])
    assert np.isnan(whole.values["source"][0, 1:]).all() and merge([]).keys == ()


def test_a_pair_is_no_single() -> None:
    pair = item(source(LEFT), source(TOP, picture=1), pictures=2)
    with pytest.raises(DataError, match=r"item a has 2 pictures; expected one in tiny.*make it one of kind \"multi\""):
        one(pair, said(wide((LEFT, TOP))), protocol())


def test_bad_predictions_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="prediction of item a has NaN"):
        one(item(source(LEFT)), said(np.full((1, 7, 7), np.nan)), protocol())
