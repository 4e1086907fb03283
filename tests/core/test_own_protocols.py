from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsol_core.benchmarks import MODEL, Benchmark, Frame, Judge
from dsol_core.config import EvaluationConfig
from dsol_core.own_protocols import Rules, item_of, records
from dsol_core.protocols import MaskRule
from dsol_core.scoring import Answer, Classes
from dsol_core.types import Box

CONFIG = EvaluationConfig()
RECORDS = records("toy", "free", CONFIG)
CLASSES = Classes.of(("a", "b", "c"), ("cello", "flute", "cello"))


def frame(maps: np.ndarray, *boxes: Box) -> Frame:
    return Frame(Answer(maps, maps.max(0), np.full(len(maps), 0.5), np.full(len(maps), 0.5)), maps, boxes)


def quarters(*levels: tuple[float, float, float, float]) -> np.ndarray:
    """Maps of 224 x 224 pixels that are constant in the left top, right top, left low and right low quarter."""
    grids = np.array(levels, np.float32).reshape(-1, 2, 2)
    return grids.repeat(112, 1).repeat(112, 2)


CELLO, FLUTE = Box(0, 0, 0.5, 0.5, "cello"), Box(0.5, 0, 0.5, 0.5, "flute")


def test_records_hold_the_switches_of_dsols_evaluator_and_ours() -> None:
    levels = {name: (one.reference.mask.level, one.correct.mask.level) for name, one in RECORDS.items()}
    assert levels == {"solo": (0.1, 0.5), "grid": (0.5, 0.5), "free": (0.2, 0.5)}
    assert [one.name for one in RECORDS.values()] == ["toy-solo", "toy-grid", "toy-free"]
    assert [one.class_aware for one in RECORDS.values()] == [False, True, True]
    assert all(one.reference.empty == "fail" and one.correct.empty == "exclude" for one in RECORDS.values())
    assert set(RECORDS["grid"].differences()) == {"empty", "nsa_channels", "nsa_leaves_out"}
    own = records("toy", "free", replace(CONFIG, multi_threshold=0.3, solo_threshold=0.4, nsa_leaves_out="first"))
    assert own["free"].correct.mask == MaskRule("relative", 0.3, strict=True)
    assert (own["grid"].correct.mask.level, own["solo"].correct.mask.level) == (0.5, 0.4)
    assert own["free"].correct.nsa_leaves_out == "first"


def test_both_modes_by_hand() -> None:
    rules = Rules(RECORDS, CLASSES)
    # entries a + c are the cello's map: 1 in its quarter, 0.3 in the one below; b is right
    maps = quarters((0.6, 0, 0.1, 0), (0, 0.9, 0, 0), (0.4, 0, 0.2, 0))
    rules.add("free", "x", ["v"], frame(maps, CELLO, FLUTE))
    found = rules.scores("free", "reference").values
    assert found["source"].tolist() == [[0.5, 1.0]] and found["ciou"].tolist() == [0.75]  # 0.3 is above 0.2 of 1
    assert rules.scores("free", "correct").values["ciou"].tolist() == [1.0]  # ... and below 0.5 of it
    # Silent to DSOL's code is entry c, the second of the cello: a quarter of its pixels is above 0.2
    assert found["nsa"].tolist() == [0.75]
    values = {name: one.value for name, one in rules.estimates(10).items()}
    assert values == {
        "toy-free.reference/ciou@0.3": 1.0,
        "toy-free.reference/auc": pytest.approx(0.05 * (0.5 + 15)),  # successes at 0, 0.05 ... 0.75
        "toy-free.reference/nsa": 0.75,
        "toy-free.correct/ciou@0.3": 1.0,
        "toy-free.correct/auc": pytest.approx(1.0),
    }
    assert rules.left_out(values) == {"toy-free.correct/nsa": "no frame has a value"}  # both classes sound


def test_a_solo_is_asked_by_its_class_agnostic_map() -> None:
    rules = Rules(RECORDS, CLASSES)
    rules.add(
        "solo", "x", ["v"], frame(quarters((1, 0.3, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)), replace(CELLO, category=None))
    )
    values = {name: one.value for name, one in rules.estimates(10).items()}
    assert rules.scores("solo", "reference").values["iou"].tolist() == [0.5]
    assert values["toy-solo.reference/iou@0.5"] == values["toy-solo.correct/iou@0.5"] == 1.0
    assert rules.scores("solo", "correct").values["iou"].tolist() == [1.0]


def test_a_truth_without_pixels_fails_or_is_left_out() -> None:
    rules, maps = Rules(RECORDS, CLASSES), quarters((1, 0, 0, 0), (0, 0.9, 0, 0), (0, 0, 0, 0))
    rules.add("grid", "x", ["v"], frame(maps, CELLO, Box(0.5, 0.5, 0.001, 0.001, "flute")))
    found = rules.estimates(10)
    assert rules.scores("grid", "reference").values["ciou"].tolist() == [0.5]
    assert rules.scores("grid", "correct").values["ciou"].tolist() == [1.0]
    assert rules.left_out(found)["toy-grid.correct/ciou@0.3"] == "1 truth(s) that cover no pixel are left out"


def test_what_cannot_be_scored_is_told() -> None:
    rules, maps = Rules(RECORDS, CLASSES), quarters((1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    rules.add("solo", "x", ["v"], frame(maps))
    rules.add("grid", "y", ["v"], frame(maps, replace(CELLO, category=None)))
    rules.add("free", "z", ["v"], frame(maps, CELLO))
    rules.add("free", "silent", ["v"], frame(maps, replace(CELLO, sounding=False)))
    found = rules.estimates(10)
    assert {name.partition(".")[0] for name in found} == {"toy-free"}
    told = rules.left_out(found)
    assert told["toy-solo.reference/*"] == told["toy-solo.correct/*"] == "no boxes"
    assert told["toy-grid.correct/*"].startswith("no boxes with a category")
    assert told["toy-free.correct/ciou@0.3"] == "1 frame(s) without a box to compare with"
    unlabelled = Rules(RECORDS, CLASSES, labelled=False)
    unlabelled.add("free", "z", ["v"], frame(maps, CELLO))
    assert unlabelled.estimates(10) == {} and set(unlabelled.left_out({})) == {
        "toy-free.reference/*",
        "toy-free.correct/*",
    }


def some_frame(generator: np.random.Generator) -> Frame:
    maps = generator.random((3, 7, 7)).astype(np.float32) ** 3
    boxes = []
    for number in generator.permutation(2)[: generator.integers(1, 3)]:
        x, y = generator.uniform(0, 0.5, 2)
        boxes.append(Box(x, y, generator.uniform(0.1, 0.5), generator.uniform(0.1, 0.5), ("cello", "flute")[number]))
    return frame(maps, *boxes)


@pytest.mark.parametrize("subset", ["solo", "grid", "free"])
def test_the_correct_mode_agrees_with_the_own_metrics_and_blocks_change_nothing(subset: str) -> None:
    generator = np.random.default_rng(3)
    frames = [some_frame(generator) for _ in range(40)]
    config = replace(CONFIG, multi_threshold=0.35, solo_threshold=0.45)
    judge, own = Judge(CLASSES, True, config), Benchmark(subset)
    small, large = (Rules(records("toy", "free", config), CLASSES, block=size) for size in (3, 1000))
    for number, one in enumerate(frames):
        judge.score(own, str(number), [f"v{number // 3}"], one, baselines=False)
        for rules in (small, large):
            rules.add(subset, str(number), [f"v{number // 3}"], one)
    found = small.estimates(50)
    assert found == large.estimates(50)
    expected = own.estimates(MODEL, 50)
    for name in RECORDS[subset].metrics:
        got = found[f"toy-{subset}.correct/{name}"]
        assert got.value == pytest.approx(expected[name].value, abs=2e-3) and got.n == expected[name].n, name


def test_sources_are_the_sounding_boxes() -> None:
    maps = quarters((1, 0, 0, 0))
    asked = frame(maps, CELLO, replace(FLUTE, sounding=False), Box(0, 0.5, 0.25, 0.5))
    item = item_of("k", ["v", "w"], asked, RECORDS["solo"])
    assert item.videos == ("v", "w") and [one.category for one in item.sources] == ["cello", None]
    assert item.sources[1].boxes == ((0, 0.5, 0.25, 0.5),)
    assert [one.category for one in item_of("k", ["v"], asked, RECORDS["grid"]).sources] == ["cello"]
