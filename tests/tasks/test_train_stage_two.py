"""What stage two reads: features where pictures are cached, frames where waveforms are mixed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsol_core import checkpoint
from dsol_core.config import BackboneConfig, Compute, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.stage_one_net import build_stage_one
from tasks import train_stage_two
from tasks.adapters import tables, trainer
from tasks.adapters.steps import Run, Scope
from tasks.adapters.store import Artifact

from .adapters.made_shards import SIDE, artifact, random_weights, write_folder

WEIGHTS = random_weights("resnet10t")
FIRST = StageOneConfig(
    image=ImageConfig(side=SIDE, views=1),
    backbone=BackboneConfig(visual="resnet10t", visual_weights=str(WEIGHTS)),
    clusters=2,
)
SECOND = StageTwoConfig(hearing_passes=1, batch=4)


def parents_in(folder: Path) -> tuple[Artifact, Artifact, Artifact]:
    """Return shards, an untrained stage one and a dictionary of two."""
    frames = write_folder(folder / "frames", {"solo": [8]})
    (folder / "made").mkdir()
    checkpoint.save(folder / "made" / "model.safetensors", build_stage_one(FIRST, WEIGHTS), FIRST)
    centers = torch.randn(2, FIRST.backbone.embedding).numpy()
    checkpoint.save_dictionary(
        folder / "made" / "dictionary.safetensors", ObjectDictionary(centers, np.ones(2, np.int64), ("a", "b"))
    )
    rows = ({"key": f"solo{number:04d}", "cluster": number % 2} for number in range(8))
    tables.write(folder / "made" / "clusters.parquet", "clusters", rows)
    first, entries = (Artifact(step, folder / "made", "1" * 16) for step in ("train_stage_one", "build_dictionary"))
    return artifact(frames), first, entries


def settings_of(config: StageTwoConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the training loop of stage two is started with."""

    def fit(loop: Any, settings: dict[str, Any], **_: Any) -> Path:
        raise Started(settings)

    monkeypatch.setattr(trainer, "fit", fit)
    with pytest.raises(Started) as raised:
        train_stage_two.train_stage_two.fn(Run.local(folder / "store"), *parents_in(folder), config, 0)
    return raised.value.settings


class Started(Exception):
    """Training would begin now."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__("started")
        self.settings = settings


@pytest.mark.parametrize(("mixing", "content"), [("log_mel", "trunk_features"), ("waveform", "frames")])
def test_waveforms_are_mixed_from_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixing: Any, content: str
) -> None:
    settings = settings_of(replace(SECOND, hearing_mixing=mixing), tmp_path, monkeypatch)
    assert content in str(settings["solos"]) and settings["scenes"] is None


def test_what_only_reads_the_network_trains_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parents, store = parents_in(tmp_path), tmp_path / "store"
    fit, fits = trainer.fit, []

    def counted(*args: Any, **more: Any) -> Path:
        fits.append(more["name"])
        return fit(*args, **more)

    monkeypatch.setattr(trainer, "fit", counted)

    def made(config: StageTwoConfig, force: tuple[str, ...] = ()) -> Artifact:
        run = Run(store, compute=Compute(workers=0), scope=Scope(force=force))
        return train_stage_two.train_stage_two.fn(run, *parents, config, 0)

    one, gate = made(SECOND), replace(SECOND, presence_midpoint=0.3, windows=1)
    two = made(gate)
    assert fits == ["stage-two"] and two.fingerprint != one.fingerprint
    first, second = (checkpoint.load(each.file("model.safetensors")) for each in (one, two))
    assert second.config == gate and first.config == SECOND
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert two.record["notes"]["trained_as"] == one.fingerprint
    trained_with = {"compute": one.record["compute"], "seconds": one.record["seconds"]}
    assert two.record["notes"]["trained_with"] == trained_with and two.record["notes"]["trained_content"] == one.content
    assert (two.record["rows"], two.record["metrics"]) == (one.record["rows"], one.record["metrics"])
    assert two.file("history.parquet").read_bytes() == one.file("history.parquet").read_bytes()
    third = made(replace(gate, test_scale=1.0))
    assert third.record["notes"]["trained_as"] == one.fingerprint and len(fits) == 1
    shutil.rmtree(one.folder)
    fourth = made(replace(gate, presence_power=2.0))
    assert fourth.record["notes"]["trained_as"] == one.fingerprint and len(fits) == 1
    assert fourth.record["notes"]["trained_with"] == trained_with
    again = made(gate, force=("train_stage_two",))
    assert len(fits) == 2 and again.content == two.content and "trained_as" not in again.record["notes"]
    made(replace(gate, hearing_gain=0.5))
    assert len(fits) == 3


def test_weights_come_from_the_training_itself_where_it_is_there(tmp_path: Path) -> None:
    """A copy may be of a training that was made again since; its own fingerprint comes first here."""
    run = Run.local(tmp_path)
    for mark, notes in (("0" * 16, {"trained_as": "1" * 16}), ("1" * 16, {}), ("2" * 16, {"weights": "other"})):
        record = {"notes": {"weights": "w", **notes}}
        run.store.publish("train_stage_two", mark, lambda folder, record=record: record)
    found = train_stage_two.trained_alike(run, "w")
    assert found and found.fingerprint == "1" * 16
    assert train_stage_two.trained_alike(run, "none") is None
