"""The command line without a pipeline: tables, exit status, JSON on standard output only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import cli
from tasks.adapters.steps import STEPS, Run, StepOutput

runner = CliRunner()


def make(store: Path) -> str:
    def write(out: StepOutput) -> None:
        (out.folder / "x").write_text("x")
        out.rows(read=5, written=4, dropped={"odd": 1})

    run = Run.local(store)
    made = run.step("make_videos", {}, {}, write)
    run.finish()
    return made.fingerprint


def test_steps_tells_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    mark = make(tmp_path)
    answer = json.loads(runner.invoke(cli.app, ["steps", "--store", str(tmp_path), "--json"]).stdout)
    first = answer["steps"][0]
    assert (first["step"], first["state"], first["fingerprint"]) == ("make_videos", "current", mark)
    assert (first["rows"], first["dropped"]) == (4, 1)
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
    ],
)
def test_wrong_words_are_refused_before_prefect_starts(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_call_flow", lambda *_: pytest.fail("the flow was called"))
    answer = runner.invoke(cli.app, [*words, "--store", str(tmp_path / "store")])
    assert answer.exit_code == 2 and said in answer.stderr.replace("\n", "")


def test_presets_are_listed() -> None:
    known = json.loads(runner.invoke(cli.app, ["presets", "--json"]).stdout)
    assert {"demo", "smoke", "real_av", "folders", "music_paper", "music_ours"} <= set(known["presets"])
    assert known["recipes"] == ["class_tokens", "ez_vsl", "ours", "paper", "paper_fixed"]


def test_doctor_answers_as_json(tmp_path: Path) -> None:
    answer = runner.invoke(cli.app, ["doctor", "--store", str(tmp_path), "--json"])
    checks = json.loads(answer.stdout)["checks"]
    assert {"ffmpeg", "torch", "ray", "mlflow", "prefect"} <= {one["name"] for one in checks}
    assert answer.exit_code == (1 if any(one["state"] == "broken" for one in checks) else 0)
