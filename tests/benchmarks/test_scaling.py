"""The page of costs says what its measurement says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return dict(json.loads((ROOT / "docs/results/scaling.json").read_text()))


def test_the_page_is_that_of_its_figures(found: dict) -> None:
    import scaling

    assert scaling.page(found) == (ROOT / "docs/results/scaling.md").read_text()


def test_what_grows_is_what_larger_sets_cost(found: dict) -> None:
    import scaling

    before, last = found["sizes"][-2:]
    last["seconds"]["write_shards"] = before["seconds"]["write_shards"] + (last["clips"] - before["clips"]) / 1000
    hours = [found["cores"] * clips * scaling.SECONDS / 1000 / 3600 for _, clips in scaling.SETS]
    row = "| write_shards | " + " | ".join(f"{one:,.1f}" for one in hours) + " |"
    assert row in scaling.page(found).splitlines()


def test_what_does_not_grow_costs_larger_sets_nothing(found: dict) -> None:
    import scaling

    before, last = found["sizes"][-2:]
    last["files"] = {**before["files"], "write_shards": before["files"]["write_shards"] + 2}
    files = [2 * clips * scaling.SECONDS / (last["clips"] - before["clips"]) for _, clips in scaling.SETS]
    row = "| files in the store, 256 rows a shard | " + " | ".join(f"{one:,.0f}" for one in files) + " |"
    assert row in scaling.page(found).splitlines()


def test_the_results_can_be_measured_in_any_store_and_again() -> None:
    """`rerun.py` wants a finished run in the store and `scaling.py` a folder that is not there."""
    command = ["make", "-n", "results", "READY=", "STORE=runs/new"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = said.splitlines()
    (rerun,) = [place for place, line in enumerate(lines) if "rerun.py" in line]
    (scaling,) = [place for place, line in enumerate(lines) if "scaling.py" in line]
    assert (
        lines[rerun - 1].endswith("dsol run demo --store runs/new") and "rerun.py demo --store runs/new" in lines[rerun]
    )
    assert lines[scaling - 1] == "rm -rf runs/new/scaling" and "--store runs/new/scaling" in lines[scaling]
