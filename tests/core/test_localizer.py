"""The trained model as one object."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from dsol_core import audio, checkpoint
from dsol_core.config import AudioConfig, BackboneConfig, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.localizer import Localizer, entry_names
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import StageTwoNet, build_stage_two
from dsol_core.types import CheckpointError, ShapeError


def network(sizes: int = 3) -> tuple[StageTwoNet, ObjectDictionary]:
    torch.manual_seed(0)
    trunk = BackboneConfig(visual="resnet18", visual_weights=None, adapter=8, embedding=16)
    config = StageOneConfig(clusters=sizes, backbone=trunk, image=ImageConfig(side=32), audio=AudioConfig())
    centers = torch.nn.functional.normalize(torch.randn(sizes, 16), dim=1)
    names = tuple(f"cluster-{number:02d}" for number in range(sizes))
    net = build_stage_two(StageTwoConfig(test_scale=1.5), build_stage_one(config), centers)
    return net, ObjectDictionary(centers.numpy(), np.ones(sizes, int), names)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    net, made = network()
    checkpoint.save(folder / "model.safetensors", net, net.config)
    checkpoint.save(folder / "first.safetensors", net.stage_one, net.stage_one.config)
    checkpoint.save_dictionary(folder / "dictionary.safetensors", made)
    checkpoint.save_dictionary(folder / "four.safetensors", network(4)[1])
    return folder


def sound(count: int, samples: int = 16000) -> np.ndarray:
    return 0.1 * np.random.default_rng(1).standard_normal((count, samples))


def test_frames_of_any_size_give_one_map_an_entry(files: Path) -> None:
    localizer = Localizer.load(files / "model.safetensors", files / "dictionary.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (2, 45, 80, 3), np.uint8)
    first, second = localizer.localize(frames, sound(2))
    assert first.maps.shape == (3, 3, 3) and first.sounding.shape == (3,)
    assert 0 <= first.maps.min() and first.maps.max() <= 1
    assert (localizer.side, localizer.sample_rate_hz) == (48, 16000)  # 1.5 times that of training
    assert not np.allclose(first.maps, second.maps)


def test_rows_do_not_depend_on_each_other_and_channels_are_last(files: Path) -> None:
    localizer = Localizer.load(files / "model.safetensors", files / "dictionary.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    together = localizer.localize(frames, sound(3))
    alone = localizer.localize(frames[1:2], sound(3)[1:2])
    np.testing.assert_allclose(together[1].maps, alone[0].maps, atol=1e-5)
    flipped = localizer.localize(frames[1:2, :, :, ::-1].copy(), sound(3)[1:2])
    assert not np.allclose(flipped[0].maps, alone[0].maps)


def test_a_long_sound_is_heard_a_clip_at_a_time_and_counts_by_its_mean(files: Path) -> None:
    localizer = Localizer.load(files / "model.safetensors", files / "dictionary.safetensors", clip_seconds=0.5)
    net = checkpoint.load(files / "model.safetensors").network().eval()
    frames = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    whole = sound(1, 24_400)  # three clips and 400 samples
    parts = [whole[:, 200 + 8000 * place : 8200 + 8000 * place] for place in (1, 0, 2)]  # its middle, before, after
    mels = torch.cat([audio.log_mel(torch.tensor(part, dtype=torch.float32), localizer.audio) for part in parts], 1)
    with torch.no_grad():
        heard = net.hear(mels).likely
        class_maps = torch.from_numpy(localizer.localize(frames, whole)[0].visual)[None]
        expected = net.sounding(class_maps, heard)[0].numpy()
    np.testing.assert_allclose(localizer.localize(frames, whole)[0].sounding, expected, atol=1e-5)
    middle, together = localizer.localize(frames, parts[0])[0], localizer.localize(frames, whole)[0]
    np.testing.assert_allclose(middle.agnostic, together.agnostic, atol=1e-5)  # of the frame's own clip
    assert not np.allclose(middle.sounding, together.sounding, atol=1e-6)


def test_a_model_from_before_there_were_windows_hears_one(files: Path, tmp_path: Path) -> None:
    net, made = network()
    old = asdict(net.config)
    del old["windows"]
    header = {"stage_one": asdict(net.stage_one.config), "stage_two": old}
    checkpoint._write(tmp_path / "model.safetensors", net.state_dict(), "network", header)
    localizer = Localizer.load(tmp_path / "model.safetensors", files / "dictionary.safetensors", clip_seconds=1.0)
    frames, whole = np.zeros((1, 32, 32, 3), np.uint8), sound(1, 48000)
    assert localizer.windows == 1
    unknown = Localizer(net, made)  # of three windows, but of what length?
    expected = unknown.localize(frames, whole)[0].sounding
    np.testing.assert_allclose(localizer.localize(frames, whole)[0].sounding, expected, atol=1e-6)
    assert not np.allclose(Localizer(net, made, 1.0).localize(frames, whole)[0].sounding, expected, atol=1e-6)


def test_no_frames_give_nothing(files: Path) -> None:
    localizer = Localizer.load(files / "model.safetensors", files / "dictionary.safetensors")
    assert localizer.localize(np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 16000))) == []


@pytest.mark.parametrize(
    ("frames", "waveforms"),
    [
        (np.zeros((1, 3, 8, 8), np.uint8), np.zeros((1, 16000))),
        (np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 16000))),
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 16000))),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros(16000)),
    ],
)
def test_other_shapes_are_refused(files: Path, frames: np.ndarray, waveforms: np.ndarray) -> None:
    localizer = Localizer.load(files / "model.safetensors", files / "dictionary.safetensors")
    with pytest.raises(ShapeError, match="expected"):
        localizer.localize(frames, waveforms)
    with pytest.raises(ShapeError, match=r"expected \[N, T, 64\]"):
        localizer.localize_log_mels(frames, np.zeros((1, 1, 99, 64)))


def test_files_that_do_not_belong_together_are_refused(files: Path) -> None:
    with pytest.raises(CheckpointError, match="expected stage two"):
        Localizer.load(files / "first.safetensors", files / "dictionary.safetensors")
    with pytest.raises(CheckpointError, match="same run"):
        Localizer.load(files / "model.safetensors", files / "four.safetensors")


def test_given_names_win_over_categories_and_all_names_differ(files: Path) -> None:
    renamed = {"cluster-01": "harp"}
    localizer = Localizer.load(files / "model.safetensors", files / "dictionary.safetensors", renamed)
    assert localizer.entries == ("cluster-00", "harp", "cluster-02")
    names = ("cluster-00", "harp", "cluster-02", "cluster-03")
    made = ObjectDictionary(np.zeros((4, 2)), np.ones(4), names, ("cello", "flute", "cello", "harp"))
    assert entry_names(made) == ("cello", "harp", "cello 2", "harp 2")
