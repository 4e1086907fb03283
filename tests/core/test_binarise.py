from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dsol_core import binarise
from dsol_core.protocols import MaskRule
from dsol_core.types import ShapeError
from tests.core.tiny_benchmarks import calm, slow_mask

KERNELS: tuple[Any, ...] = ("bilinear", "bilinear_corners", "bicubic", "bicubic_corners")
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(14, 14), (7, 7), (14, 28), (1, 3), (2, 2), (28, 1)])
@pytest.mark.parametrize("grid", [(224, 224), (224, 448), (13, 11)])
def test_resizing_equals_torch(kernel: Any, size: tuple[int, int], grid: tuple[int, int]) -> None:
    maps = noise(0, 2, 3, *size)
    mode, corners = kernel.split("_")[0], kernel.endswith("corners")
    expected = F.interpolate(torch.from_numpy(maps), grid, mode=mode, align_corners=corners).numpy()
    found = binarise.resize(maps, grid, kernel)
    assert found.dtype == np.float32 and found.shape == (2, 3, *grid)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def slow_bilinear(source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    h, w = source.shape
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            out[i, j] = (1 - (y - y0)) * ((1 - (x - x0)) * source[y0, x0] + (x - x0) * source[y0, x1]) + (y - y0) * (
                (1 - (x - x0)) * source[y1, x0] + (x - x0) * source[y1, x1]
            )
    return out


@pytest.mark.parametrize(("old", "new"), [((3, 5), (7, 11)), ((8, 8), (224, 224)), ((9, 6), (4, 4)), ((1, 2), (3, 3))])
def test_bilinear_has_half_pixel_centres(old: tuple[int, int], new: tuple[int, int]) -> None:
    source = noise(1, *old)
    np.testing.assert_allclose(binarise.resize(source, new), slow_bilinear(source, new), atol=1e-5)
    assert np.allclose(binarise.resize(np.array([[0.0, 1.0]]), (1, 4)), [[0, 0.25, 0.75, 1]])


def test_a_map_on_the_grid_is_left_alone_and_less_than_a_map_is_refused() -> None:
    plane = noise(2, 224, 224)
    assert np.array_equal(binarise.resize(plane, (224, 224), "bicubic"), plane)
    with pytest.raises(ShapeError, match=r"expected \[\.\.\., h, w\]"):
        binarise.resize(np.zeros(3), (2, 2))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_new_cell_is_an_average(kernel: Any) -> None:
    found = binarise.weights(kernel, 14, 224)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


def planes(seed: int) -> Any:
    """Maps of every sort: noise, smooth, few levels, constant, steps."""
    generator = np.random.default_rng(seed)
    cells = int(generator.choice([1, 2, 3, 7, 14, 28]))
    smooth = binarise.resize(noise(seed, cells, cells), (224, 224), generator.choice(KERNELS))
    return [smooth, noise(seed, 224, 224), np.round(smooth), np.floor(smooth * 3), smooth**9]


@calm
@given(SEEDS, st.floats(0, 1))
def test_order_statistics_equal_a_sort(seed: int, share: float) -> None:
    for plane in planes(seed):
        flat = plane.reshape(-1)
        for k in (len(flat) // 2, int(share * (len(flat) - 1)), 0, len(flat) - 1):
            assert binarise.order_statistic(flat, k) == np.sort(flat)[k]


@calm
@given(SEEDS, st.sampled_from(["top_half", "relative", "absolute", "truth_area"]), st.booleans(), st.integers(0, 50176))
def test_masks_equal_the_sorted_rules(seed: int, kind: Any, strict: bool, area: int) -> None:
    for plane in planes(seed):
        rule = MaskRule(kind, 0.3, strict)
        assert np.array_equal(binarise.mask(plane, rule, area), slow_mask(plane, rule, area)), kind


def test_the_top_half_is_half_and_takes_ties_at_the_middle() -> None:
    for plane in binarise.resize(noise(3, 4, 14, 14), (224, 224)):
        assert binarise.mask(plane, MaskRule()).sum() == 25088
        assert binarise.mask(plane, MaskRule(strict=True)).sum() == 25087
    assert binarise.mask(np.arange(12, dtype=np.float32).reshape(3, 4), MaskRule()).sum() == 6


def test_a_constant_map_is_everything_or_nothing() -> None:
    ones = np.ones((224, 224), dtype=np.float32)
    assert binarise.mask(ones, MaskRule()).all() and not binarise.mask(ones, MaskRule(strict=True)).any()
    assert np.array_equal(binarise.minmax(ones), ones)


def test_truth_area_takes_as_many_pixels_as_the_truth() -> None:
    plane = noise(4, 224, 224)
    rule = MaskRule("truth_area")
    assert [int(binarise.mask(plane, rule, area).sum()) for area in (1, 700, 50176, 0)] == [1, 700, 50176, 25088]


@calm
@given(SEEDS, st.floats(0.01, 100), st.floats(-50, 50))
def test_rules_by_rank_do_not_care_for_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    plane = np.round(noise(seed, 224, 224) * 8)  # few levels, so that no two of them melt together
    moved = (plane * np.float32(scale) + np.float32(shift)).astype(np.float32)
    for rule, area in ((MaskRule(), 0), (MaskRule("truth_area"), 9000)):
        assert np.array_equal(binarise.mask(plane, rule, area), binarise.mask(moved, rule, area))
    stretched = binarise.minmax(moved)
    assert stretched.min() == 0 and stretched.max() == 1
    np.testing.assert_allclose(stretched, binarise.minmax(plane), atol=1e-3)


@calm
@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_level_never_adds_a_pixel(seed: int, one: float, other: float) -> None:
    plane = np.abs(noise(seed, 224, 224))
    low, high = sorted((one, other))
    for kind in ("relative", "absolute"):
        many, few = (binarise.mask(plane, MaskRule(kind, level)) for level in (low, high))
        assert not (few & ~many).any()
        assert not (binarise.mask(plane, MaskRule(kind, low, strict=True)) & ~many).any()
