from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsol_core import binarise, trivial
from dsol_core.protocol_scores import score_items
from dsol_core.protocols import MaskRule, Source, Switches
from tests.core.tiny_benchmarks import CUT, LEFT, RIGHT, TOP, item, protocol, slow_iou, source

SINGLE, MULTI = protocol(), protocol("multi", ("ciou@0.3", "auc"))
RULES = [MaskRule(), MaskRule("relative", 0.1), MaskRule("relative", 0.5, strict=True), MaskRule("absolute", 0.5)]


def disk() -> Any:
    """Section 7, word by word."""
    r, c = np.mgrid[:224, :224]
    height = -((r - 111.5) ** 2 + (c - 111.5) ** 2)
    return height >= np.sort(height, axis=None)[25088]


@pytest.mark.parametrize("rule", RULES)
def test_the_disk_is_that_of_section_seven_under_every_rule(rule: MaskRule) -> None:
    (plane,) = trivial.centred_disk(item(source(LEFT)), SINGLE).maps
    assert disk().sum() == 25100
    assert np.array_equal(binarise.mask(plane, rule), disk())
    r, c = np.mgrid[:224, :224]
    distance = (r - 111.5) ** 2 + (c - 111.5) ** 2
    area = MaskRule("truth_area")
    small = binarise.mask(plane, area, 5000)
    assert distance[small].max() < distance[~small].min()  # the nearest ones, so rules by rank find the disk's order


def test_the_whole_frame() -> None:
    (plane,) = trivial.whole_frame(item(source(LEFT)), SINGLE).maps
    assert all(binarise.mask(plane, rule).all() for rule in RULES)


def test_quadrants_are_drawn_from_seed_and_key() -> None:
    drawn = {}
    for key in "abcdefghijklmnop":
        (plane,) = trivial.random_quadrant(item(source(LEFT), key=key), SINGLE).maps
        mask = binarise.mask(plane, MaskRule("relative", 0.5))
        assert mask.sum() == 112 * 112 and mask[::112, ::112].sum() == 1
        drawn[key] = tuple(np.argwhere(mask[::112, ::112])[0])
        again = trivial.random_quadrant(item(source(LEFT), key=key), SINGLE)
        assert np.array_equal(again.maps[0], plane)
    assert len(set(drawn.values())) == 4
    others = [trivial.random_quadrant(item(source(LEFT), key=k), SINGLE, seed=1).maps[0, 0, 0] for k in drawn]
    assert others != [trivial.random_quadrant(item(source(LEFT), key=k), SINGLE).maps[0, 0, 0] for k in drawn]


def test_as_many_maps_as_targets_and_pictures() -> None:
    pair = item(source(LEFT, category="x"), source(TOP, category="y", picture=1), pictures=2)
    for say in trivial.PREDICTORS.values():
        assert say(pair, MULTI).maps.shape == (2, 224, 448) and say(item(), SINGLE).maps.shape == (1, 224, 224)
        two = item(source(LEFT, category="x"), source(TOP, category="y"), source(RIGHT, category="x"))
        assert say(two, MULTI).maps.shape == (2, 224, 224) and say(two, SINGLE).maps.shape == (1, 224, 224)


def test_a_disk_for_each_source_is_scored_with_each() -> None:
    boxes = ((0.1, 0.2, 0.4, 0.5), (0.5, 0.4, 0.3, 0.5))
    two = item(source(boxes[0], category="x"), source(boxes[1], category="y"))
    found = score_items([two], {"a": trivial.centred_disk(two, MULTI)}, MULTI, Switches())
    expected = []
    for x, y, w, h in boxes:
        truth = np.zeros((224, 224))
        truth[int(224 * y) : int(224 * y + 224 * h), int(224 * x) : int(224 * x + 224 * w)] = 1
        expected.append(slow_iou(disk(), truth))
    assert found.values["source"][0] == pytest.approx(expected)


@pytest.mark.parametrize("rule", [*RULES, MaskRule("truth_area"), MaskRule(strict=True)])
@pytest.mark.parametrize("consensus", [False, True])
def test_no_map_beats_the_ceiling(rule: MaskRule, consensus: bool) -> None:
    switches = replace(CUT, mask=rule, consensus=consensus)
    generator = np.random.default_rng(0)
    for boxes in ([(0.1, 0.2, 0.2, 0.3)], [(0.0, 0.1, 0.9, 0.8), (0.1, 0.2, 0.9, 0.6)]):
        asked = item(source(*boxes))
        best = trivial.ceiling(asked, SINGLE, switches)
        top = score_items([asked], {"a": best}, SINGLE, switches).values["iou"][0]
        for _ in range(5):
            other = replace(best, maps=generator.random((1, 7, 7)) + generator.random() * disk()[None, ::32, ::32])
            assert score_items([asked], {"a": other}, SINGLE, switches).values["iou"][0] <= top
        if rule.kind in ("relative", "absolute"):
            assert top == 1
        area = 0.06 * 224 * 224
        if rule.kind == "top_half" and not consensus and len(boxes) == 1:
            assert top == pytest.approx(area / (224 * 112), rel=0.03)  # half of the frame is always marked


def test_the_ceiling_of_pairs_and_negatives() -> None:
    pair = item(source(LEFT, category="x"), source(TOP, category="y", picture=1), pictures=2)
    for canvas in ("separate", "horizontal"):
        switches = replace(CUT, canvas=canvas)  # type: ignore[arg-type]
        found = score_items([pair], {"a": trivial.ceiling(pair, MULTI, switches)}, MULTI, switches)
        assert found.values["source"].tolist() == found.values["oracle"].tolist() == [[1, 1]]
    assert trivial.ceiling(item(), SINGLE, CUT).confidence == (0.0,)
    masked = item(Source("x", mask=disk()))
    assert score_items([masked], {"a": trivial.ceiling(masked, SINGLE, CUT)}, SINGLE, CUT).values["iou"].tolist() == [1]
