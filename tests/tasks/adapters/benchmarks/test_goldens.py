"""Section 7 of method-and-benchmarks: the trivial baselines on the real annotations, to the printed digit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsol_core import protocol_estimates, protocol_scores, trivial, truths
from dsol_core.protocols import Item, Maps, Protocol, Switches
from tasks.adapters import benchmarks

SHAPES = ("whole frame", "centred disk")
SHOULD_FAIL = {"empty": "fail"}
MISREAD = {"box_format": "xyxy", "empty": "fail"}
PRINTED: list[tuple[str, dict[str, Any], int, dict[str, str], dict[str, str]]] = [
    # benchmark, switches on top of the correct ones, samples, whole frame, centred disk; "": not printed
    ("music-solo", {}, 12356, {"iou@0.3": "43.29", "iou@0.5": "15.35", "auc": "33.22"},
     {"iou@0.3": "76.11", "iou@0.5": "24.89", "auc": "39.06"}),
    ("music-duet", {}, 10284, {"ciou@0.3": "6.49", "ciou@0.5": "1.74", "auc": "16.12"},
     {"ciou@0.3": "18.65", "ciou@0.5": "4.15", "auc": "22.34"}),
    ("audioset-solo", {}, 4000, {"iou@0.3": "52.50", "iou@0.5": "30.93", "auc": "37.52"},
     {"iou@0.3": "64.88", "iou@0.5": "37.25", "auc": "38.60"}),
    ("audioset-multi", {"class_10": "keep"}, 473, {"ciou@0.3": "25.58", "ciou@0.5": "8.46", "auc": "21.88"},
     {"ciou@0.3": "41.23", "ciou@0.5": "14.38", "auc": "27.16"}),
    ("music-solo-avgn", {}, 2124, {"iou@0.5": "0.14"}, {"iou@0.5": "21.14", "auc": "30.60"}),
    ("music-solo-avgn", MISREAD, 2124, {}, {"iou@0.5": "0.14", "auc": "6.90"}),
    ("music-duet-avgn", {}, 2040, {}, {"ciou@0.3": "10.15", "auc": "18.26"}),
    ("music-duet-avgn", MISREAD, 2040, {}, {"ciou@0.3": "0.00", "auc": "4.90"}),
    ("music-duet-avgn", {"aggregate": "union"}, 1020, {}, {"ciou@0.3": "76.08", "ciou@0.5": "2.84", "auc": "35.50"}),
    ("vgg-ss", SHOULD_FAIL, 5158, {"iou@0.5": "21.95", "auc": "31.25"},
     {"iou@0.3": "60.10", "iou@0.5": "34.02", "auc": "37.44"}),
    ("flickr-soundnet", {}, 249, {"iou@0.5": "48.19", "auc": "48.95"}, {"iou@0.5": "67.47", "auc": "54.33"}),
]  # fmt: skip


class Lazy(Mapping[str, Maps]):
    """Predictions made when they are asked for."""

    def __init__(self, items: Iterable[Item], say: Callable[[Item], Maps]) -> None:
        self.items_by_key, self.say = {item.key: item for item in items}, say

    def __getitem__(self, key: str) -> Maps:
        return self.say(self.items_by_key[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_by_key)

    def __len__(self) -> int:
        return len(self.items_by_key)


def printer(
    items: list[Item], protocol: Protocol, switches: Switches, say: Callable[[Item], Maps]
) -> Callable[[str], tuple[str, int]]:
    """Score items; return what prints a metric in percent, and says over how many samples."""
    scores = protocol_scores.score_items(items, Lazy(items, say), protocol, switches)

    def printed(metric: str) -> tuple[str, int]:
        values, _ = protocol_estimates.parts(scores, metric, protocol, switches)
        known = values[values == values]
        return f"{100 * known.mean():.2f}", len(known)

    return printed


def score(
    annotations: Path,
    name: str,
    switches: dict[str, Any],
    shape: str,
    keep: Callable[[Item], bool] = lambda _: True,
) -> Callable[[str], tuple[str, int]]:
    """Score a predictor that neither looks nor listens."""
    protocol = replace(benchmarks.find(name), metrics=("iou@0.5",))  # no pixel AP, which takes time
    if benchmarks.find(name).class_aware:
        protocol = replace(protocol, metrics=("ciou@0.3", "nsa"))
    under = replace(protocol.correct, **switches)
    items = [item for item in benchmarks.read_items(name, annotations, under) if keep(item)]
    predictor = trivial.PREDICTORS[shape]
    return printer(items, protocol, under, lambda item: predictor(item, protocol))


@pytest.mark.parametrize(
    ("name", "switches", "samples", "whole", "disk"),
    [pytest.param(*row, marks=[pytest.mark.slow] if row[0] in ("music-solo", "music-duet") else []) for row in PRINTED],
)
def test_the_trivial_baselines_are_reproduced_to_the_digit(
    annotations: Path, name: str, switches: dict[str, Any], samples: int, whole: dict[str, str], disk: dict[str, str]
) -> None:
    for shape, expected in zip(SHAPES, (whole, disk), strict=True):
        if expected:
            printed = score(annotations, name, switches, shape)
            assert {metric: printed(metric) for metric in expected} == {
                metric: (value, samples) for metric, value in expected.items()
            }


@pytest.mark.slow
def test_the_frames_of_music_duet_that_show_two_classes(annotations: Path) -> None:
    expected = {"whole frame": ("1.05", "0.06", "12.63"), "centred disk": ("16.54", "0.32", "20.39")}
    for shape in SHAPES:
        printed = score(annotations, "music-duet", {}, shape, lambda item: len(item.sources) == 2)
        assert tuple(printed(metric)[0] for metric in ("ciou@0.3", "ciou@0.5", "auc")) == expected[shape]
        assert printed("auc")[1] == 4751


@pytest.mark.parametrize(
    ("name", "switches", "metric", "printed"),
    [
        ("vgg-ss", SHOULD_FAIL, "iou@0.5", "50.5"),
        ("vgg-ss", SHOULD_FAIL, "iou@0.3", "69.4"),
        ("flickr-soundnet", {}, "iou@0.5", "94.4"),
        ("music-duet-avgn", {}, "ciou@0.3", "40.5"),
        ("music-duet-avgn", MISREAD, "ciou@0.3", "0.0"),
        ("music-solo-avgn", MISREAD, "iou@0.5", "0.1"),
    ],
)
def test_the_ceilings_of_the_half_frame_are_reproduced(
    annotations: Path, name: str, switches: dict[str, Any], metric: str, printed: str
) -> None:
    protocol = replace(benchmarks.find(name), metrics=(metric,))
    under = replace(protocol.correct, **switches)
    items = list(benchmarks.read_items(name, annotations, under))
    found, _ = printer(items, protocol, under, lambda item: trivial.ceiling(item, protocol, under))(metric)
    assert f"{float(found):.1f}" == printed


def test_the_ceiling_of_the_half_frame_is_what_areas_alone_say(annotations: Path) -> None:
    protocol = benchmarks.find("vgg-ss")
    items = benchmarks.read_items(protocol, annotations).items[:300]
    said = Lazy(items, lambda item: trivial.ceiling(item, protocol, protocol.correct))
    found = protocol_scores.score_items(items, said, protocol, protocol.correct).values["iou"]
    areas = np.array([np.count_nonzero(truths.by_canvas(item, protocol.correct)[0].weights) for item in items])
    assert np.isnan(found[areas == 0]).all() and (areas == 0).sum() == 1
    expected = np.minimum(areas, 25088) / np.maximum(areas, 25088)
    assert found[areas > 0] == pytest.approx(expected[areas > 0], abs=1e-12)


def test_the_swapped_ap_cannot_fall_below_the_root_of_two_less_one() -> None:
    from dsol_core import metrics

    lowest = 1.0
    labels = np.arange(64) < 32  # half of the pixels, as the mask rule has it
    for inside in range(33):
        for outside in range(33):
            truth = np.zeros(64)
            truth[:inside], truth[32 : 32 + outside] = 1, 1
            lowest = min(lowest, metrics.average_precision(truth.reshape(8, 8), labels.reshape(8, 8)))
    assert lowest == pytest.approx(2**0.5 - 1, abs=1e-4) and lowest >= 2**0.5 - 1


def test_under_the_lookup_bug_a_perfect_system_is_worse_than_a_disk(annotations: Path) -> None:
    protocol = replace(benchmarks.find("vggsound-duet"), metrics=("ciou@0.3",))
    own = {item.key: item for item in benchmarks.read_items(protocol, annotations).items[:600]}
    shifted = [item for item in benchmarks.read_items(protocol, annotations, "reference") if item.key in own]
    under = protocol.reference

    def found(item: Item) -> Maps:
        return trivial.ceiling(own[item.key], protocol, protocol.correct)

    perfect, _ = printer(shifted, protocol, under, found)("ciou@0.3")
    disk, _ = printer(shifted, protocol, under, lambda item: trivial.centred_disk(item, protocol))("ciou@0.3")
    mended = replace(under, partner_boxes=False)
    best, _ = printer(list(own.values()), protocol, mended, found)("ciou@0.3")
    assert float(perfect) < 45 < 55 < float(disk) < float(best)
