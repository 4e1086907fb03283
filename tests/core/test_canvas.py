from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from dsol_core import binarise, truths
from dsol_core.canvas import Canvas, checked
from dsol_core.protocols import Maps, MaskRule, Switches
from dsol_core.types import DataError
from tests.core.tiny_benchmarks import CUT, LEFT, QUARTER, box_map, calm, item, said, slow_iou, slow_mask, source

SEEDS = st.integers(0, 2**32 - 1)
RULES = [
    MaskRule(kind, 0.4, strict)  # type: ignore[arg-type]
    for kind in ("top_half", "relative", "absolute", "truth_area")
    for strict in (False, True)
]


@calm
@given(SEEDS, st.sampled_from(RULES), st.booleans(), st.sampled_from(["union", "sum", "consensus"]), st.booleans())
def test_iou_equals_the_literatures_loop(seed: int, rule: MaskRule, stretch: bool, truth: str, two: bool) -> None:
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.random((1 + two, 2, 2)), axis=1)
    boxes = [tuple(map(float, box.ravel())) for box in corners]
    switches = Switches(
        resize=generator.choice(["bilinear", "bilinear_corners", "bicubic", "bicubic_corners"]),
        normalise="minmax" if stretch else "none",
        mask=rule,
        box_format="xyxy",
        clip_overlap=truth != "sum",
        consensus=truth == "consensus",
        canvas="separate",
    )
    expected = np.zeros((224, 224))
    for x1, y1, x2, y2 in boxes:
        expected[int(224 * y1) : int(224 * y2), int(224 * x1) : int(224 * x2)] += 1
    expected = {"union": np.minimum(expected, 1), "sum": expected, "consensus": np.minimum(expected / 2, 1)}[truth]
    (target,) = truths.by_canvas(item(source(*boxes)), switches)
    raw = generator.random((1, 7, 7)).astype(np.float32)
    plane = binarise.resize(raw[0], (224, 224), switches.resize)
    plane = (plane - plane.min()) / (plane.max() - plane.min()) if stretch else plane
    mask = slow_mask(plane, rule, int((expected > 0).sum()))
    if expected.any():
        assert Canvas(raw, 1, switches).iou(0, target) == pytest.approx(slow_iou(mask, expected), abs=1e-3)
    assert np.array_equal(target.weights, expected)


def test_iou_by_hand() -> None:
    canvas = Canvas(np.stack([box_map(LEFT), box_map(QUARTER)]), 1, CUT)
    (left,) = truths.by_canvas(item(source(LEFT)), CUT)
    (nothing,) = truths.by_canvas(item(source()), CUT)
    assert (canvas.iou(0, left), canvas.iou(1, left), canvas.iou(0, nothing)) == (1, 0.5, 0)


def test_pixel_ap_and_the_swapped_one() -> None:
    raw = np.random.default_rng(0).random((1, 7, 7)).astype(np.float32)
    (target,) = truths.by_canvas(item(source((0.2, 0.3, 0.5, 0.4))), CUT)
    truth = target.weights.ravel()
    canvas = Canvas(raw, 1, CUT)
    plane = canvas.plane(0, 0)
    assert canvas.average_precision(0, target) == pytest.approx(average_precision_score(truth, plane.ravel()))
    swapped = Canvas(raw, 1, replace(CUT, swapped_ap=True)).average_precision(0, target)
    assert swapped == pytest.approx(average_precision_score((plane >= 0.5).ravel(), truth.astype(float)))


def test_a_pair_is_resized_as_one_or_apart() -> None:
    maps = np.random.default_rng(1).random((2, 7, 14)).astype(np.float32)
    joint, apart = Canvas(maps, 2, replace(CUT, canvas="horizontal")), Canvas(maps, 2, CUT)
    assert np.array_equal(joint.plane(1, 0), binarise.resize(maps[1], (224, 448)))
    assert np.array_equal(apart.plane(1, 1), binarise.resize(maps[1, :, 7:], (224, 224)))
    assert apart.plane(0, 0)[:, -1] != pytest.approx(joint.plane(0, 0)[:, 223])  # no neighbour bleeds in


@pytest.mark.parametrize("resize", ["bilinear", "bilinear_corners", "bicubic", "bicubic_corners"])
@pytest.mark.parametrize("value", [0.2, 1 / 3, -7.1])
def test_a_constant_map_says_everywhere(resize: Any, value: float) -> None:
    (target,) = truths.by_canvas(item(source(LEFT)), CUT)
    switches = replace(CUT, resize=resize, mask=MaskRule(), normalise="minmax")
    assert Canvas(np.full((1, 7, 7), value, dtype=np.float32), 1, switches).iou(0, target) == 0.5


def test_dark_share() -> None:
    maps = np.concatenate([0.19 * np.ones((1, 4, 4)), 0.21 * np.ones((1, 4, 4))], axis=2).astype(np.float32)
    assert Canvas(maps, 2, CUT).dark(0) == 0.5 and Canvas(maps[:, :, :4], 1, CUT).dark(0) == 1
    assert Canvas(np.full((1, 3, 3), 0.2, dtype=np.float32), 1, CUT).dark(0) == 1  # up to the level


@pytest.mark.parametrize(
    ("prediction", "complaint"),
    [
        (said(np.zeros((4, 4))[None, None]), r"maps of shape \(1, 1, 4, 4\) and type float32; expected numbers \[M, h"),
        (Maps("a", np.zeros((1, 0, 4)), (None,), (None,)), r"maps of shape \(1, 0, 4\)"),
        (Maps("a", np.array([[["x"]]]), (None,), (None,)), "type <U1; expected numbers"),
        (said(np.zeros((2, 4, 4)), [None]), "2 maps, 1 classes and 2 confidences; expected one class and one"),
        (said(np.full((2, 4, 4), np.nan)), "NaN or infinite values in maps 0, 1; expected finite ones"),
        (said(np.full((9, 4, 4), np.inf)), r"in maps 0, 1, 2, 3, 4 \.\.\.; expected finite"),
    ],
)
def test_unusable_maps_are_refused_by_name_and_with_a_remedy(prediction: Any, complaint: str) -> None:
    with pytest.raises(
        DataError, match=rf"^prediction of item a has .*{complaint}.*; predict the item again, or leave"
    ):
        checked(item(source(LEFT)), prediction)


def test_a_pairs_maps_must_fall_into_two() -> None:
    pair = item(pictures=2)
    assert checked(pair, said(np.zeros((1, 4, 6)))).shape == (1, 4, 6)
    with pytest.raises(DataError, match="maps 7 cells wide; expected its 2 pictures side by side, equally wide"):
        checked(pair, said(np.zeros((1, 4, 7))))


def test_large_values_are_finite() -> None:
    assert checked(item(), said(np.full((1, 3, 3), 3e38))).max() > 1e38


def test_half_precision_is_taken() -> None:
    found = checked(item(), Maps("a", np.ones((1, 2, 2), dtype=np.float16), (None,), (None,)))
    assert found.dtype == np.float32 and found.sum() == 4
