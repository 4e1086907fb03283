"""Reuse, force, scope, record, and the order of things."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dsol_core.types import UsageError
from tasks.adapters.steps import Run, Scope, StepOutput, StepRefusedError
from tasks.adapters.store import Artifact, StoreError


def chain(run: Run, values: dict[str, int]) -> list[Artifact]:
    """Three steps, each of which writes its value behind its parent's content."""
    made: list[Artifact] = []
    for name in ("make_videos", "ingest_videos", "index_clips"):
        parents = {"parent": made[-1]} if made else {}

        def write(out: StepOutput, name: str = name, parents: dict[str, Artifact] = parents) -> None:
            before = parents["parent"].file("value").read_text() if parents else ""
            (out.folder / "value").write_text(f"{before}{name}={values[name]};")
            out.rows(read=3, written=2, dropped={"odd": 1})

        made.append(run.step(name, {"value": values[name]}, parents, write))
    return made


VALUES = {"make_videos": 1, "ingest_videos": 2, "index_clips": 3}


def states(tmp_path: Path, values: dict[str, int] = VALUES, **scope: object) -> list[str]:
    run = Run.local(tmp_path)
    run.scope = Scope(**scope)  # type: ignore[arg-type]
    return [one.state for one in chain(run, values)]


def test_a_second_run_reuses_everything(tmp_path: Path) -> None:
    assert states(tmp_path) == ["ran", "ran", "ran"]
    assert states(tmp_path) == ["reused", "reused", "reused"]


def test_a_changed_value_reruns_its_step_and_those_below(tmp_path: Path) -> None:
    states(tmp_path)
    assert states(tmp_path, {**VALUES, "ingest_videos": 5}) == ["reused", "ran", "ran"]
    assert states(tmp_path) == ["reused", "reused", "reused"], "going back needs no work"


def test_force_reruns_that_step_and_reuses_below_when_the_bytes_are_equal(tmp_path: Path) -> None:
    states(tmp_path)
    assert states(tmp_path, force=("ingest_videos",)) == ["reused", "ran", "reused"]


def test_only_builds_one_step_and_skips_what_follows(tmp_path: Path) -> None:
    assert states(tmp_path, only="make_videos") == ["ran", "skipped", "skipped"]
    assert states(tmp_path, only="ingest_videos") == ["reused", "ran", "skipped"]


@pytest.mark.parametrize("scope", [{"only": "index_clips"}, {"start": "index_clips"}])
def test_a_missing_parent_is_refused_with_the_remedy(tmp_path: Path, scope: dict[str, str]) -> None:
    with pytest.raises(StepRefusedError, match=r"needs make_videos [0-9a-f]{16}, which is not in .*Run without --"):
        states(tmp_path, **scope)


def test_from_reuses_above_and_runs_below(tmp_path: Path) -> None:
    states(tmp_path, only="make_videos")
    assert states(tmp_path, start="ingest_videos") == ["reused", "ran", "ran"]


def test_a_cache_is_forced_once_a_run_and_by_its_name(tmp_path: Path) -> None:
    built: list[str] = []

    def asked(times: int, **scope: object) -> None:
        run = Run.local(tmp_path)
        run.scope = Scope(**scope)  # type: ignore[arg-type]
        for _ in range(times):
            run.cache("trunk_features", {}, {}, lambda out: built.append(out.step), module="tasks.index_clips")

    asked(2)
    asked(1, only="train_stage_one")
    assert built == ["trunk_features"]
    asked(2, only="train_stage_one", force=("trunk_features",))
    assert len(built) == 2
    asked(1, force=("train_stage_one", "class_count"))
    assert len(built) == 2


def test_what_was_made_of_a_replaced_parent_is_not_kept(tmp_path: Path) -> None:
    def made(text: str) -> Callable[[StepOutput], None]:
        def write(out: StepOutput) -> None:
            (out.folder / "x").write_text(text)

        return write

    def read_while_replaced(out: StepOutput) -> None:
        other = Run.local(tmp_path)
        other.scope = Scope(force=("make_videos",))
        other.step("make_videos", {}, {}, made("new"))
        (out.folder / "y").write_text("of both")

    run = Run.local(tmp_path)
    parent = run.step("make_videos", {}, {}, made("old"))
    with pytest.raises(StoreError, match=r"ingest_videos read make_videos .* which another run replaced meanwhile"):
        run.step("ingest_videos", {}, {"media": parent}, read_while_replaced)
    again = Run.local(tmp_path)
    parent = again.step("make_videos", {}, {}, made("new"))
    assert again.step("ingest_videos", {}, {"media": parent}, made("of the new one")).state == "ran"


def test_unknown_steps_and_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no step 'train'"):
        Scope(only="train")
    with pytest.raises(UsageError, match="exclude each other"):
        Scope(only="evaluate", start="evaluate")


def test_the_record_tells_what_a_reviewer_asks(tmp_path: Path) -> None:
    record = chain(Run.local(tmp_path), VALUES)[1].record
    assert record["rows"] == {"read": 3, "written": 2, "dropped": {"odd": 1}}
    assert record["parents"]["parent"]["step"] == "make_videos"
    assert record["config"] == {"value": 2}
    assert record["seconds"] > 0 and record["peak_memory_bytes"] > 10e6
    assert record["provenance"]["cores"] >= 1
    assert set(record["files"]) == {"value"} and len(record["files"]["value"]["sha256"]) == 64


def test_a_failed_step_is_reported_and_the_next_try_finds_its_work(tmp_path: Path) -> None:
    def fail(out: StepOutput) -> None:
        (out.work / "piece").write_text("kept")
        raise RuntimeError("killed")

    seen: list[str] = []

    def succeed(out: StepOutput) -> None:
        seen.append((out.work / "piece").read_text())

    run = Run.local(tmp_path)
    with pytest.raises(RuntimeError):
        run.step("make_videos", {}, {}, fail)
    assert run.steps[-1]["state"] == "failed"
    assert run.step("make_videos", {}, {}, succeed).state == "ran"
    assert seen == ["kept"]
    assert not list((tmp_path / "make_videos").glob(".work-*")), "work is gone once the artifact is published"


def test_an_artifact_whose_outside_half_is_gone_is_built_again(tmp_path: Path) -> None:
    def write(out: StepOutput) -> None:
        out.metrics({"value": 1.0})

    run = Run.local(tmp_path)
    assert run.step("register_model", {}, {}, write, still_valid=lambda record: True).state == "ran"
    assert run.step("register_model", {}, {}, write, still_valid=lambda record: True).state == "reused"
    assert run.step("register_model", {}, {}, write, still_valid=lambda record: False).state == "ran"
