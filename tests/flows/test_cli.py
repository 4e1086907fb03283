"""The command line without a pipeline: tables, exit status, JSON on standard output only."""

from __future__ import annotations

import json
import logging
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsol_core.config import Compute
from dsol_core.types import DsolError
from flows import cli, cli_classes, cli_compare, environment, session
from flows.compare import compare
from flows.reproduce import reproduce
from tasks import doctor
from tasks.adapters.steps import STEPS, Run, StepOutput

runner = CliRunner()


def make(store: Path) -> str:
    def write(out: StepOutput) -> None:
        (out.folder / "x").write_text("x")
        out.rows(read=5, written=4, dropped={"odd": 1})

    run = Run.local(store)
    made = run.step("make_videos", {}, {}, write)
    run.cache("trunk_features", {}, {}, write, module="tasks.adapters.steps")
    run.finish()
    return made.fingerprint


def test_steps_tells_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    mark = make(tmp_path)
    answer = json.loads(runner.invoke(cli.app, ["steps", "--store", str(tmp_path), "--json"]).stdout)
    first = answer["steps"][0]
    assert (first["step"], first["state"], first["fingerprint"]) == ("make_videos", "current", mark)
    assert (first["rows"], first["dropped"]) == (4, 1)
    assert [one["step"] for one in answer["steps"] if one["state"] == "cache"] == ["trunk_features"]
    assert [one["step"] for one in answer["steps"] if one["state"] == "missing"] == list(STEPS[1:])
    table = runner.invoke(cli.app, ["steps", "--store", str(tmp_path)]).stdout
    assert mark in table and "missing" in table


def test_steps_of_an_empty_store(tmp_path: Path) -> None:
    answer = json.loads(runner.invoke(cli.app, ["steps", "--store", str(tmp_path / "none"), "--json"]).stdout)
    assert {one["state"] for one in answer["steps"]} == {"missing"}


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "demo", "--workers", "0"],
        ["run", "smoke", "--precision", "fp16"],
        ["nonsense"],
        ["steps", "--store"],
    ],
)
def test_wrong_use_is_exit_status_2(words: list[str]) -> None:
    assert runner.invoke(cli.app, words).exit_code == 2


def test_a_setting_must_be_key_and_value() -> None:
    answer = runner.invoke(cli.app, ["run", "demo", "--set", "stage_one.epochs"])
    assert answer.exit_code == 2
    assert "--set" in answer.stderr and "such as" in answer.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "smoke", "--set", "stage_two.test_scal=1"], "test_scal"),
        (["run", "smkoe"], "there is no preset 'smkoe'"),
        (["run", "smoke", "--only", "train"], "there is no step 'train'"),
        (["classes", "smkoe"], "there is no preset 'smkoe'"),
        (["classes", "--set", "stage_two.test_scal=1"], "test_scal"),
        (["run", "folders"], "give --solo FOLDER"),
        (["run", "folders", "--solo", "nowhere"], "nowhere (--solo) is not a folder"),
        (["run", "folders", "--solo", "solo", "--multi", "solo/multi"], "lie one in the other"),
        (["run", "folders", "--solo", "solo/multi", "--multi", "solo/../solo"], "lie one in the other"),
        (["run", "real_av", "--data", "solo", "--solo", "solo"], "give --data FOLDER, without --solo and --multi"),
        (["classes"], "give --solo FOLDER"),
        (["compare", "folders"], "give --solo FOLDER"),
        (["compare", "smoke", "--workers", "3"], "3 workers cannot share evenly"),
        (["run", "smoke", "--workers", "3"], "3 workers cannot share evenly"),
        (["run", "smoke", "--store", "gs://bucket/x"], "of no known kind"),
        (["run", "smoke", "--store", "s3://"], "s3://"),
        (["run", "smoke", "--set", "data.seed=-1"], "data.seed is -1; expected 0 or more"),
        (["run", "smoke", "--set", "registry.model=team/dsol"], "registry.model is 'team/dsol'; expected a name"),
        (["compare", "smoke", "--out", "solo"], "expected a file for the page"),
        (["compare", "smoke", "--out", ""], "expected a file for the page"),
        (["compare", "smoke", "--out", "page.json"], "expected a file for the page"),
    ],
)
def test_wrong_words_are_refused_before_prefect_starts(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flow in ("reproduce", "count_classes", "compare"):
        monkeypatch.setitem(sys.modules, f"flows.{flow}", None)  # whoever starts the flow imports it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solo" / "multi").mkdir(parents=True)
    place = [] if "--store" in words else ["--store", str(tmp_path / "store")]
    answer = runner.invoke(cli.app, [*words, *place])
    assert answer.exit_code == 2 and said in answer.stderr.replace("\n", " ").replace("  ", " ")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("environment", "words", "said"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, [], "which does not answer"),
        ({"PREFECT_API_URL": "http://127.0.0.1:abc/api"}, [], "which does not answer"),
        (
            {},
            ["--set", "stage_one.backbone.visual_weights=typo.pth"],
            "backbone.visual_weights is 'typo.pth', not a file",
        ),
    ],
)
def test_what_is_not_there_is_told_before_prefect_starts(
    environment: dict[str, str], words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flows.reproduce", None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = runner.invoke(cli.app, ["run", "smoke", *words, "--store", str(tmp_path / "store"), "--json"])
    assert answer.exit_code == 1 and said in json.loads(answer.stdout)["error"]


def test_a_server_whose_certificate_only_prefect_trusts_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock: no server here has a certificate."""

    def refused(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("unknown issuer"))

    monkeypatch.setenv("PREFECT_API_URL", "https://127.0.0.1:4200/api")
    monkeypatch.setattr(urllib.request, "urlopen", refused)
    environment.check_server()


def test_names_are_written_as_they_are_read(tmp_path: Path) -> None:
    answer = runner.invoke(cli.app, ["name", str(tmp_path), "cello", "--json"])
    assert answer.exit_code == 2
    assert json.loads(answer.stdout)["error"] == "'cello' cannot be read; expected ENTRY=NAME, such as cluster-03=cello"


def test_own_errors_are_said_once_and_others_with_their_stack(capsys: pytest.CaptureFixture[str]) -> None:
    console = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(console)
    try:
        environment.say_own_errors_once()
        for error in (DsolError("ours"), ValueError("another's")):
            record = logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, str(error), (), (None, error, None))
            console.handle(record)
        console.handle(
            logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "Finished in state Failed()", (), None)
        )
        console.handle(logging.LogRecord("tasks.x", logging.WARNING, "", 0, "a warning of ours", (), None))
    finally:
        root.removeHandler(console)
    said = capsys.readouterr().err
    assert "another's" in said and "a warning of ours" in said
    assert "ours\n" not in said.replace("a warning of ours\n", "") and "Finished" not in said


def test_the_alias_is_told_where_it_moved_and_where_it_stayed(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"metrics": {}, "startup_seconds": {}, "classes": 2, "report": "r", "model": "models:/dsol/2"}
    for moved, said in ((True, "champion, since 0.9 is enough"), (False, "not champion: 0.9 is below 0.95")):
        reason = said.partition("since ")[2] or said.partition(": ")[2]
        alias = {"name": "champion", "moved": moved, "reason": reason}
        cli._show({**summary, "alias": alias, "tracking": None, "seconds": 1.0})
        assert f"alias    {said}\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["demo"], ["run", "demo"], ["compare", "demo"]])
def test_options_of_training_reach_the_flow(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def opened(name: str, experiment: Any, store: str, folders: Any, compute: Compute, *_: Any, **__: Any) -> None:
        called.update(store=store, compute=compute)
        raise DsolError("far enough")

    flows = {"reproduce": reproduce.fn, "compare": compare.fn}  # without Prefect
    monkeypatch.setattr(session, "opened", opened)
    monkeypatch.setattr(cli, "_call_flow", lambda name, given: flows[name](**given))
    options = ["--gpu", "--precision", "fp32", "--compile", "--workers", "2", "--address", "auto"]
    answer = runner.invoke(cli.app, [*words, *options, "--store", str(tmp_path)])
    assert answer.exit_code == 1 and "far enough" in answer.stderr
    assert called == {"store": str(tmp_path), "compute": Compute(2, "auto", True, "fp32", True)}


def test_presets_are_listed() -> None:
    known = json.loads(runner.invoke(cli.app, ["presets", "--json"]).stdout)
    assert {"demo", "smoke", "real_av", "folders", "music_paper", "music_ours"} <= set(known["presets"])
    assert known["recipes"] == ["class_tokens", "ez_vsl", "ours", "paper", "paper_fixed"]


def test_doctor_answers_as_json(tmp_path: Path) -> None:
    answer = runner.invoke(cli.app, ["doctor", "--store", str(tmp_path), "--json"])
    checks = json.loads(answer.stdout)["checks"]
    assert {"ffmpeg", "torch", "ray", "mlflow", "prefect"} <= {one["name"] for one in checks}
    assert answer.exit_code == (1 if any(one["state"] == "broken" for one in checks) else 0)


def test_doctor_writes_remedies_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [doctor.Check("ray", "note", "2.60", "pip install 'ray[train]>=2.60'")]
    monkeypatch.setattr(doctor, "check", lambda **_: found)
    assert "pip install 'ray[train]>=2.60'" in runner.invoke(cli.app, ["doctor", "--store", str(tmp_path)]).output


@pytest.mark.parametrize(("states", "status"), [(["ok", "note", "missing", "missing"], 0), (["missing", "broken"], 1)])
def test_doctor_counts_what_is_broken_apart_from_what_is_missing(
    states: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [doctor.Check(f"check {number}", state, "detail") for number, state in enumerate(states)]
    monkeypatch.setattr(doctor, "check", lambda **_: checks)
    answer = runner.invoke(cli.app, ["doctor", "--store", str(tmp_path), "--json"])
    said = json.loads(answer.stdout)
    assert (said["broken"], said["missing"]) == (states.count("broken"), states.count("missing"))
    assert answer.exit_code == status


def test_a_comparison_that_cannot_be_is_refused_before_a_flow_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flows.compare", None)  # whoever starts the flow imports it
    for words in (["--row", "a=ours", "--row", "a=paper"], ["--row", "ours,x"], ["--set", "data.sead=1"]):
        answer = runner.invoke(cli.app, ["compare", "smoke", *words])
        assert answer.exit_code == 2, (words, answer.output)


@pytest.mark.parametrize("count", [4, 20])
def test_a_comparison_in_a_pipe_is_not_cut(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["demo-negatives/false_alarm_off_screen", "demo-grid/ciou@0.3"]
    values = {key: {"value": 0.5, "low": 0.4, "high": 0.6} for key in keys}
    away = {key: {"value": -0.25, "low": -0.3, "high": -0.2} for key in keys}
    rows = {
        f"a-row-with-a-long-name-{number}": {"metrics": values, "differences": away if number else {}}
        for number in range(count)
    }
    cli_compare._show({"rows": rows, "page": None})
    out = capsys.readouterr().out
    assert all(word in out for word in (*rows, *keys)) and "…" not in out
    assert out.count("0.500") == out.count("0.600)") == 2 * count
    assert out.count("-0.250 (-0.300 to -0.200)") == 2 * (count - 1), "differences to the first row"


def test_the_curve_of_classes_in_a_pipe_is_one_line_a_candidate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # of the shell, which is not where the lines go
    found = {"candidates": [4, 5], "separation": [0.6, 0.5], "error": [0.01, 0.01], "agreement": [0.9, 0.8]}
    cli_classes._show({**found, "best": 4, "plausible": [4, 5], "units": 45})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("4 classes (5 would do), estimated from 45 training units; ")
    assert "more than 2 classes, give their number" in lines[-1]
    assert lines[1].split() == ["4", "0.600", "0.000", "+-", "0.010", "0.90", "<-", "chosen"]
    assert lines[2].split() == ["5", "0.500", "0.100", "+-", "0.010", "0.80", "as", "good"]


@pytest.mark.parametrize("package", ["tasks", "dsol_core"])
def test_a_foreign_package_of_the_same_name_is_named(package: str, tmp_path: Path) -> None:
    foreign = tmp_path / package / "__init__.py"
    foreign.parent.mkdir()
    foreign.touch()
    command = [sys.executable, "-c", "from flows.cli import main; main()", "presets"]  # finds what lies in its folder
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    answer = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert answer.returncode == 1 and not answer.stdout
    assert answer.stderr.startswith(f"error: Python finds the package {package!r} at {foreign}, not at ")
