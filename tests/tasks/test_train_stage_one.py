"""What stage one says before it trains."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsol_core.config import BackboneConfig, ImageConfig, StageOneConfig
from tasks import train_stage_one
from tasks.adapters import trainer
from tasks.adapters.steps import Run

from .adapters.made_shards import SIDE, artifact, random_weights, write_folder


class Started(Exception):
    """The training would have begun."""


def said_by(config: StageOneConfig, folder: Path, monkeypatch: Any, caplog: Any) -> list[str]:
    """Return the warnings of the step up to its training."""

    def fit(*_: Any, **__: Any) -> Path:
        raise Started

    monkeypatch.setattr(trainer, "fit", fit)
    shards = artifact(write_folder(folder / "frames", {"solo": [8]}))
    with caplog.at_level(logging.WARNING), pytest.raises(Started):
        train_stage_one.train_stage_one.fn(Run.local(folder / "store"), shards, config, 0)
    return [one.getMessage() for one in caplog.records if one.name == "tasks.train_stage_one"]


def test_random_weights_of_the_picture_trunk_are_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trunk = BackboneConfig(visual="resnet10t", visual_weights=None, frozen=False)
    config = StageOneConfig(image=ImageConfig(side=SIDE, views=1), backbone=trunk, clusters=2)
    (said,) = said_by(config, tmp_path / "random", monkeypatch, caplog)
    assert "resnet10t" in said and "--set stage_one.backbone.visual_weights=FILE" in said
    caplog.clear()
    given = replace(config, backbone=replace(trunk, visual_weights=str(random_weights("resnet10t"))))
    assert said_by(given, tmp_path / "given", monkeypatch, caplog) == []
