"""Runs in MLflow: what is logged where, and that a broken store costs nothing but a warning."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dsol_core.config import Compute
from tasks.adapters import tables, tracking
from tasks.adapters.steps import Run
from tasks.adapters.tracking import StepTrack, Tracker, flatten

CONFIG = {"epochs": 2, "audio": {"hop": 160, "log": "natural"}, "sizes": [1, 2], "none": None}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One pipeline run in an embedded store; making the database takes seconds, so the tests share it."""
    store = tmp_path_factory.mktemp("store")
    made = Tracker(f"sqlite:///{store}/mlflow.db", "dsol")
    made.start("test run", {"preset": "smoke"}, {"stage_one": CONFIG, "long": "x" * 7000})
    return made


def record(fingerprint: str = "0123456789abcdef") -> dict:
    return {
        "step": "train_stage_one",
        "fingerprint": fingerprint,
        "config": CONFIG,
        "seed": 3,
        "compute": {"workers": 1},
        "rows": {"read": 10, "written": 8, "dropped": {"no audio stream": 2}},
        "metrics": {"ciou@0.3": 0.5},
        "notes": {"device": "cpu"},
        "parents": {
            "shards": {"step": "write_shards", "fingerprint": "f" * 16, "content": "c" * 16},
            "stage_one": {"step": "train_stage_one", "fingerprint": "e" * 16, "content": "d" * 16},
        },
        "provenance": {"commit": "abc", "dirty": False},
        "seconds": 1.5,
        "peak_memory_bytes": 1000,
    }


def artifact(folder: Path) -> Path:
    (folder / "pictures").mkdir(parents=True)
    tables.write_history(folder / "history.parquet", [{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 1.0}])
    (folder / "artifact.json").write_text("{}")
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "pictures" / "best.png").write_bytes(b"png")
    (folder / "solo-train-00000.tar").write_bytes(b"tar")
    (folder / "metrics.json").write_text(
        json.dumps({"demo-grid/auc": {"value": 0.3, "low": 0.2, "high": 0.4, "n": 9}, "demo-grid/nsa": {"value": None}})
    )
    return folder


def files(tracker: Tracker, run_id: str, place: str | None = None) -> set[str]:
    return {one.path for one in tracker.client.list_artifacts(run_id, place)}


def test_a_pipeline_run_holds_its_tags_and_flat_parameters(tracker: Tracker) -> None:
    run = tracker.client.get_run(tracker.run_id)
    assert run.info.run_name == "test run"
    assert run.data.tags["preset"] == "smoke"
    assert run.data.params["stage_one.audio.hop"] == "160"
    assert run.data.params["stage_one.sizes"] == "[1, 2]"
    assert len(run.data.params["long"]) == 6000
    assert run.data.tags["dsol.params_cut"] == "1"


def test_a_step_is_a_child_run_with_everything_its_record_holds(tracker: Tracker, tmp_path: Path) -> None:
    track = tracker.step("train_stage_one")
    track.log_metrics(0, {"loss": 2.0})
    assert track.log_record(record(), artifact(tmp_path / "store" / "train_stage_one" / "0123")) is True

    run = tracker.client.get_run(track.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == tracker.run_id
    assert run.data.tags["dsol.fingerprint"] == "0123456789abcdef"
    assert run.data.tags["dsol.device"] == "cpu"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"
    assert run.data.params["audio.hop"] == "160" and run.data.params["seed"] == "3"
    assert run.data.params["compute.workers"] == "1"
    expected = {"rows_read": 10, "rows_written": 8, "rows_dropped/no audio stream": 2, "seconds": 1.5}
    expected |= {"peak_memory_bytes": 1000, "ciou_at_0.3": 0.5, "demo-grid/auc": 0.3, "demo-grid/auc.low": 0.2}
    assert expected.items() <= run.data.metrics.items()
    assert "demo-grid/nsa" not in run.data.metrics


def test_an_epoch_logged_live_is_not_logged_again_from_the_history(tracker: Tracker, tmp_path: Path) -> None:
    track = tracker.step("train_stage_one")
    track.log_metrics(0, {"loss": 2.0})
    track.log_record(record(), artifact(tmp_path / "a"))
    points = tracker.client.get_metric_history(track.run_id, "loss")
    assert sorted((one.step, one.value) for one in points) == [(0, 2.0), (1, 1.0)]


def test_only_data_parents_are_dataset_inputs_and_carry_their_fingerprint(tracker: Tracker, tmp_path: Path) -> None:
    track = tracker.step("train_stage_one")
    told = record()
    told["parents"]["shards"]["fingerprint"] = "a" * 16
    track.log_record(told, artifact(tmp_path / "store" / "train_stage_one" / "0123"))
    (data,) = tracker.client.get_run(track.run_id).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("write_shards", "a" * 16)
    assert json.loads(data.dataset.source)["uri"] == str(tmp_path / "store" / "write_shards" / ("a" * 16))
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "shards")]


def test_pictures_and_reports_are_uploaded_and_large_or_binary_files_counted(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"x" * 5000)
    monkeypatch.setattr(tracking, "UPLOAD_LIMIT", 4999)
    track = tracker.step("train_stage_one")
    track.log_record(record(), folder)
    assert {"artifact.json", "report.html", "history.parquet", "metrics.json"} <= files(tracker, track.run_id)
    assert files(tracker, track.run_id, "pictures") == {"pictures/best.png"}
    assert not {"model.safetensors", "solo-train-00000.tar"} & files(tracker, track.run_id)
    assert tracker.client.get_run(track.run_id).data.tags["dsol.files_not_uploaded"] == "2"


def test_two_thousand_points_and_odd_names_and_values_are_accepted(tracker: Tracker) -> None:
    track = tracker.step("train_stage_one")
    points = [("loss of käse: 50%@3", epoch, float(epoch)) for epoch in range(2100)]
    tracker.log_points(track.run_id, [*points, ("bad", 0, float("nan"))])
    history = tracker.client.get_metric_history(track.run_id, "loss of käse_ 50__at_3")
    assert len(history) == 2100
    assert "bad" in tracker.client.get_run(track.run_id).data.metrics


def test_a_failed_step_says_why(tracker: Tracker) -> None:
    track = tracker.step("evaluate")
    track.fail("DataError: no scenes")
    run = tracker.client.get_run(track.run_id)
    assert (run.info.status, run.data.tags["dsol.error"]) == ("FAILED", "DataError: no scenes")


def test_finish_logs_the_summary_and_closes_the_run(tracker: Tracker) -> None:
    other = Tracker(tracker.uri, "dsol")
    other.start("second")
    other.finish({"metrics": {"demo-grid/auc": {"value": 0.4}}, "startup_seconds": {"mlflow": 3.0}}, "stopped")
    run = other.client.get_run(other.run_id)
    assert (run.info.status, run.data.tags["dsol.error"]) == ("FAILED", "stopped")
    assert run.data.metrics == {"demo-grid/auc": 0.4, "startup_seconds/mlflow": 3.0}
    assert files(other, other.run_id) == {"run.json"}


def test_runs_of_a_killed_process_are_closed_by_the_next_start(tracker: Tracker) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    tags = {"dsol.process": f"{socket.gethostname()}:{dead.pid}"}
    left = tracker.client.create_run(tracker.experiment_id, tags=tags).info.run_id
    Tracker(tracker.uri, "dsol").start("next")
    assert tracker.client.get_run(left).info.status == "KILLED"
    assert tracker.client.get_run(tracker.run_id).info.status == "RUNNING"


def test_artifacts_follow_a_store_that_was_moved(tracker: Tracker, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    old = Path(tracker.uri.removeprefix("sqlite:///"))
    (moved / "mlflow.db").write_bytes(old.read_bytes())
    other = Tracker(f"sqlite:///{moved}/mlflow.db", "dsol")
    other.start("after the move")
    other.finish({})
    assert list((moved / "mlflow-artifacts").rglob("run.json"))


def test_a_relative_address_is_the_same_experiment_in_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    numbers = set()
    for uri in ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db", f"sqlite:///{tmp_path}/runs/mlflow.db"):
        one = Tracker(uri, "dsol")
        one.start("again")
        numbers.add(one.experiment_id)
        one.finish({})
    assert len(numbers) == 1


def test_a_server_that_is_down_costs_one_warning_and_no_artifact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    down = Tracker(f"http://user:secret@127.0.0.1:{port}", "dsol")
    with caplog.at_level(logging.WARNING):
        assert down.start("x") is None
        track = down.step("train_stage_one")
        track.log_metrics(0, {"loss": 1.0})
        assert track.log_record(record(), artifact(tmp_path / "a")) is False
        track.fail("x")
        down.finish({})
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "the pipeline is not tracked" in warnings[0] and "secret" not in warnings[0]
    assert down.untracked == ["the pipeline", "train_stage_one"]
    assert track.tracked is False


def test_a_store_that_breaks_in_the_middle_loses_one_step_and_not_the_next(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Tracker(tracker.uri, "dsol")
    other.start("breaks")
    track = other.step("train_stage_one")

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(type(other.client), "log_batch", broken)
        track.log_metrics(0, {"loss": 1.0})
        assert track.tracked is False
        assert track.log_record(record(), artifact(tmp_path / "a")) is False
    again = other.step("build_dictionary")
    assert again.log_record(record(), artifact(tmp_path / "b")) is True
    assert other.untracked == ["train_stage_one"]


def test_nothing_happens_before_the_first_use(tmp_path: Path) -> None:
    code = (
        "import sys, os; from tasks.adapters.tracking import Tracker;"
        f"Tracker('sqlite:///{tmp_path}/mlflow.db', 'dsol');"
        "print('mlflow' in sys.modules, os.environ.get('MLFLOW_DISABLE_TELEMETRY'), os.listdir('.'))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    env["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False None []"


def test_flatten_keeps_texts_and_writes_the_rest_as_json() -> None:
    assert flatten(CONFIG) == {
        "epochs": "2",
        "audio.hop": "160",
        "audio.log": "natural",
        "sizes": "[1, 2]",
        "none": "null",
    }


def test_a_track_without_a_run_is_not_tracked(tracker: Tracker) -> None:
    assert StepTrack(tracker, "evaluate").tracked is False


def test_what_could_not_be_logged_is_logged_by_the_next_run(tracker: Tracker, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = Tracker(f"http://127.0.0.1:{free.getsockname()[1]}", "dsol")

    def walk(to: Tracker) -> list[tuple[str, str]]:
        run = Run(tmp_path, compute=Compute(workers=0), tracking=lambda: to)
        made = run.step("mix_scenes", {"count": 3}, {}, lambda out: out.metrics({"count": 3}))
        kept = run.cache("class_count", {}, {}, lambda out: out.metrics({"count": 3}), module="tasks.index_clips")
        assert {made.state, kept.state} == ({"ran"} if to is down else {"reused"})
        return [(one.step, one.fingerprint) for one in (made, kept)]

    marks = walk(down)
    owed = [tmp_path / step / f".untracked-{mark}" for step, mark in marks]
    assert all(one.exists() for one in owed) and down.untracked
    up = Tracker(tracker.uri, "dsol")
    up.start("late")
    for _ in range(2):
        walk(up)
    assert not any(one.exists() for one in owed)
    for _, mark in marks:
        wanted = f"tags.`dsol.fingerprint` = '{mark}' AND attributes.status = 'FINISHED'"
        (late,) = up.client.search_runs([up.experiment_id], wanted)
        assert late.data.metrics["count"] == 3
