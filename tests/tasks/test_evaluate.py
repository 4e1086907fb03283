from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dsol_core.operating import OperatingPoint
from dsol_core.types import DataError, Estimate
from tasks.adapters import report_rules, tables
from tasks.adapters.steps import Run
from tasks.adapters.store import Artifact
from tasks.evaluate import evaluate, read_frame
from tests.tasks.evaluated import CATEGORIES, EXPERIMENT, World, make

RATES = {
    "toy-negatives/detected",
    "toy-negatives/false_alarm_silence",
    "toy-negatives/false_alarm_noise",
    "toy-negatives/false_alarm_offscreen",
}


def run(root: Path, world: World) -> Artifact:
    return evaluate.fn(
        Run.local(root),
        world.predictions,
        world.data,
        world.stage_one,
        world.dictionary,
        world.stage_two,
        EXPERIMENT,
    )


def load(artifact: Artifact, name: str) -> Any:
    return json.loads(artifact.file(name).read_text())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("store")
    return run(root, make(root))


def test_every_metric_of_every_benchmark_has_value_interval_and_count(report: Artifact) -> None:
    found = load(report, "metrics.json")
    scene = {"ciou@0.3", "auc", "nsa", "sciou@0.3", "sauc", "snsa", "silent_nsa", "audio_top2", "sounding_top2"}
    bare = {"agreement", "heard", "evenness"}
    expected = {f"toy-{subset}/{name}" for subset in ("grid", "free") for name in scene | bare}
    expected |= {f"toy-solo/{name}" for name in {"iou@0.5", "auc", "audio_top1", "nmi", "purity"} | bare}
    for mode in ("reference", "correct"):
        expected |= {f"toy-{s}.{mode}/{name}" for s in ("grid", "free") for name in ("ciou@0.3", "auc", "nsa")}
        expected |= {f"toy-solo.{mode}/{name}" for name in ("iou@0.5", "auc")}
    expected |= RATES
    assert set(found) == expected
    for one in found.values():
        assert set(one) == {"value", "low", "high", "n"}
        assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
    assert {found[name]["n"] for name in ("toy-solo/iou@0.5", "toy-grid/nsa")} == {12}
    assert found["toy-solo/nmi"]["n"] == 40
    assert load(report, "left_out.json") == []
    assert report.record["metrics"]["toy-grid/ciou@0.3"] == found["toy-grid/ciou@0.3"]["value"]


def test_validation_frames_are_kept_apart(report: Artifact) -> None:
    test, validation = load(report, "metrics.json"), load(report, "validation.json")
    ruled = {name for name in test if ".reference/" in name or ".correct/" in name}
    threshold = {"toy-negatives/threshold.sounding"}
    assert set(validation) == set(test) - {"toy-solo/nmi", "toy-solo/purity"} - ruled | threshold
    rows = [row for row in tables.read(report.file("items.parquet")) if row["subset"] == "free"]
    for split, found in (("test", test), ("val", validation)):
        values = [row["ciou"] for row in rows if row["split"] == split]
        assert found["toy-free/ciou@0.3"]["value"] == pytest.approx(np.mean([v >= 0.3 for v in values]))
        assert len(values) == 12


def test_the_old_metrics_have_the_values_they_had_before_rules_and_negatives_came(report: Artifact) -> None:
    found = {name: one["value"] for name, one in load(report, "metrics.json").items()}
    known = {
        "toy-solo/iou@0.5": 0.75,
        "toy-solo/auc": 0.7458333333333335,
        "toy-grid/ciou@0.3": 1.0,
        "toy-grid/auc": 0.48333333333333345,
        "toy-grid/sciou@0.3": 0.5833333333333334,
        "toy-free/ciou@0.3": 0.8333333333333334,
        "toy-free/sauc": 0.42916666666666675,
        "toy-free/silent_nsa": 0.8984,
        "toy-free/snsa": 0.91204833984375,
        "toy-solo/nmi": 0.9521599607770143,
    }
    assert {name: found[name] for name in known} == pytest.approx(known, abs=1e-9)


def test_negatives_do_not_touch_other_metrics(report: Artifact, tmp_path: Path) -> None:
    world = make(tmp_path)
    (world.predictions.folder / "negatives.parquet").unlink()
    bare, full = run(tmp_path, world), load(report, "metrics.json")
    assert load(bare, "metrics.json") == {name: one for name, one in full.items() if name not in RATES}
    assert [one["metric"] for one in load(bare, "left_out.json")] == ["toy-negatives/*"]
    assert "Negative audio" not in bare.file("report.html").read_text()


def test_own_frames_are_scored_under_the_published_evaluators_rules(report: Artifact) -> None:
    found = {name: one["value"] for name, one in load(report, "metrics.json").items()}
    # A solo's box is a quarter of the frame and lit at 0.5 to 0.9, the rest at up to 0.15: DSOL's level of 0.1 of the
    # maximum takes nearly all of it, and IoU is close to 1/4; half of the maximum takes the box alone.
    assert found["toy-solo.reference/iou@0.5"] == 0
    assert found["toy-solo.reference/auc"] == pytest.approx(0.05 * 5.5)  # successes at 0, 0.05 ... 0.25
    for name in ("solo.correct/iou@0.5", "grid.correct/ciou@0.3", "free.correct/ciou@0.3", "free.correct/nsa"):
        assert found[f"toy-{name}"] == pytest.approx(found[f"toy-{name.replace('.correct', '')}"], abs=1e-9)
    html = report.file("report.html").read_text()
    page = html[html.index('id="rules"') :]
    assert "relative &gt; 0.2" in page and "nsa_channels" in page and "toy-free" in page


def test_a_threshold_close_to_one_keeps_its_digits() -> None:
    point = OperatingPoint("peak", 0.99987, {"peak": 0.9, "sounding": 0.8}, 4)
    one = Estimate(1.0, 1.0, 1.0, 4)
    told = SimpleNamespace(name="toy", point=point, metrics={"toy-negatives/detected": one}, validation={})
    assert "is at least <b>0.99987</b>" in report_rules.negatives(cast(Any, told))


def test_rates_of_negative_audio_by_hand(report: Artifact) -> None:
    test, validation = load(report, "metrics.json"), load(report, "validation.json")
    at = validation["toy-negatives/threshold.sounding"]
    assert at["value"] == at["low"] == at["high"] and at["n"] == 4 * 24
    assert 0.2 < at["value"] < 0.99  # every fourth off-screen sound says 0.99, the others 0.2
    for found in (test, validation):
        assert found["toy-negatives/false_alarm_silence"]["value"] == 0
        assert found["toy-negatives/false_alarm_noise"]["value"] == 0
        assert found["toy-negatives/false_alarm_offscreen"]["value"] == 0.25
        assert {found[name]["n"] for name in RATES} == {24}
    predictions = Path(report.folder).parents[1] / "predict_maps" / "0123456789abcdef" / "predictions.parquet"
    rows = [row for row in tables.read(predictions) if row["subset"] != "solo" and row["split"] == "test"]
    expected = np.mean([max(row["sounding"]) >= at["value"] for row in rows])
    assert test["toy-negatives/detected"]["value"] == pytest.approx(expected)
    page = report.file("report.html").read_text()
    assert "Negative audio" in page and "the highest probability of an entry" in page
    assert "toy-negatives/false_alarm_noise" in report.file("report.md").read_text()


def test_baselines_are_listed_by_metric(report: Artifact) -> None:
    found = load(report, "baselines.json")
    assert set(found["toy-solo/iou@0.5"]) == {"uniform", "centre box", "visual only"}
    assert set(found["toy-grid/sciou@0.3"]) == {"uniform", "random quadrant", "visual only", "all boxes"}
    assert found["toy-solo/iou@0.5"]["centre box"]["value"] == 1  # the made-up solos are centred boxes
    assert found["toy-grid/audio_top2"]["uniform"]["value"] == pytest.approx(2 / len(CATEGORIES))
    assert found["toy-grid/silent_nsa"]["uniform"]["value"] == 0


def test_items_hold_one_row_a_frame(report: Artifact) -> None:
    rows = list(tables.read(report.file("items.parquet")))
    assert len(rows) == report.record["rows"]["written"] == 72
    first = next(row for row in rows if row["subset"] == "solo")
    assert first["ciou"] is None and 0 <= first["iou"] <= 1
    assert first["loudest"] in CATEGORIES


def test_equal_input_gives_equal_files(report: Artifact, tmp_path: Path) -> None:
    again = run(tmp_path, make(tmp_path))
    for name in report.files():
        assert again.file(name).read_bytes() == report.file(name).read_bytes(), name


def test_without_labels_it_measures_what_needs_none_and_says_what_is_missing(tmp_path: Path) -> None:
    made = run(tmp_path, make(tmp_path, labels=False, boxes=False, subsets=("solo", "multi")))
    bare = {"agreement", "heard", "evenness"}
    assert set(load(made, "metrics.json")) == {f"toy-{s}/{name}" for s in ("solo", "free") for name in bare} | RATES
    reasons = {one["metric"]: one["reason"] for one in load(made, "left_out.json")}
    assert reasons["toy-solo/nmi"] == "the training clips have no labels"
    assert reasons["toy-solo/iou@0.5"] == reasons["toy-solo.reference/*"] == "no boxes"
    assert "toy-free.correct/*" in reasons and "toy-grid.correct/*" not in reasons
    assert reasons["toy-negatives/false_alarm_offscreen"].startswith("12 of 12 off-screen sounds are only known")
    assert reasons["toy-grid/*"] == "no frames of it in the test split"
    assert {"toy-free/ciou@0.3", "toy-free/audio_top2", "toy-solo/centre box"} <= set(reasons)
    page = made.file("report.html").read_text()
    assert "Left out" in page and "the training clips have no labels" in page


def test_boxes_alone_give_the_solo_iou(tmp_path: Path) -> None:
    found = load(run(tmp_path, make(tmp_path, labels=False, subsets=("solo",))), "metrics.json")
    assert {"toy-solo/iou@0.5", "toy-solo/auc"} <= set(found)
    assert {"toy-solo.reference/iou@0.5", "toy-solo.correct/iou@0.5"} <= set(found)
    assert not {"toy-solo/audio_top1"} | RATES <= set(found)


def test_an_edit_of_thresholds_or_names_changes_the_fingerprint(tmp_path: Path, report: Artifact) -> None:
    from dataclasses import replace

    from tasks.adapters.fingerprints import fingerprint

    configs = [
        {"evaluation": EXPERIMENT.evaluation, "name": "toy"},
        {"evaluation": replace(EXPERIMENT.evaluation, nsa_threshold=0.3), "name": "toy"},
        {"evaluation": EXPERIMENT.evaluation, "name": "other"},
    ]
    assert len({fingerprint("evaluate", config, {}) for config in configs}) == 3
    assert report.record["config"]["multi"] == "free"


def test_broken_predictions_are_named(tmp_path: Path) -> None:
    row: dict[str, Any] = {"item": "x", "agnostic": [0.0] * 4, "boxes": [], "categories": []}
    row |= {"sounding": [0.5, 0.5], "heard": [0.5, 0.5]}
    fine = read_frame({**row, "maps": [0.0] * 8, "visual": [0.0] * 8})
    assert fine.answer.maps.shape == (2, 2, 2)
    with pytest.raises(DataError, match=r"item x.*no square maps"):
        read_frame({**row, "maps": [0.0] * 7, "visual": [0.0] * 8})
    with pytest.raises(DataError, match=r"item x.*not finite"):
        read_frame({**row, "maps": [0.0] * 8, "visual": [0.0] * 8, "heard": [0.5, float("nan")]})
    with pytest.raises(DataError, match=r"item x.*not finite"):
        read_frame({**row, "maps": [float("nan")] * 8, "visual": [0.0] * 8})
    world = make(tmp_path)
    tables.write(world.predictions.folder / "predictions.parquet", "predictions", [])
    with pytest.raises(DataError, match="empty"):
        run(tmp_path, world)
