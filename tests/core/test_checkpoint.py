"""Checkpoints come back exactly and refuse what they do not understand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dsol_core import checkpoint
from dsol_core.audio import paper_audio
from dsol_core.config import StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import build_stage_two
from dsol_core.types import CheckpointError
from tests.core.tiny_pairs import BINS, CHANNELS, OURS, STEPS


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_stage_one(OURS).eval()


INPUTS = (torch.randn(2, CHANNELS, 4, 4), torch.randn(2, 1, STEPS, BINS))


def test_stage_one_comes_back(tmp_path, net):
    net.mel_mean.fill_(-4.0)
    checkpoint.save(tmp_path / "model.safetensors", net, net.config)
    loaded = checkpoint.load(tmp_path / "model.safetensors")
    assert loaded.config == loaded.stage_one == OURS
    again = loaded.network()
    assert not again.training
    assert torch.equal(again(*INPUTS, features=True).map, net(*INPUTS, features=True).map)


def test_stage_two_comes_back(tmp_path, net):
    config = StageTwoConfig(background=None)
    second = build_stage_two(config, net, torch.randn(3, 16)).eval()
    checkpoint.save(tmp_path / "model.safetensors", second, config)
    loaded = checkpoint.load(tmp_path / "model.safetensors")
    assert loaded.config == config and loaded.stage_one == OURS
    again = loaded.network()
    assert torch.equal(again(*INPUTS, features=True).gated, second(*INPUTS, features=True).gated)
    assert torch.equal(again.dictionary, second.dictionary)


def test_configs_survive_json():
    config = StageOneConfig(audio=paper_audio(), clusters=20)
    import dataclasses

    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert checkpoint.from_plain(StageOneConfig, plain) == config
    with pytest.raises(CheckpointError, match="colour"):
        checkpoint.from_plain(StageOneConfig, {"colour": 1})


def test_other_config_is_refused(tmp_path, net):
    with pytest.raises(CheckpointError, match=r"net\.config"):
        checkpoint.save(tmp_path / "m.safetensors", net, StageOneConfig())
    with pytest.raises(CheckpointError):
        checkpoint.save(tmp_path / "m.safetensors", torch.nn.Linear(1, 1), OURS)


def test_dictionary_comes_back(tmp_path):
    entries = ObjectDictionary(np.eye(2, 3, dtype=np.float32), np.array([4, 5]), ("a", "b"), ("cello", "cello"))
    checkpoint.save_dictionary(tmp_path / "d.safetensors", entries)
    again = checkpoint.load_dictionary(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(again.centers, entries.centers)
    assert again.counts.tolist() == [4, 5] and again.names == ("a", "b") and again.categories == ("cello", "cello")


def test_damaged_foreign_and_mixed_up_files(tmp_path, net):
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.load(path)
    checkpoint.save(path, net, OURS)
    with pytest.raises(CheckpointError, match="expected dictionary"):
        checkpoint.load_dictionary(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="foreign"):
        checkpoint.load(path)


def test_equal_weights_make_equal_files(tmp_path, net):
    for number in range(8):  # several entries of metadata would come in an order of their own each time
        checkpoint.save(tmp_path / f"{number}.safetensors", net, OURS)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_newer_format_is_refused(tmp_path, net, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    checkpoint.save(tmp_path / "model.safetensors", net, OURS)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 3"):
        checkpoint.load(tmp_path / "model.safetensors")


def test_tensors_that_do_not_fit_the_config(tmp_path, net):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, net, OURS)
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    del tensors["scale"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="scale"):
        checkpoint.load(path).network()
