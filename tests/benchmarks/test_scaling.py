"""The page of costs says what its measurement says."""

from __future__ import annotations

import json
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
