from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsol_core import truths
from dsol_core.maps import boxes_to_mask
from dsol_core.protocols import Source, Switches
from dsol_core.types import Box, DataError
from tests.core.tiny_benchmarks import calm, item, source

XYXY = Switches(box_format="xyxy", canvas="separate")
XYWH = Switches(canvas="separate")
FLICKR = replace(XYXY, consensus=True)


def drawn(switches: Switches, *boxes: Any, unit: float = 1.0) -> Any:
    (target,) = truths.by_canvas(item(source(*boxes)), switches, unit)
    assert target.area == np.count_nonzero(target.weights)
    return target.weights


def spans(weights: Any) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is set."""
    rows, columns = np.flatnonzero(weights.any(1)), np.flatnonzero(weights.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_edges_are_truncated_after_the_sum() -> None:
    """224 * 0.3 = 67.2 and 224 * 0.42 = 94.08, so the far edge is int(161.28)."""
    assert spans(drawn(XYWH, (0.3, 0.1, 0.42, 0.5))) == (67, 22, 161, 134)
    assert spans(drawn(XYWH, (0.103, 0.1, 0.103, 0.5)))[2] == 46  # 23.072 + 23.072 = 46.144
    assert spans(drawn(XYWH, (0.107, 0.1, 0.107, 0.5)))[2] == 47  # 23.968 + 23.968 = 47.936; truncated apart: 46
    assert spans(drawn(XYXY, (0.3, 0.1, 0.42, 0.5))) == (67, 22, 94, 112)


def test_the_misread_convention_empties_boxes() -> None:
    """AVGN reads x, y, width, height as corners: a box left of the middle survives only where w > x and h > y."""
    assert not drawn(XYXY, (0.5, 0.5, 0.3, 0.3)).any()
    assert drawn(XYWH, (0.5, 0.5, 0.3, 0.3)).sum() == (int(112 + 67.2) - 112) ** 2


def test_flickr_boxes_are_divided_by_256() -> None:
    assert spans(drawn(XYXY, (30, 41, 200, 256), unit=256)) == tuple(int(224 * v / 256) for v in (30, 41, 200, 256))


def test_consensus_of_three_boxes() -> None:
    """One box gives a half, two or more give one, whoever drew them."""
    weights = drawn(FLICKR, (0, 0, 1, 0.5), (0, 0, 0.5, 1), (0, 0, 0.25, 0.25))
    assert weights[0, 0] == 1 and weights[100, 100] == 1 and weights[0, 200] == 0.5 and weights[200, 200] == 0
    assert drawn(FLICKR, (0, 0, 0.5, 0.5)).max() == 0.5  # a lone box
    one, other = (Source(None, (box,)) for box in ((0, 0, 1, 0.5), (0, 0, 0.5, 1)))
    (both,) = truths.by_canvas(item(one, other), FLICKR)
    assert np.array_equal(both.weights, drawn(FLICKR, (0, 0, 1, 0.5), (0, 0, 0.5, 1)))


def test_overlaps_count_once_or_add_up() -> None:
    boxes = ((0, 0, 0.5, 1), (0.25, 0, 0.5, 1))
    assert drawn(XYWH, *boxes).sum() == 224 * 168
    twice = drawn(replace(XYWH, clip_overlap=False), *boxes)
    assert twice.max() == 2 and twice.sum() == 224 * 224
    assert drawn(replace(XYWH, clip_overlap=False), boxes[0]).dtype == bool


@pytest.mark.parametrize("clip", ["frame", "below"])
def test_clipping(clip: Any) -> None:
    switches = replace(XYXY, clip_coordinates=clip)
    assert spans(drawn(switches, (-0.5, 0.25, 1.5, 0.5))) == (0, 56, 224, 112)
    assert not drawn(switches, (-2.88e16, -2.88e16, -2.88e16, -2.88e16)).any()
    assert spans(drawn(switches, (-2.88e16, 0.5, 0.5, 1.0))) == (0, 112, 112, 224)


def test_unclipped_negative_numbers_count_from_the_far_edge() -> None:
    weights = drawn(replace(XYXY, clip_coordinates="none"), (-0.25, 0.0, 1.0, 0.5))
    assert spans(weights) == (168, 0, 224, 112)  # Python's slice -56:224


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_by_name(bad: float) -> None:
    with pytest.raises(DataError, match=r"item a has a box .* expected four finite numbers"):
        drawn(XYWH, (0.1, bad, 0.2, 0.2))


BOXES = st.tuples(st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0.01, 0.4), st.floats(0.01, 0.4))


@calm
@given(st.lists(BOXES, min_size=1, max_size=4), st.randoms())
def test_union_equals_the_pipelines_own_rasterisation_in_any_order(boxes: list[Any], random: Any) -> None:
    expected = boxes_to_mask([Box(*box) for box in boxes], (224, 224))
    random.shuffle(boxes)
    assert np.array_equal(drawn(XYWH, *boxes), expected)
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    assert abs(int(drawn(XYXY, *corners).sum()) - int(expected.sum())) <= 450 * len(boxes)  # an edge may round


def test_sources_are_grouped_by_category_and_picture() -> None:
    one = item(
        source((0, 0, 0.25, 0.25), category="cello"),
        source((0.5, 0, 0.25, 0.25), category="flute"),
        source((0.5, 0.5, 0.25, 0.25), category="cello"),
        source((0, 0, 0.5, 0.5)),
        source((0, 0, 0.5, 0.5)),
    )
    found = truths.by_source(one, XYWH)
    assert [target.category for target in found] == ["cello", "flute", None, None]
    assert found[0].area == 2 * 56 * 56 and found[1].area == 56 * 56
    (whole,) = truths.by_canvas(one, XYWH)
    assert whole.category is None and whole.area == 112 * 112 + 2 * 56 * 56
    (cellos,) = truths.by_canvas(item(*(s for s in one.sources if s.category == "cello")), XYWH)
    assert cellos.category == "cello"


def test_a_pair_lies_side_by_side_or_apart() -> None:
    pair = item(source((0, 0, 0.5, 0.5), category="x"), source((0, 0, 1, 0.5), category="y", picture=1), pictures=2)
    first, second = truths.by_source(pair, replace(XYWH, canvas="horizontal"))
    assert first.place == second.place == 0 and first.weights.shape == (224, 448) == second.size
    assert spans(first.weights) == (0, 0, 112, 112) and spans(second.weights) == (224, 0, 448, 112)
    apart = truths.by_source(pair, XYWH)
    assert [(target.place, target.weights.shape) for target in apart] == [(0, (224, 224)), (1, (224, 224))]
    (joint,) = truths.by_canvas(pair, replace(XYWH, canvas="horizontal"))
    assert joint.area == first.area + second.area
    assert [target.area for target in truths.by_canvas(pair, XYWH)] == [first.area, second.area]


def test_a_box_of_the_second_picture_does_not_leak_into_the_first() -> None:
    """Negative columns of an unclipped box would count from the far edge of the whole canvas."""
    switches = replace(XYXY, canvas="horizontal", clip_coordinates="none")
    pair = item(source((0, 0, 1, 1)), source((-0.25, 0, 1, 1), picture=1), pictures=2)
    assert spans(truths.by_source(pair, switches)[1].weights) == (224 + 168, 0, 448, 224)


def test_masks_are_resized_by_nearest_neighbour() -> None:
    mask = np.zeros((2, 4), dtype=np.uint8)
    mask[0, 1] = 255
    (target,) = truths.by_canvas(item(Source("x", mask=mask)), XYWH)
    assert spans(target.weights) == (56, 0, 112, 112) and target.area == 56 * 112
    with pytest.raises(DataError, match=r"mask of shape \(2, 2, 2\); expected \[H, W\]"):
        truths.by_canvas(item(Source("x", mask=np.zeros((2, 2, 2)))), XYWH)


@calm
@given(st.integers(1, 500), st.integers(1, 500))
def test_nearest_neighbour_as_the_slow_loop(height: int, width: int) -> None:
    mask = np.random.default_rng(height).random((height, width)) < 0.5
    found = truths.resize_mask(item(), mask)
    for row, column in ((0, 0), (17, 200), (223, 223), (111, 112)):
        assert found[row, column] == mask[int(row * height / 224), int(column * width / 224)]


def test_a_source_without_boxes_is_empty() -> None:
    (target,) = truths.by_canvas(item(source()), XYWH)
    assert target.area == 0 and target.hits(np.ones((224, 224), dtype=bool)) == 0
    assert truths.by_canvas(item(), XYWH) == []
