"""When the number of classes is estimated, and when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsol_core.config import StageOneConfig
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
