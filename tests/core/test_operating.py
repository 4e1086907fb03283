from __future__ import annotations

import numpy as np
import pytest

from dsol_core.operating import Detections, choose, rates
from dsol_core.types import DataError


def detections(peaks: dict[str, list[float]], sounding: float | None = None) -> Detections:
    """Peaks by kind; every probability is the same, or the peak."""
    found = Detections()
    for kind, values in peaks.items():
        for number, value in enumerate(values):
            found.add(kind, f"{kind}{number}", [f"v{number}"], value, [0.0, value if sounding is None else sounding])
    return found


def test_threshold_and_rates_by_hand() -> None:
    validation = detections(
        {"positive": [0.9, 0.8, 0.6, 0.2], "silence": [0.1, 0.1], "offscreen": [0.1, 0.3, 0.5, 0.7]}, sounding=0.5
    )
    point = choose(validation)
    assert point is not None and point.score == "peak" and point.n == 10
    # from 0.6 on: 3/4 detected; alarms (0 + 1/4) / 2; (0.75 + 1 - 0.125) / 2. In the middle of 0.5 and 0.6
    assert point.accuracies == {"peak": pytest.approx(0.8125), "sounding": pytest.approx(0.5)}
    assert point.threshold == pytest.approx(0.55)
    found = rates(detections({"positive": [0.6, 0.5], "silence": [0.0], "offscreen": [0.55, 0.1, 0.1, 0.1]}), point, 50)
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "detected": (0.5, 2),
        "false_alarm_silence": (0.0, 1),
        "false_alarm_offscreen": (0.25, 4),
    }


def test_the_better_score_is_chosen_and_the_first_of_equals() -> None:
    mixed = Detections()
    for kind, peak, probability in (("positive", 0.5, 0.9), ("noise", 0.5, 0.1), ("silence", 0.2, 0.2)):
        mixed.add(kind, "x", ["v"], peak, [probability])
    point = choose(mixed)
    assert point is not None and (point.score, point.threshold) == ("sounding", pytest.approx(0.55))
    same = choose(detections({"positive": [0.9], "noise": [0.1]}))
    assert same is not None and same.score == "peak" and same.accuracies["peak"] == 1


def test_the_threshold_is_the_best_of_all() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        peaks = {
            kind: list(generator.normal(mean, 0.3, generator.integers(3, 30)).clip(0, 1).round(2))
            for kind, mean in (("positive", 0.6), ("silence", 0.2), ("noise", 0.3), ("offscreen", 0.5))
        }
        point = choose(detections(peaks))
        assert point is not None

        def accuracy(at: float, peaks: dict[str, list[float]] = peaks) -> float:
            shares = {kind: np.mean(np.array(values) >= at) for kind, values in peaks.items()}
            return float(shares["positive"] + 1 - (shares["silence"] + shares["noise"] + shares["offscreen"]) / 3) / 2

        def dark(at: float, peaks: dict[str, list[float]] = peaks) -> bool:
            return all(np.mean(np.array(peaks[kind]) >= at) <= 0.01 for kind in ("silence", "noise"))

        assert dark(point.threshold) and accuracy(point.threshold) == pytest.approx(point.accuracies["peak"])
        assert point.accuracies["peak"] >= max(accuracy(at) for at in np.linspace(0, 1.01, 203) if dark(at)) - 1e-9


def test_nothing_sounds_in_noise_even_where_that_costs_detections() -> None:
    peaks = {"positive": [0.9, 0.5, 0.5, 0.5], "noise": [0.6, 0.1, 0.1, 0.1], "offscreen": [0.1]}
    point = choose(detections(peaks, sounding=0.5))
    assert point is not None and point.threshold == pytest.approx(0.75)  # 0.3 would detect all, and light a noise
    deaf = choose(detections({"positive": [0.5], "noise": [0.9]}))
    assert deaf is not None and deaf.threshold > 0.9 and deaf.accuracies["peak"] == 0.5


def test_without_positives_or_negatives_there_is_no_threshold() -> None:
    assert choose(Detections()) is None
    assert choose(detections({"positive": [0.5]})) is None
    assert choose(detections({"noise": [0.5]})) is None


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(DataError, match=r"item x .* noise sound"):
        Detections().add("noise", "x", ["v"], float("nan"), [0.5])
