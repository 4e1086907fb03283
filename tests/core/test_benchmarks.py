from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsol_core import agreement
from dsol_core.benchmarks import (
    CENTRE,
    MODEL,
    ORACLE,
    QUADRANT,
    UNIFORM,
    VISUAL,
    Benchmark,
    Frame,
    Judge,
    best_centre,
    dictionary_quality,
)
from dsol_core.config import EvaluationConfig
from dsol_core.scoring import Answer, Classes
from dsol_core.types import Box, DataError

NAMES = ("cello", "flute", "tuba")
JUDGE = Judge(Classes.of(["a", "b", "c"], NAMES), True, EvaluationConfig(side=32))


def frame(category: str, right: bool, size: float = 0.5) -> Frame:
    """A frame with one centred box whose class's map is right, or dark."""
    edge, place = (1 - size) / 2, NAMES.index(category)
    cells = slice(round(8 * edge), round(8 * (edge + size)))
    visual = np.zeros((3, 8, 8))
    visual[place, cells, cells] = 1
    sounding = np.full(3, 0.1)
    sounding[place] = 0.9 if right else 0.0
    maps = visual * sounding[:, None, None]
    box = Box(edge, edge, size, size, category)
    return Frame(Answer(maps, maps.max(0), sounding, sounding), visual, (box,), (category,))


def filled(subset: str, rights: list[bool], *, baselines: bool = True) -> Benchmark:
    made = Benchmark(subset)
    for i, right in enumerate(rights):
        JUDGE.score(made, f"item{i}", [f"video{i // 2}"], frame(NAMES[i % 3], right), baselines=baselines)
    return made


def test_estimates_are_the_means_of_the_items() -> None:
    found = filled("grid", [True, True, False, True]).estimates(MODEL, 50)
    assert found["ciou@0.3"].value == 0.75 and found["ciou@0.3"].n == 4
    assert found["audio_top2"].value == pytest.approx((3 + 0) / 4)  # the silent class comes last of three
    assert found["heard"].value == 0.75
    assert "silent_nsa" not in found  # no frame has a silent box
    solo = filled("solo", [True, False]).estimates(MODEL, 50)
    assert set(solo) == {"iou@0.5", "auc", "audio_top1", "agreement", "heard"}
    assert solo["iou@0.5"].value == 0.5


def test_a_column_that_starts_late_is_padded() -> None:
    made = Benchmark("grid")
    made.add("one", ["v"], {MODEL: {"ciou": 0.5}})
    made.add("two", ["v"], {MODEL: {"ciou": 0.7, "silent_nsa": 1.0}, VISUAL: {"ciou": 0.1}})
    made.add("three", ["w"], {MODEL: {}})
    assert made.values[MODEL]["ciou"][:2] == [0.5, 0.7] and np.isnan(made.values[MODEL]["ciou"][2])
    assert np.isnan(made.values[MODEL]["silent_nsa"]).tolist() == [True, False, True]
    assert np.isnan(made.values[VISUAL]["ciou"]).tolist() == [True, False, True]
    assert made.groups == [frozenset("v"), frozenset("v"), frozenset("w")]
    assert made.estimates(MODEL, 20)["silent_nsa"].n == 1


def test_baselines_stand_beside_the_model_on_test_frames_only() -> None:
    assert set(filled("grid", [True]).values) == {MODEL, UNIFORM, QUADRANT, VISUAL, ORACLE}
    assert set(filled("grid", [True], baselines=False).values) == {MODEL}
    solo = filled("solo", [True], baselines=False)
    assert set(solo.values) == {MODEL, "centre box 50%", "centre box 60%", "centre box 70%"}


@pytest.mark.parametrize("categories", [(*NAMES, "tuba"), (*NAMES, "tuba", "tuba", "cello")])
def test_what_looks_at_no_dictionary_does_not_depend_on_its_entries(categories: tuple[str, ...]) -> None:
    judge = Judge(Classes.of([f"cluster-{i}" for i in range(len(categories))], categories), True, JUDGE.config)
    extra = len(categories) - 3
    plain, more = Benchmark("grid"), Benchmark("grid")
    for i in range(4):
        one = frame(NAMES[i % 3], True)
        silent = Box(0, 0, 0.25, 0.25, NAMES[(i + 1) % 3], False)
        one = replace(one, boxes=(*one.boxes, silent))
        maps, sounding = np.pad(one.answer.maps, ((0, extra), (0, 0), (0, 0))), np.pad(one.answer.sounding, (0, extra))
        wide = replace(one, answer=Answer(maps, maps.max(0), sounding, sounding), visual=maps)
        JUDGE.score(plain, f"item{i}", ["v"], one, baselines=True)
        judge.score(more, f"item{i}", ["v"], wide, baselines=True)
    for name in (UNIFORM, QUADRANT, ORACLE):
        assert {**more.values[name], "agreement": 0} == {**plain.values[name], "agreement": 0}, name
    assert plain.values[ORACLE]["sciou"][0] > 0


def test_the_visual_baseline_sees_what_the_model_does_not_hear() -> None:
    made = filled("grid", [False, False])
    assert made.estimates(MODEL, 20)["ciou@0.3"].value == 0
    assert made.estimates(VISUAL, 20)["ciou@0.3"].value == 1


def test_the_centre_box_is_chosen_on_validation_and_is_the_only_one_left() -> None:
    validation = Benchmark("solo")
    for i in range(4):
        JUDGE.score(validation, str(i), [str(i)], frame("tuba", True, 0.75), baselines=False)
    assert best_centre(validation) == "centre box 70%"
    assert best_centre(filled("solo", [True], baselines=False)) == "centre box 50%"
    assert best_centre(None) is None
    kept = filled("solo", [True]).with_centre("centre box 50%")
    assert set(kept.values) == {MODEL, UNIFORM, VISUAL, CENTRE}
    assert kept.estimates(CENTRE, 20)["iou@0.5"].value == 1
    assert CENTRE not in filled("solo", [True]).with_centre(None).values


def test_ranking_is_strict_then_by_name_of_arrival() -> None:
    assert filled("grid", [False, True, False, True]).ranked() == ["item1", "item3", "item0", "item2"]


def test_what_is_left_out_has_a_reason() -> None:
    assert filled("grid", [True]).left_out() == {"silent_nsa": "no box of a visible but silent object"}
    bare = Benchmark("solo")
    unlabelled = Judge(Classes.of(["a", "b", "c"], None), False, EvaluationConfig(side=32))
    unlabelled.score(bare, "x", ["v"], frame("tuba", True), baselines=True)
    assert set(bare.left_out()) == {"audio_top1"}  # boxes need no labels
    scene = Benchmark("grid")
    unlabelled.score(scene, "x", ["v"], frame("tuba", True), baselines=True)
    assert set(scene.left_out()) == {
        "ciou@0.3", "auc", "nsa", "sciou@0.3", "sauc", "snsa", "silent_nsa", "audio_top2", "sounding_top2"
    }  # fmt: skip
    assert set(scene.estimates(MODEL, 20)) == {"agreement", "heard"}


def test_classes_hold_iou_and_recall_of_each_sounding_class() -> None:
    made = filled("grid", [True, True, False])
    assert list(made.classes) == ["cello", "flute", "tuba"]
    assert made.classes["cello"] == made.classes["flute"] == [(pytest.approx(1, abs=0.02), 1.0)]
    assert made.classes["tuba"] == [(0.0, 0.0)]  # its map is dark and the sound is not heard
    assert np.mean([made.classes[name][0][0] for name in NAMES]) == pytest.approx(np.mean(made.ious(MODEL)))
    assert made.evenness(3, 20).value < 1


def test_a_solo_whose_box_covers_no_pixel_is_counted_and_not_scored() -> None:
    made = filled("solo", [True])
    usual = frame("tuba", True)
    thin = (Box(0.5, 0.2, 0.001, 0.5, "tuba"),)
    JUDGE.score(made, "thin", ["w"], Frame(usual.answer, usual.visual, thin, ("tuba",)), baselines=True)
    assert made.too_thin == {"tuba": 1}
    assert list(made.classes) == ["cello"]
    assert made.estimates(MODEL, 20)["iou@0.5"].n == 1 and made.estimates(MODEL, 20)["audio_top1"].n == 2


def test_dictionary_quality_draws_videos_and_agrees_with_the_table() -> None:
    clusters = {f"k{i}": (i // 3) % 2 if i != 4 else 0 for i in range(24)}
    labels = {f"k{i}": (f"v{i // 3}", ["cello", "flute"][(i // 3) % 2]) for i in range(24)}
    found = dictionary_quality(clusters, labels, 100)
    table = np.zeros((2, 2))
    for key, cluster in clusters.items():
        table[cluster, ["cello", "flute"].index(labels[key][1])] += 1
    assert found["nmi"].value == pytest.approx(agreement.table_nmi(table))
    assert found["purity"].value == pytest.approx(23 / 24)
    assert found["nmi"].n == 24
    assert found["nmi"].low < found["nmi"].value <= found["nmi"].high <= 1
    some = {key: labels[key] for key in ("k0", "k3", "k4", "k6")}
    part = dictionary_quality(clusters, some, 10)
    assert part["purity"].value == 0.75 and part["purity"].n == 4  # k4 is the one in the wrong cluster
    with pytest.raises(DataError, match="none of 24"):
        dictionary_quality(clusters, {"other": ("v", "cello")}, 10)
