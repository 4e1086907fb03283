from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsol_core.config import EvaluationConfig
from dsol_core.scoring import (
    Answer,
    Classes,
    Truth,
    all_boxes,
    centre_box,
    class_ious,
    random_quadrant,
    score_scene,
    score_solo,
    score_unlabelled,
    uniform,
)
from dsol_core.types import Box, CheckpointError, ShapeError

CONFIG = EvaluationConfig(side=64)
NAMES = ("cello", "flute", "tuba", "violin")
CLASSES = Classes.of([f"cluster-{i:02d}" for i in range(4)], NAMES)
BOXES = [
    Box(0, 0, 0.5, 0.5, "cello"),
    Box(0.5, 0, 0.5, 0.5, "flute"),
    Box(0, 0.5, 0.5, 0.5, "tuba", False),
    Box(0.5, 0.5, 0.5, 0.5, "violin", False),
]
TRUTH = Truth.of(BOXES, ["cello", "flute"], 64)


def quadrants(*levels: float) -> np.ndarray:
    """One map a class, each lit in its own quadrant."""
    maps = np.zeros((4, 64, 64), np.float32)
    for i, level in enumerate(levels):
        row, column = divmod(i, 2)
        maps[i, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = level
    return maps


def answer(maps: np.ndarray, sounding: list[float] | None = None, heard: list[float] | None = None) -> Answer:
    sounding = sounding or [0.9, 0.8, 0.1, 0.2]
    return Answer(maps, maps.max(0), np.array(sounding), np.array(heard or sounding))


def test_a_perfect_answer_scores_one_everywhere() -> None:
    found = score_scene(answer(quadrants(1, 1, 0.01, 0.01)), TRUTH, CLASSES, CONFIG)
    assert found == {
        name: 1.0 for name in ("audio_top2", "sounding_top2", "ciou", "sciou", "nsa", "snsa", "silent_nsa")
    }


def test_ciou_is_blind_to_the_audio_and_the_strict_protocol_is_not() -> None:
    seen = score_scene(answer(quadrants(1, 1, 1, 1)), TRUTH, CLASSES, CONFIG)
    assert (seen["ciou"], seen["sciou"], seen["silent_nsa"]) == (1, 1, 0)
    assert seen["nsa"] == seen["snsa"] == 0.75  # three quarters of each silent map are dark
    dimmed = score_scene(answer(quadrants(1, 0.4, 0, 0)), TRUTH, CLASSES, CONFIG)
    assert (dimmed["ciou"], dimmed["sciou"], dimmed["silent_nsa"]) == (1, 0.5, 1)


def test_nsa_can_be_had_for_nothing_and_the_strict_one_cannot() -> None:
    loud = score_scene(answer(quadrants(1, 1, 0.6, 0.6)), TRUTH, CLASSES, CONFIG)
    faint = score_scene(answer(quadrants(1, 1, 0.6, 0.6) / 10), TRUTH, CLASSES, CONFIG)
    assert (loud["nsa"], faint["nsa"]) == (0.75, 1)
    assert {**faint, "nsa": 0.75} == loud


def slow_scene(maps: np.ndarray, boxes: list[Box], of_entry: list[int], names: tuple[str, ...]) -> dict[str, float]:
    side = maps.shape[1]
    total = [sum(m for m, place in zip(maps, of_entry, strict=True) if place == i) for i in range(len(names))]
    peak = max(m.max() for m in total)

    def inside(box: Box, y: int, x: int) -> bool:
        right, bottom = int(side * box.x + side * box.width), int(side * box.y + side * box.height)
        return int(side * box.y) <= y < bottom and int(side * box.x) <= x < right

    sums: dict[str, list[float]] = {name: [] for name in ("ciou", "sciou", "nsa", "snsa", "silent_nsa")}
    pixels = [(y, x) for y in range(side) for x in range(side)]
    sounding = {box.category for box in boxes if box.sounding}
    for i, name in enumerate(names):
        own = [box for box in boxes if box.category == name and box.sounding]
        for key, level in (("ciou", total[i].max() / 2), ("sciou", peak / 2)):
            if name in sounding:
                both = sum(total[i][p] > level and any(inside(b, *p) for b in own) for p in pixels)
                some = sum(total[i][p] > level or any(inside(b, *p) for b in own) for p in pixels)
                sums[key].append(both / some)
        if name not in sounding:
            sums["snsa"].append(np.mean([total[i][p] <= peak / 2 for p in pixels]))
            sums["nsa"] += [
                np.mean([m[p] <= 0.2 for p in pixels]) for m, place in zip(maps, of_entry, strict=True) if place == i
            ]
        for box in boxes:
            if box.category == name and not box.sounding:
                sums["silent_nsa"].append(np.mean([total[i][p] <= peak / 2 for p in pixels if inside(box, *p)]))
    return {key: float(np.mean(values)) for key, values in sums.items()}


@given(st.integers(0, 2**32 - 1))
def test_scores_equal_the_slow_definitions_with_several_entries_a_class(seed: int) -> None:
    generator = np.random.default_rng(seed)
    maps = generator.random((6, 8, 8), dtype=np.float32) ** 3
    classes = Classes.of([f"cluster-{i:02d}" for i in range(6)], ["flute", "cello", "tuba", "violin", "cello", "tuba"])
    boxes = [Box(0.1, 0.2, 0.5, 0.4, "cello"), Box(0.4, 0.4, 0.5, 0.6, "cello"), Box(0, 0, 0.4, 0.3, "violin")]
    boxes += [Box(0.5, 0.1, 0.4, 0.4, "tuba", False), Box(0.2, 0.6, 0.4, 0.4, "flute", False)]
    found = score_scene(
        Answer(maps, maps[0], np.zeros(6), np.zeros(6)), Truth.of(boxes, [], 8), classes, EvaluationConfig(side=8)
    )
    expected = slow_scene(maps, boxes, [1, 0, 2, 3, 0, 2], ("cello", "flute", "tuba", "violin"))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    parts = class_ious(
        Answer(maps, maps[0], np.zeros(6), np.zeros(6)), Truth.of(boxes, [], 8), classes, EvaluationConfig(side=8)
    )
    assert np.mean(list(parts.values())) == pytest.approx(found["ciou"])


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1))
def test_scores_ignore_the_order_of_entries_and_all_but_nsa_the_scale(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    maps, sounding = generator.random((4, 8, 8)), generator.random(4)
    whole = score_scene(Answer(maps, maps[0], sounding, sounding), TRUTH, CLASSES, CONFIG)
    order = generator.permutation(4)
    shuffled = Classes.of([f"cluster-{i:02d}" for i in range(4)], [NAMES[i] for i in order])
    moved = Answer(maps[order], maps[0], sounding[order], sounding[order])
    assert score_scene(moved, TRUTH, shuffled, CONFIG) == pytest.approx(whole)
    scaled = score_scene(Answer(maps * scale, maps[0], sounding, sounding), TRUTH, CLASSES, CONFIG)
    # float32 rounding may move a pixel that lies on a threshold
    assert {**scaled, "nsa": 0} == pytest.approx({**whole, "nsa": 0}, abs=2e-3)
    assert scaled["nsa"] >= whole["nsa"] - 2e-3


def test_the_reference_leaves_only_the_first_entry_of_a_class_out_of_the_silent_ones() -> None:
    classes = Classes.of(["a", "b", "c"], ["cello", "flute", "cello"])
    assert classes.silent_entries(["cello"], "all").tolist() == [False, True, False]
    assert classes.silent_entries(["cello"], "first").tolist() == [False, True, True]
    assert classes.silent_entries(["harp"], "all").tolist() == [True, True, True]


def test_entries_without_category_are_classes_of_their_own() -> None:
    classes = Classes.of(["cluster-00", "cluster-01"], None)
    assert classes.names == ("cluster-00", "cluster-01")
    summed = Classes.of(["x", "y", "z"], ["b", "a", "b"])
    assert summed.summed(np.ones((3, 1, 1), np.float16)).ravel().tolist() == [1, 2]
    assert summed.loudest(np.array([0.1, 0.5, 0.3])).tolist() == [0.5, 0.3]


def test_a_class_without_an_entry_scores_zero_instead_of_vanishing() -> None:
    truth = Truth.of([Box(0, 0, 0.5, 0.5, "cello"), Box(0.5, 0, 0.5, 0.5, "harp")], [], 64)
    found = score_scene(answer(quadrants(1, 0, 0, 0)), truth, CLASSES, CONFIG)
    assert (found["ciou"], found["sciou"], found["audio_top2"]) == (0.5, 0.5, 0.5)
    assert "silent_nsa" not in found
    assert class_ious(answer(quadrants(1, 0, 0, 0)), truth, CLASSES, CONFIG) == {"cello": 1.0, "harp": 0.0}


def test_a_sound_without_a_box_is_silent_to_the_reference_only() -> None:
    truth = Truth.of([Box(0, 0, 0.5, 0.5, "cello")], ["cello", "flute"], 64)
    found = score_scene(answer(quadrants(1, 1, 0, 0)), truth, CLASSES, CONFIG)
    assert found["snsa"] == 1  # the flute is heard, so its bright quadrant is no mistake
    assert found["nsa"] == pytest.approx((0.75 + 1 + 1) / 3)


def test_boxes_that_cover_no_pixel_are_left_out_and_told() -> None:
    thin, silent = Box(0.5, 0, 0.001, 0.5, "flute"), Box(0, 0.5, 0.5, 0.001, "tuba", False)
    truth = Truth.of([BOXES[0], BOXES[3], thin, silent], [], 64)
    assert truth.too_thin == (thin, silent)
    assert set(truth.sounding) == {"cello"} and truth.labels == ("cello", "flute")
    found = score_scene(answer(quadrants(1, 0, 0, 0)), truth, CLASSES, CONFIG)
    assert (found["ciou"], found["sciou"], found["silent_nsa"]) == (1, 1, 1)
    loud = score_scene(answer(quadrants(1, 1, 0, 0)), truth, CLASSES, CONFIG)
    assert loud["nsa"] == 1  # a thin box still tells that the flute sounds


def test_a_frame_whose_only_box_is_too_thin_still_tells_what_is_silent() -> None:
    truth = Truth.of([Box(0.5, 0, 0.001, 0.5, "flute")], [], 64)
    found = score_scene(answer(quadrants(1, 1, 0, 0)), truth, CLASSES, CONFIG)
    assert found["nsa"] == pytest.approx((0.75 + 1 + 1) / 3) and {"ciou", "sciou"}.isdisjoint(found)


def test_what_cannot_be_measured_is_left_out() -> None:
    nothing = Truth.of([], [], 64)
    assert score_scene(answer(quadrants(1, 1, 1, 1)), nothing, CLASSES, CONFIG) == {}
    assert score_solo(answer(quadrants(1, 1, 1, 1)), nothing, CLASSES, CONFIG) == {}
    labelled = Truth.of([], ["cello"], 64)
    assert set(score_scene(answer(quadrants(1, 1, 1, 1)), labelled, CLASSES, CONFIG)) == {"audio_top2", "sounding_top2"}


def test_solo_takes_the_agnostic_map_against_all_sounding_boxes() -> None:
    truth = Truth.of([Box(0, 0, 0.5, 0.5), Box(0.5, 0, 0.5, 0.5), Box(0, 0.5, 0.5, 0.5, "tuba", False)], [], 64)
    assert score_solo(answer(quadrants(1, 0.9, 0, 0)), truth, CLASSES, CONFIG) == {"iou": 1.0}
    assert score_solo(answer(quadrants(1, 0.4, 0, 0)), truth, CLASSES, CONFIG) == {"iou": 0.5}


def test_a_solo_sound_counts_when_its_class_comes_first() -> None:
    truth = Truth.of([], ["cello"], 64)
    assert score_solo(answer(quadrants(1, 1, 1, 1)), truth, CLASSES, CONFIG) == {"audio_top1": 1}
    second = answer(quadrants(1, 1, 1, 1), [0.8, 0.9, 0, 0])
    assert score_solo(second, truth, CLASSES, CONFIG) == {"audio_top1": 0}


def test_the_audios_recall_is_of_the_sound_alone_and_the_other_of_what_is_taken_to_sound() -> None:
    both, one = [0.9, 0.8, 0.1, 0.2], [0.9, 0.1, 0.8, 0.2]
    deaf = score_scene(answer(quadrants(1, 1, 0, 0), both, one), TRUTH, CLASSES, CONFIG)
    assert (deaf["audio_top2"], deaf["sounding_top2"]) == (0.5, 1)
    blind = score_scene(answer(quadrants(1, 1, 0, 0), one, both), TRUTH, CLASSES, CONFIG)
    assert (blind["audio_top2"], blind["sounding_top2"]) == (1, 0.5)
    solo = score_solo(
        answer(quadrants(1, 0, 0, 0), one, [0.1, 0.9, 0, 0]), Truth.of([], ["cello"], 64), CLASSES, CONFIG
    )
    assert solo == {"audio_top1": 0}


def test_what_needs_no_labels_compares_the_loudest_entry_with_those_seen_best() -> None:
    heard = answer(quadrants(0, 0, 0, 0), [0.1, 0.6, 0.2, 0.3])
    assert score_unlabelled(heard, quadrants(0.2, 0.9, 0.1, 0), 1, CONFIG) == {"heard": 1, "agreement": 1}
    assert score_unlabelled(heard, quadrants(1, 0.9, 0.1, 0), 1, CONFIG)["agreement"] == 0
    assert score_unlabelled(heard, quadrants(1, 0.9, 0.1, 0), 2, CONFIG)["agreement"] == 1
    faint = answer(quadrants(0, 0, 0, 0), [0.1, 0.4, 0.2, 0.3])
    assert score_unlabelled(faint, quadrants(1, 1, 1, 1), 1, CONFIG) == {"heard": 0, "agreement": 0.25}


def metrics_of_silence(count: int) -> tuple[float, float]:
    classes = Classes.of([f"class-{i}" for i in range(count)], None)
    truth = Truth.of([Box(0, 0, 0.5, 0.5, "class-0"), Box(0.5, 0, 0.5, 0.5, "class-1", False)], [], 224)
    found = score_scene(uniform(count), truth, classes, EvaluationConfig(side=224, nsa_threshold=1 / count))
    return found["nsa"], found["silent_nsa"]


def test_baselines_by_hand() -> None:
    for count in (3, 5, 6, 7, 11):  # a constant that is resized stays one, whatever it is
        assert metrics_of_silence(count) == (1, 0)
    whole = score_scene(uniform(4), TRUTH, CLASSES, EvaluationConfig(side=64, nsa_threshold=0.25))
    assert (whole["ciou"], whole["sciou"], whole["nsa"], whole["silent_nsa"]) == (0.25, 0.25, 1, 0)
    assert whole["audio_top2"] == 0.5
    assert score_solo(uniform(4), TRUTH, CLASSES, CONFIG)["iou"] == 0.5
    square = Truth.of([Box(0.25, 0.25, 0.5, 0.5, "cello")], [], 64)
    assert score_solo(centre_box(4, 0.5, 64), square, CLASSES, CONFIG)["iou"] == 1
    assert score_scene(centre_box(4, 0.5, 64), square, CLASSES, CONFIG)["ciou"] == 1


def test_random_quadrants_hit_a_quarter_of_the_time_and_repeat_by_seed() -> None:
    hits = []
    for seed in range(400):
        drawn = random_quadrant(4, 64, np.random.default_rng(seed))
        assert (drawn.maps.mean((1, 2)) == 0.25).all()
        hits.append(score_scene(drawn, TRUTH, CLASSES, CONFIG)["ciou"])
    assert np.mean(hits) == pytest.approx(0.25, abs=0.05)
    again = random_quadrant(4, 64, np.random.default_rng(7))
    assert (again.maps == random_quadrant(4, 64, np.random.default_rng(7)).maps).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        Answer(np.zeros((4, 8, 8)), np.zeros((8, 8)), np.zeros(3), np.zeros(4))
    with pytest.raises(ShapeError, match=r"heard \(3,\)"):
        Answer(np.zeros((4, 8, 8)), np.zeros((8, 8)), np.zeros(4), np.zeros(3))
    with pytest.raises(CheckpointError, match="4 maps, the dictionary 3"):
        score_scene(answer(quadrants(1, 1, 1, 1)), TRUTH, Classes.of(["a", "b", "c"], None), CONFIG)


def test_all_boxes_for_every_class_light_the_silent_ones_too() -> None:
    answer = all_boxes(4, TRUTH)
    found = score_scene(answer, TRUTH, CLASSES, CONFIG)
    assert found["silent_nsa"] == 0 and 0 < found["ciou"] < 1
    every = TRUTH.union | np.any([silent for _, silent in TRUTH.silent], axis=0)
    assert found["ciou"] == pytest.approx(np.mean([one.sum() / every.sum() for one in TRUTH.sounding.values()]))
