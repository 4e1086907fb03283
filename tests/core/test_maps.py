from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsol_core.maps import (
    boxes_to_mask,
    masked_mean,
    object_mask,
    relative_mask,
    scene_mask,
)
from dsol_core.types import Box, ShapeError


def test_a_box_is_truncated_toward_zero_and_half_open() -> None:
    mask = boxes_to_mask([Box(0.35, 0.0, 0.3734375, 0.99)], (224, 224))
    rows, columns = np.nonzero(mask)
    # 224 * 0.35 = 78.4 -> 78; 78.4 + 83.65 = 162.05 -> 162 excluded; 224 * 0.99 = 221.76 -> 221 excluded
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 220, 78, 161)
    assert mask.sum() == 221 * 84


def test_the_far_edge_is_the_truncated_sum_and_no_sum_of_truncated_numbers() -> None:
    mask = boxes_to_mask([Box(0.15, 0.15, 0.37, 0.37)], (10, 10))  # 1.5 + 3.7 = 5.2 -> 5, whereas 1 + 3 = 4
    assert np.nonzero(mask.any(0))[0].tolist() == [1, 2, 3, 4]


def test_boxes_are_united_and_height_and_width_kept_apart() -> None:
    mask = boxes_to_mask([Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.5, 0.5)], (4, 8))
    expected = np.zeros((4, 8), bool)
    expected[0:2, 0:4] = expected[1:3, 2:6] = True
    assert (mask == expected).all()
    assert not boxes_to_mask([], (4, 8)).any()


def test_relative_mask_compares_each_map_with_its_own_maximum() -> None:
    values = np.array([[[0.0, 0.2], [0.5, 1.0]], [[0.0, 0.02], [0.05, 0.1]]])
    assert relative_mask(values, 0.5).tolist() == [[[False, False], [False, True]]] * 2
    assert relative_mask(values, 0.1).tolist() == [[[False, True], [True, True]]] * 2


def test_scene_mask_has_one_threshold_for_all_maps_of_a_scene() -> None:
    values = np.array([[[0.0, 0.2], [0.6, 1.0]], [[0.0, 0.02], [0.3, 0.51]]])
    expected = [[[False, False], [True, True]], [[False, False], [False, True]]]
    assert scene_mask(values, 0.5).tolist() == expected
    assert scene_mask(np.stack([values, values / 10]), 0.5).tolist() == [expected, expected]


def test_masks_of_zeros_are_empty() -> None:
    assert not relative_mask(np.zeros((2, 3, 3)), 0.5).any()
    assert not scene_mask(np.zeros((2, 3, 3)), 0.5).any()


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000))
def test_relative_and_scene_masks_do_not_depend_on_scale(seed: int, scale: float) -> None:
    values = np.random.default_rng(seed).random((3, 4, 4))
    assert (relative_mask(values, 0.37) == relative_mask(values * scale, 0.37)).all()
    assert (scene_mask(values, 0.37) == scene_mask(values * scale, 0.37)).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_masks_shrink_when_the_threshold_rises(seed: int, one: float, two: float) -> None:
    values = np.random.default_rng(seed).random((3, 4, 4))
    low, high = sorted((one, two))
    assert (relative_mask(values, high) <= relative_mask(values, low)).all()
    assert (scene_mask(values, high) <= relative_mask(values, high)).all()  # the scene's maximum is never lower


def test_object_mask_grows_inner_cells_only() -> None:
    values = torch.zeros(1, 1, 5, 5)
    values[0, 0, 2, 2] = values[0, 0, 0, 4] = 1
    assert object_mask(values, 0.5, dilate=False).sum() == 2
    grown = object_mask(values, 0.5, dilate=True)[0, 0]
    assert grown.nonzero().tolist() == [[0, 4], [1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]


def test_masked_mean_divides_by_the_mask_or_the_map() -> None:
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    mask = torch.tensor([[[[True, False], [False, True]]]])
    assert masked_mean(features, mask, over="mask").tolist() == [[1.5, 5.5]]
    assert masked_mean(features, mask, over="map").tolist() == [[0.75, 2.75]]
    assert masked_mean(features, mask & False, over="mask").tolist() == [[0.0, 0.0]]
    with pytest.raises(ShapeError):
        masked_mean(features, mask[:, :, :1], over="mask")
