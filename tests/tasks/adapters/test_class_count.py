"""When the number of classes is estimated, and when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsol_core.config import StageOneConfig
from tasks.adapters import class_count
from tasks.adapters.class_count import resolved
from tasks.adapters.steps import Run, Scope
from tasks.adapters.store import Artifact

AUTO = StageOneConfig(clusters=0, cluster_range=(3, 9))


def test_a_given_number_is_kept(tmp_path: Path) -> None:
    given = StageOneConfig(clusters=5)
    assert resolved(Run(tmp_path), Artifact("write_shards", tmp_path, "0" * 16), given, 0) is given


@pytest.mark.parametrize(("only", "state"), [("write_shards", "ran"), ("mix_scenes", "skipped")])
def test_nothing_is_estimated_where_no_training_follows(tmp_path: Path, only: str, state: str) -> None:
    shards = Artifact("write_shards", tmp_path, "0" * 16, state)
    assert resolved(Run(tmp_path / "store", scope=Scope(only=only)), shards, AUTO, 0).clusters == 3
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("units", "levels"), [(179, ["WARNING"]), (180, [])])
def test_an_estimate_from_too_few_videos_is_a_warning(
    units: int, levels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = {"best": 3, "plausible": [3, 4], "units": units}
    monkeypatch.setattr(class_count, "class_count", lambda *_: None)
    monkeypatch.setattr(class_count, "read", lambda _: found)
    with caplog.at_level("INFO", class_count.__name__):
        assert resolved(Run(tmp_path), Artifact("write_shards", tmp_path, "0" * 16), AUTO, 0).clusters == 3
    assert [one.levelname for one in caplog.records] == levels
    assert not levels or "3 classes (4 would do), estimated from 179 training units" in caplog.text
