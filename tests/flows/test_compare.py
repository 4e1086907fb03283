"""Rows of a comparison: how they are written, and what the table says of runs whose values are known."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsol_core.audio import paper_audio
from dsol_core.config import Compute
from dsol_core.types import DataError, UsageError
from flows.compare import compare, written
from flows.plans import Plan
from flows.session import Folders
from tasks import compare_runs
from tasks.adapters import tables
from tasks.adapters.store import Artifact
from tasks.compare_runs import Comparison, Trained

ROOT = Path(__file__).resolve().parents[2]


def test_rows_are_recipes_with_changes_and_seeds() -> None:
    plain = Plan.read("ours", "demo", [0, 1], {"stage_one.epochs": 2})
    assert (plain.name, plain.recipe, plain.seeds) == ("ours", "ours", (0, 1))
    changed = Plan.read("max=ours,stage_one.pooling=max,stage_one.epochs=3@4", "demo", [0], {"stage_one.epochs": 2})
    made = changed.experiment(4)
    assert (changed.name, made.stage_one.pooling, made.stage_one.epochs, made.seed) == ("max", "max", 3, 4)
    assert made.registry is None
    assert Plan.read("paper@2", "demo", [0], {}).experiment(2).stage_one.recipe == "paper"
    few = Plan.read("few=ours,stage_one.cluster_range=[2,8],stage_one.clusters=auto", "demo", [0], {}).experiment(0)
    assert (few.stage_one.cluster_range, few.stage_one.clusters) == ((2, 8), 0)


@pytest.mark.parametrize("text", ["", "=ours", "a=ours,pooling", "a=,x=1", "ours@one", "ours@"])
def test_rows_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected such as"):
        Plan.read(text, "demo", [0], {})


def test_a_wrong_key_in_the_last_row_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="test_scal"):
        compare.fn("smoke", ["ours", "bad=ours,stage_two.test_scal=1"], [0], str(tmp_path / "store"))  # type: ignore[attr-defined]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("rows", "seeds", "message"),
    [
        (["a=ours", "a=paper"], [0], "2 rows are called 'a'"),
        (["ours", "ours@1", "paper"], [0], "2 rows are called 'ours'"),
        (["ours", "paper@1,1"], [0], "row 'paper' has the seeds 1, 1"),
        (["ours"], [2, 2], "row 'ours' has the seeds 2, 2"),
    ],
)
def test_rows_and_seeds_that_would_be_averaged_unseen_are_refused(
    tmp_path: Path, rows: list[str], seeds: list[int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        compare.fn("smoke", rows, seeds, str(tmp_path / "store"))  # type: ignore[attr-defined]
    assert not (tmp_path / "store").exists()


def trained(folder: Path, row: str, seed: int, hits: list[bool], items: str = "abcd") -> Trained:
    """A run whose grid scenes have CIoU 0.5 or 0."""
    place, first = folder / "evaluate" / f"{row}{seed}", folder / "train_stage_one" / f"{row}{seed}"
    place.mkdir(parents=True)
    first.mkdir(parents=True)
    rows = [
        {"item": item, "subset": "grid", "split": "test", "video_ids": [item], "ciou": 0.5 * hit, "sciou": 0.1 * hit}
        for item, hit in zip(items, hits, strict=True)
    ]
    names = [one for one in tables.SCHEMAS["items"].names if one not in rows[0]]
    tables.write(place / "items.parquet", "items", iter([{**one, **dict.fromkeys(names)} for one in rows]))
    found = {"demo-grid/ciou@0.3": {"value": 0}, "demo-solo/nmi": {"value": 0.9}}
    if row == "ours":
        found["demo-negatives/false_alarm_noise"] = {"value": 0.1 * (seed + 1)}
    (place / "metrics.json").write_text(json.dumps(found))
    known = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 4}
    (place / "baselines.json").write_text(json.dumps({"demo-grid/ciou@0.3": {"all boxes": known}}))
    tables.write_history(
        first / "history.parquet", [{"epoch": 0, "matching": 2.0}, {"epoch": 1, "matching": 1.0 + seed}]
    )
    provenance = {"commit": "c0ffee" * 6, "dirty": False, "cores": 2, "memory_bytes": 2**34, "python": "3.11"}
    record: dict[str, Any] = {"provenance": provenance, "config": {"name": "demo"}}
    return Trained(row, seed, Artifact("evaluate", place, "0", record=record), Artifact("s", first, "1"), [])


def test_seeds_are_averaged_and_rows_are_paired(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path, "ours", 0, [True, True, True, False]),
        trained(tmp_path, "ours", 1, [True, True, False, False]),
        trained(tmp_path, "paper", 0, [False, True, False, False]),
    ]
    made = Comparison(runs)
    assert made.rows == ["ours", "paper"] and "demo-grid/ciou@0.3" in made.keys
    assert made.values("ours", "demo-grid/ciou@0.3") == [0.75, 0.5]
    assert made.estimate("ours", "demo-grid/ciou@0.3").value == pytest.approx(0.625)
    paired = made.difference("paper", "demo-grid/ciou@0.3")
    assert paired.value == pytest.approx(-0.5) and paired.low < paired.value < paired.high and paired.n == 4
    assert made.dictionary("ours", "nmi") == [0.9, 0.9] and made.curve("ours") == [2.0, 1.5]
    compare_runs.write(made, tmp_path / "out" / "page.md", "Title", "dsol compare demo")
    page = (tmp_path / "out" / "page.md").read_text()
    assert (
        "0.625 (0.750, 0.500)" in page
        and "-0.500<br>" in page
        and "c0ffeec0ffee" in page
        and "- ours: 2.00 1.50" in page
        and "| demo-negatives/false_alarm_noise | 0.150 (0.100, 0.200) |  |" in page
    )
    said = json.loads((tmp_path / "out" / "page.json").read_text())
    assert said["paper"]["differences"]["demo-grid/ciou@0.3"]["value"] == pytest.approx(-0.5)


def test_the_page_tells_what_the_videos_are_made_of(tmp_path: Path) -> None:
    (tmp_path / "sources.json").write_text(
        json.dumps(
            {
                "classes": {"harp": {"test_notes_in_training": True}, "tuba": {"test_notes_in_training": False}},
                "classes_without_uninterrupted_test": ["tuba"],
                "dropped": [{}],
            }
        )
    )
    run = trained(tmp_path, "ours", 0, [True, False, True, False])
    videos = Artifact("make_videos", tmp_path, "2", record={"files": {"sources.json": {}}})
    page = compare_runs.page(Comparison([replace(run, videos=videos)]), "Title", "dsol compare real_av")
    assert "- classes without an uninterrupted test recording: tuba" in page
    assert "may hold notes of the test: harp" in page and "could not be used: 1" in page
    assert "What the videos are made of" not in compare_runs.page(Comparison([run]), "Title", "dsol compare demo")


def test_the_glance_marks_what_surely_differs(tmp_path: Path) -> None:
    hits = {"ours": [True, True, True, True], "near": [True, True, True, False], "worse": [False] * 4}
    made = Comparison([trained(tmp_path, row, 0, found) for row, found in hits.items()])
    page = compare_runs.page(made, "Title", "dsol compare demo")
    assert "| row | demo-grid<br>ciou@0.3 | demo-grid<br>sciou@0.3 | dictionary<br>nmi |" in page
    lines = [line for line in page.splitlines() if line.startswith(("| ours", "| near", "| worse"))][:3]
    assert lines == [
        "| ours | 1.000 | 0.000 | 0.900 |",
        "| near | 0.750 | 0.000 | 0.900 |",
        "| worse | **0.000** | 0.000 | 0.900 |",
    ]


def test_runs_over_other_items_are_no_comparison(tmp_path: Path) -> None:
    runs = [trained(tmp_path, "ours", 0, [True] * 4), trained(tmp_path, "paper", 0, [True] * 4, items="abce")]
    with pytest.raises(DataError, match="other items of demo-grid"):
        Comparison(runs)
    with pytest.raises(DataError, match="at least one"):
        Comparison([])


def ablation() -> tuple[list[str], dict[str, str]]:
    """The rows and the common settings that `make ablation` gives to `dsol compare`."""
    said = subprocess.run(
        ["make", "-n", "ablation", "READY="], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    words = shlex.split(said.replace("\\\n", " "))
    given = [(option, value) for option, value in itertools.pairwise(words) if option in ("--row", "--set")]
    return [value for option, value in given if option == "--row"], dict(
        value.split("=", 1) for option, value in given if option == "--set"
    )


def test_every_row_of_the_ablation_is_an_experiment_of_its_own() -> None:
    rows, overrides = ablation()
    plans = [Plan.read(text, "demo", [0, 1, 2], overrides) for text in rows]
    made = [plan.experiment(0) for plan in plans]
    assert len(rows) > 20 and plans[0].name == "ours" and {plan.seeds for plan in plans} == {(0, 1, 2)}
    assert len({plan.name for plan in plans}) == len(rows), "two rows of one name would be taken for one"
    assert all(one != other for one, other in itertools.combinations(made, 2)), "a row that changes nothing"
    assert len({repr(one.data) for one in made}) == 1 and made[0].data.scenes.count == (400, 40, 100)
    changed = {plan.name: one for plan, one in zip(plans, made, strict=True)}
    assert changed["no-background"].stage_two.background is None
    assert changed["reference-audio"].stage_one.audio == paper_audio()
    for row, base in (("trunk-mask", "trunk-map"), ("scenes-element", "scenes")):
        assert rows[[p.name for p in plans].index(row) - 1].startswith(f"{base}="), "it stands behind its reference"


def test_data_without_labels_are_compared_by_what_needs_none(tmp_path: Path) -> None:
    runs = [trained(tmp_path, row, 0, [True, False, True, True]) for row in ("ours", "paper")]
    for one, share in zip(runs, (0.5, 0.25), strict=True):
        rows = tables.read(one.report.file("items.parquet"))
        bare = [{**row, "ciou": None, "sciou": None, "agreement": share, "heard": 1.0} for row in rows]
        tables.write(one.report.folder / "items.parquet", "items", iter(bare))
    comparison = Comparison(runs)
    assert comparison.keys == ["demo-grid/agreement", "demo-grid/heard"]
    text = compare_runs.page(comparison, "title", "command")
    assert "| demo-grid<br>agreement | demo-grid<br>heard |" in text
    assert "| demo-grid/agreement | 0.500<br>0.500 - 0.500 | 0.250<br>0.250 - 0.250 | 4 |" in text


def test_a_name_with_a_dash_keeps_its_baselines(tmp_path: Path) -> None:
    run = trained(tmp_path, "ours", 0, [True] * 4)
    (run.report.folder / "metrics.json").write_text(json.dumps({"demo-a-b/ciou@0.3": {"value": 0}}))
    assert list(run.benchmarks) == ["demo-grid"]


def test_a_row_of_fewer_seeds_is_compared_with_the_same_ones(tmp_path: Path) -> None:
    runs = [trained(tmp_path, "ours", seed, [seed == 0, True, True, True]) for seed in (0, 1, 2)]
    runs += [trained(tmp_path, "same", 0, [True] * 4), trained(tmp_path, "other", 7, [True] * 4)]
    comparison = Comparison(runs)
    assert comparison.difference("same", "demo-grid/ciou@0.3").value == 0
    assert comparison.difference("other", "demo-grid/ciou@0.3").value == pytest.approx(2 / 3 / 4)
    assert comparison.estimate("ours", "demo-grid/ciou@0.3").value == pytest.approx(1 - 2 / 3 / 4)


def test_the_command_of_a_page_tells_what_was_asked_for() -> None:
    folders = Folders("/home/me/set", None, None)
    compute = Compute(4, "auto", True, "fp32", True)
    said = written("real_av", ["ours", "paper@1"], [0, 2], folders, {"data.seed": 1}, compute)
    assert said == (
        "dsol compare real_av --data FOLDER --row=ours --row=paper@1 --seed=0 --seed=2 --set=data.seed=1 --gpu "
        "--compile --precision=fp32"
    )
    none = Folders(None, None, None)
    assert written("demo", ["ours"], [0], none, {}, Compute()) == "dsol compare demo --row=ours --seed=0"
