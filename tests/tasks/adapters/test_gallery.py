from __future__ import annotations

import numpy as np

from dsol_core.benchmarks import Benchmark, Frame, Judge
from dsol_core.config import EvaluationConfig
from dsol_core.scoring import Answer, Classes
from dsol_core.types import Box
from tasks.adapters.gallery import GREEN, RANKS, RED, choose, make_panels, shrink, strip, with_boxes
from tasks.adapters.gallery import Picture as GalleryPicture

JUDGE = Judge(Classes.of(["a", "b", "c"], ["cello", "flute", "tuba"]), True, EvaluationConfig(side=32))


def ranked(count: int) -> Benchmark:
    made = Benchmark("grid")
    for i in range(count):
        made.add(f"item{i:02d}", [str(i)], {"model": {"sciou": 1 - i / 100}})
    return made


def test_best_median_and_worst_never_overlap() -> None:
    found = choose({"grid": ranked(20)}, 4)["grid"]
    assert found["best"] == ["item00", "item01", "item02", "item03"]
    assert found["median"] == ["item08", "item09", "item10", "item11"]
    assert found["worst"] == ["item16", "item17", "item18", "item19"]
    for count in range(1, 14):
        few = choose({"grid": ranked(count)}, 4)["grid"]
        items = [item for rank in RANKS for item in few[rank]]
        assert len(items) == len(set(items)) > 0


def frame(boxes: tuple[Box, ...], levels: tuple[float, float, float]) -> Frame:
    maps = np.ones((3, 4, 4)) * np.array(levels)[:, None, None]
    return Frame(Answer(maps, maps.max(0), np.array([0.9, 0.2, 0.1]), np.ones(3)), maps, boxes, ())


def test_panels_show_sounding_then_silent_then_a_false_alarm() -> None:
    boxes = (Box(0, 0, 0.5, 0.5, "flute", False), Box(0.5, 0, 0.5, 0.5, "cello"))
    picture = np.full((16, 16, 3), 100, np.uint8)
    panels = make_panels(picture, frame(boxes, (1.0, 0.1, 0.9)), JUDGE, "grid")
    assert [(p.title, p.state) for p in panels[1:]] == [("cello", "sounding"), ("flute", "silent"), ("tuba", "absent")]
    assert panels[0].boxes == boxes and panels[1].boxes == boxes[1:]
    assert panels[1].iou == 0.25 and panels[2].iou is None and panels[1].probability == 0.9
    quiet = make_panels(picture, frame(boxes, (1.0, 0.1, 0.4)), JUDGE, "grid")
    assert [p.title for p in quiet[1:]] == ["cello", "flute"]


def test_the_ious_of_panels_are_cut_as_the_scores_beside_them() -> None:
    """The whole cello is at 0.4 of its maximum and more: at a level of 0.2 it fills the frame, at 0.5 a quarter."""
    judge = Judge(JUDGE.classes, True, EvaluationConfig(side=32, multi_threshold=0.2))
    maps = np.zeros((3, 2, 2))
    maps[0] = [[1.0, 0.4], [0.4, 0.4]]
    one = Frame(Answer(maps, maps.max(0), np.ones(3), np.ones(3)), maps, (Box(0, 0, 1, 1, "cello"),), ())
    picture = np.zeros((16, 16, 3), np.uint8)
    ious = [make_panels(picture, one, judge, subset)[1].iou for subset in ("multi", "grid")]
    assert ious[0] == 1 and ious[1] is not None and ious[1] < 0.5


def test_maps_of_a_scene_share_one_scale() -> None:
    boxes = (Box(0, 0, 0.5, 0.5, "cello"), Box(0.5, 0, 0.5, 0.5, "flute"))
    picture = np.zeros((16, 16, 3), np.uint8)
    panels = make_panels(picture, frame(boxes, (0.8, 0.2, 0.0)), JUDGE, "grid")
    bright, dim = (int(panel.picture.max()) - 20 for panel in panels[1:])  # black frames show as a grey of 20
    assert bright == round(0.72 * (max(panels[1].colour) - 20))
    assert abs(dim - 0.25 * 0.72 * (max(panels[2].colour) - 20)) <= 1


def test_a_class_without_entry_and_a_frame_nobody_annotated() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    unknown = make_panels(picture, frame((Box(0, 0, 1, 1, "harp"),), (0.1, 0.1, 0.1)), JUDGE, "solo")
    assert [p.title for p in unknown[:3]] == ["frame", "anything that sounds", "harp"]
    assert unknown[2].probability is None and (unknown[2].picture == 20).all()
    bare = make_panels(picture, frame((), (0.1, 0.1, 0.1)), JUDGE, "grid")
    assert [(p.title, p.state) for p in bare[1:]] == [("cello", ""), ("flute", "")]


def test_boxes_are_drawn_green_and_red_with_their_inside_untouched() -> None:
    picture = np.full((40, 40, 3), 7, np.uint8)
    drawn = with_boxes(picture, [Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5, None, False)])
    assert tuple(drawn[0, 10]) == GREEN and tuple(drawn[39, 30]) == RED
    assert (drawn[2:18, 2:18] == 7).all() and (picture == 7).all()
    one = GalleryPicture("grid", "best", "x", {}, make_panels(picture, frame((), (1, 0, 0)), JUDGE, "grid"))
    assert strip(one).shape == (40, 3 * 40 + 2 * 6, 3)


def test_large_frames_are_shrunk_and_keep_their_shape() -> None:
    assert shrink(np.zeros((720, 1280, 3), np.uint8)).shape == (180, 320, 3)
    assert shrink(np.zeros((64, 48, 3), np.uint8)).shape == (64, 48, 3)
