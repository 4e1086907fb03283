"""The whole pipeline through the command line: run, rerun, rerun one step, kill and resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters.steps import STEPS
from tests.flows.servers import BIN, ROOT, dsol, get, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["state"] for one in summary["steps"]}


def test_every_step_ran_and_left_its_record(smoke: dict[str, Any]) -> None:
    assert states(smoke) == dict.fromkeys(STEPS, "ran")
    for one in smoke["steps"]:
        folder = Path(smoke["store"]) / one["name"] / one["fingerprint"]
        record = json.loads((folder / "artifact.json").read_text())
        assert record["rows"]["read"] >= record["rows"]["written"] > 0, one["name"]
        assert record["provenance"]["python"]
        assert {"config", "seed", "parents", "seconds", "peak_memory_bytes"} <= set(record)
        for name in record["files"]:
            assert (folder / name).is_file()


def test_the_summary_holds_what_a_program_needs(smoke: dict[str, Any]) -> None:
    assert Path(smoke["report"]).is_file() and Path(smoke["report"]).suffix == ".html"
    assert smoke["model"] == "models:/dsol-smoke/1"
    for subset, metrics in {
        "solo": ("iou@0.5", "auc", "nmi"),
        "grid": ("ciou@0.3", "auc", "nsa", "sciou@0.3", "sauc", "silent_nsa", "audio_top2", "sounding_top2"),
        "free": ("ciou@0.3", "auc", "nsa", "sciou@0.3", "sauc", "silent_nsa", "audio_top2", "sounding_top2"),
    }.items():
        for metric in metrics:
            one = smoke["metrics"][f"smoke-{subset}/{metric}"]
            assert 0 <= one["value"] <= 1 and one["n"] > 0, (subset, metric)


def test_the_losses_fell(smoke: dict[str, Any]) -> None:
    from tasks.adapters import tables

    mark = next(one["fingerprint"] for one in smoke["steps"] if one["name"] == "train_stage_one")
    rows = list(tables.read(Path(smoke["store"]) / "train_stage_one" / mark / "history.parquet"))
    matching = [row["value"] for row in rows if row["name"] == "matching"]
    assert len(matching) == 3 and matching[-1] < matching[0]


def test_mlflow_holds_a_run_per_step_under_one_parent(smoke: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{smoke['store']}/mlflow.db")
    experiment = client.get_experiment_by_name("dsol")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.info.run_name for run in children} >= set(STEPS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    training = next(run for run in children if run.info.run_name == "train_stage_one")
    points = client.get_metric_history(training.info.run_id, "matching")
    assert sorted({point.step for point in points}) == [0, 1, 2]
    assert client.get_model_version_by_alias("dsol-smoke", "champion").version == 1
    assert (smoke["alias"]["name"], smoke["alias"]["moved"]) == ("champion", True) and smoke["alias"]["reason"]


def test_the_page_of_gates_repeats_what_validation_says_at_the_gate_of_the_run(
    smoke: dict[str, Any], quiet_environment: dict[str, str], tmp_path: Path
) -> None:
    mark = next(one["fingerprint"] for one in smoke["steps"] if one["name"] == "evaluate")
    read = ["--temperatures", "0.05", "0.2", "--backgrounds", "0.2", "--midpoints", "0.15"]
    words = ["--store", smoke["store"], "--evaluate", mark, *read]
    command = [str(BIN / "python"), str(ROOT / "benchmarks" / "gate.py"), *words, "--out", str(tmp_path / "gate.md")]
    subprocess.run(command, env=quiet_environment, cwd=ROOT, check=True, capture_output=True, timeout=300)
    lines = (tmp_path / "gate.md").read_text().splitlines()
    head = next(one for one in lines if one.startswith("| map temperature ")).strip("| ").split(" | ")
    rows = [dict(zip(head, one.strip("| ").split(" | "), strict=True)) for one in lines if one.startswith("| 0.")]
    assert [one.pop("map temperature") for one in rows] == ["0.05", "0.2"] and rows[0] != rows[1]
    measured = json.loads((Path(smoke["store"]) / "evaluate" / mark / "validation.json").read_text())
    for name in ("ciou@0.3", "sciou@0.3", "sauc", "silent_nsa", "audio_top2", "sounding_top2"):
        assert float(rows[1][name]) == pytest.approx(measured[f"smoke-grid/{name}"]["value"], abs=0.01), name


def test_a_second_run_does_nothing_but_say_so_in_prefect_too(
    smoke: dict[str, Any], prefect_server: dict[str, str]
) -> None:
    again = dsol("run", "smoke", "--store", smoke["store"], env=prefect_server)
    assert states(again) == dict.fromkeys(STEPS, "reused")
    assert again["metrics"] == smoke["metrics"] and again["model"] == smoke["model"]
    api = prefect_server["PREFECT_API_URL"]

    def names(flow_run: str) -> list[str]:
        runs = get(f"{api}/task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [flow_run]}}})
        return [run["state_name"] for run in runs]

    def all_recorded() -> bool:  # the server writes task runs down from events, a moment later
        done = {"name": {"any_": ["reproduce"]}}, {"state": {"type": {"any_": ["COMPLETED"]}}}
        runs = get(f"{api}/flow_runs/filter", dict(zip(("flows", "flow_runs"), done, strict=True)))
        return any(names(run["id"]) == ["Reused"] * len(STEPS) for run in runs)

    wait_for(all_recorded, 60, describe="the record of eleven reused steps")


def test_one_changed_value_reruns_its_step_and_those_below(
    smoke: dict[str, Any], quiet_environment: dict[str, str]
) -> None:
    changed = dsol(
        "run", "smoke", "--store", smoke["store"], "--set", "evaluation.bootstrap=100", env=quiet_environment
    )
    expected = dict.fromkeys(STEPS, "reused") | {"evaluate": "ran", "register_model": "ran"}
    assert states(changed) == expected
    assert changed["model"] == "models:/dsol-smoke/2"


def test_force_and_only(smoke: dict[str, Any], quiet_environment: dict[str, str]) -> None:
    store = smoke["store"]
    forced = dsol(
        "run", "smoke", "--store", store, "--only", "mix_scenes", "--force", "mix_scenes", env=quiet_environment
    )
    place = STEPS.index("mix_scenes")
    expected = (
        dict.fromkeys(STEPS[:place], "reused") | {"mix_scenes": "ran"} | dict.fromkeys(STEPS[place + 1 :], "skipped")
    )
    assert states(forced) == expected


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run", "smoke", "--only", "evaluate", "--set", "stage_one.epochs=9"], 1, "needs train_stage_one"),
        (["run", "smoke", "--only", "train"], 2, "there is no step 'train'"),
        (["run", "smkoe"], 2, "there is no preset 'smkoe'"),
        (["run", "folders"], 2, "give --solo FOLDER"),
    ],
)
def test_refusals_are_clear(
    smoke: dict[str, Any], quiet_environment: dict[str, str], words: list[str], status: int, said: str
) -> None:
    command = [BIN / "dsol", *words, "--store", smoke["store"], "--json"]
    answer = subprocess.run(command, cwd=ROOT, env=quiet_environment, capture_output=True, text=True, check=False)
    assert answer.returncode == status, answer.stderr
    assert said in json.loads(answer.stdout)["error"]


def test_a_killed_training_continues_from_its_checkpoint(
    smoke: dict[str, Any], quiet_environment: dict[str, str]
) -> None:
    store = Path(smoke["store"])
    words = [
        "run",
        "smoke",
        "--store",
        str(store),
        "--seed",
        "5",
        "--set",
        "stage_one.epochs=6",
        "--only",
        "train_stage_one",
    ]
    process = subprocess.Popen(
        [BIN / "dsol", *words], cwd=ROOT, env=quiet_environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def three_checkpoints() -> bool:
        return len(list((store / "train_stage_one").glob(".work-*/stage-one/epoch-*"))) >= 2

    wait_for(three_checkpoints, 240, every=0.2, describe="the second checkpoint")
    time.sleep(1.0)  # a report made just before a crash may be lost
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not _orphans(str(store)), 60, describe="the end of all that the killed run had started")
    assert len(list((store / "train_stage_one").glob("[0-9a-f]*"))) == 1, "nothing half-made is published"

    done = dsol(*words, env=quiet_environment)
    assert states(done)["train_stage_one"] == "ran"
    folder = store / "train_stage_one" / next(s["fingerprint"] for s in done["steps"] if s["name"] == "train_stage_one")
    assert json.loads((folder / "artifact.json").read_text())["notes"]["resumed_at_epoch"] >= 1
    from tasks.adapters import tables

    assert {row["epoch"] for row in tables.read(folder / "history.parquet")} == set(range(6))


def _orphans(mark: str) -> list[str]:
    """Processes of a killed run: they have its store or its Prefect home in their environment or command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(entry.name)
        except (OSError, ValueError):  # it ended meanwhile
            continue
    return found


@pytest.mark.slow
def test_equal_inputs_and_seeds_give_equal_bytes(
    smoke: dict[str, Any], tmp_path: Path, quiet_environment: dict[str, str]
) -> None:
    again = dsol("run", "smoke", "--store", str(tmp_path / "store"), env=quiet_environment)
    assert states(again) == dict.fromkeys(STEPS, "ran")
    # The report tells the seconds and memory of its run, and what is registered contains it.
    for one, two in list(zip(smoke["steps"], again["steps"], strict=True))[:-1]:
        assert one["fingerprint"] == two["fingerprint"], one["name"]  # of configuration, code and content of parents
        hashes = [
            {name: facts["sha256"] for name, facts in record(summary, made)["files"].items() if name != "report.html"}
            for summary, made in ((smoke, one), (again, two))
        ]
        assert hashes[0] == hashes[1], one["name"]


def record(summary: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    folder = Path(summary["store"]) / step["name"] / step["fingerprint"]
    return dict(json.loads((folder / "artifact.json").read_text()))


@pytest.mark.slow
def test_the_number_of_classes_is_estimated_and_trained_with(
    smoke: dict[str, Any], tmp_path: Path, quiet_environment: dict[str, str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(smoke["store"], store)
    counted = dsol("classes", "smoke", "--store", str(store), env=quiet_environment)
    assert set(states(counted).values()) == {"reused"}
    found = counted["classes"]
    assert found["best"] in found["plausible"] and set(found["plausible"]) <= set(found["candidates"])
    assert len(found["separation"]) == len(found["candidates"]) and found["units"] >= 4 * max(found["candidates"])
    words = ("--set", "stage_one.clusters=auto", "--only", "train_stage_one")
    trained = dsol("run", "smoke", "--store", str(store), *words, env=quiet_environment)
    mark = next(one["fingerprint"] for one in trained["steps"] if one["name"] == "train_stage_one")
    record = json.loads((store / "train_stage_one" / mark / "artifact.json").read_text())
    assert record["config"]["stage_one"]["clusters"] == trained["classes"] == found["best"]
    assert len(list(store.glob("class_count/*/artifact.json"))) == 1, "the training used the estimate that was there"
