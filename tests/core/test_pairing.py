from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsol_core import pairing, truths
from dsol_core.canvas import Canvas
from dsol_core.types import DataError
from tests.core.tiny_benchmarks import CUT, LEFT, QUARTER, RIGHT, TOP, box_map, calm, item, said, source

BOXES = (LEFT, RIGHT, TOP)


def test_maps_of_one_class_are_summed_and_agnostic_ones_kept() -> None:
    maps = np.arange(1, 6, dtype=np.float32)[:, None, None] * np.ones((5, 2, 2), dtype=np.float32)
    given_ = said(maps, ["x", None, "y", "x", None], [0.1, 0.2, 0.3, 0.4, 0.5])
    summed, total = pairing.sum_classes(given_, maps)
    assert summed.classes == ("x", None, "y", None) and summed.confidence == (0.4, 0.2, 0.3, 0.5)
    assert total[:, 0, 0].tolist() == [5, 2, 3, 5] and summed.maps is total
    alone = said(maps[:2], ["x", "y"])
    assert pairing.sum_classes(alone, maps[:2])[1] is not None and pairing.sum_classes(alone, maps[:2])[0] is alone
    assert pairing.sum_classes(said(maps[:2], ["x", "x"]), maps[:2])[0].confidence == (None,)


def test_the_map_of_a_class_else_the_agnostic_one_else_none() -> None:
    one = item(source(LEFT))
    assert pairing.of_class(one, said(np.zeros((3, 2, 2)), ["x", None, "y"]), "y") == 2
    assert pairing.of_class(one, said(np.zeros((3, 2, 2)), ["x", None, "y"]), "z") == 1
    assert pairing.of_class(one, said(np.zeros((2, 2, 2)), ["x", "y"]), "z") is None
    assert pairing.of_class(one, said(np.zeros((2, 2, 2)), ["x", "y"]), None) is None
    assert pairing.only_map(one, said(np.zeros((3, 2, 2)), ["x", None, "y"], [1, 0, 2])) == 1
    assert pairing.only_map(one, said(np.zeros((3, 2, 2)), ["x", "z", "y"], [1, 2, 2])) == 1
    assert pairing.only_map(one, said(np.zeros((0, 2, 2)))) is None


@pytest.mark.parametrize("confidence", [None, [1, None, 2], [1, float("nan"), 2]])
def test_choosing_without_a_confidence_is_refused(confidence: Any) -> None:
    with pytest.raises(DataError, match=r"item a has 3 maps where 1 are compared.*confidence to choose by.*add conf"):
        pairing.only_map(item(), said(np.zeros((3, 2, 2)), ["x", "y", "z"], confidence))


def slow_match(table: Any) -> float:
    rows, columns = table.shape
    if rows < columns:
        return slow_match(table.T)
    return max(
        sum(table[row, column] for column, row in enumerate(some)) for some in permutations(range(rows), columns)
    )


@calm
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 3))
def test_hungarian_matching_equals_trying_all(seed: int, sources: int, count: int) -> None:
    maps = np.random.default_rng(seed).random((min(count, sources), 5, 5)).astype(np.float32)
    one = item(*(source(box) for box in BOXES[:sources]))
    targets, canvas = truths.by_source(one, CUT), Canvas(maps, 1, CUT)
    found = pairing.match(one, said(maps), canvas, targets)
    table = np.array([[canvas.iou(m, target) for target in targets] for m in range(len(maps))])
    total = sum(table[m, place] for place, m in enumerate(found) if m is not None)
    assert total == pytest.approx(slow_match(table) if len(maps) else 0)
    used = [m for m in found if m is not None]
    assert len(found) == sources and sorted(used) == list(range(len(maps)))


def test_only_the_most_confident_maps_take_part() -> None:
    """The second best map is perfect for nothing; a look at the truth would take the third."""
    maps = np.stack([box_map(LEFT), box_map(QUARTER), box_map(RIGHT)])
    one = item(source(LEFT), source(RIGHT))
    targets, canvas = truths.by_source(one, CUT), Canvas(maps, 1, CUT)
    assert pairing.match(one, said(maps, confidence=[0.9, 0.8, 0.1]), canvas, targets) == [0, 1]
    assert pairing.match(one, said(maps, confidence=[0.1, 0.8, 0.9]), canvas, targets) == [1, 2]
    with pytest.raises(DataError, match="3 maps where 2 are compared"):
        pairing.match(one, said(maps), canvas, targets)
