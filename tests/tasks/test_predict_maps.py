from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsol_core import audio, checkpoint, image, negatives, stage_one, stage_two
from dsol_core.config import BackboneConfig, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import build_stage_two
from dsol_core.types import AVBatch
from tasks.adapters import shards, tables
from tasks.adapters.fingerprints import sha256
from tasks.adapters.steps import Run
from tasks.adapters.store import Artifact
from tasks.predict_maps import predict_maps

from .adapters.made_shards import SIDE, artifact, clip_sample, random_weights, write_folder

WEIGHTS = random_weights("resnet10t")
FIRST = StageOneConfig(
    image=ImageConfig(side=SIDE, views=1),
    backbone=BackboneConfig(visual="resnet10t", visual_weights=str(WEIGHTS)),
    clusters=3,
)
SECOND = StageTwoConfig()


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    listed = []
    for split, counts in (("train", {"solo": [2]}), ("val", {"solo": [3], "multi": [2]}), ("test", {"solo": [2, 2]})):
        write_folder(folder, counts, split=split)
        listed += shards.read_manifest(folder)[1]
    shards.write_manifest(folder, listed, "frames")
    return folder


def trained(
    folder: Path, first: StageOneConfig, config: StageTwoConfig = SECOND
) -> tuple[Artifact, Artifact, Artifact]:
    """Publish a stage one, a stage two with other weights, and a dictionary, all untrained."""
    (folder / "first").mkdir(parents=True)
    torch.manual_seed(1)
    checkpoint.save(folder / "first" / "model.safetensors", build_stage_one(first, WEIGHTS), first)
    torch.manual_seed(0)
    one = build_stage_one(first, WEIGHTS)
    centers = torch.randn(3, first.backbone.embedding)
    checkpoint.save(folder / "model.safetensors", build_stage_two(config, one, centers), config)
    entries = ObjectDictionary(centers.numpy(), np.ones(3, np.int64), ("a", "b", "c"))
    checkpoint.save_dictionary(folder / "dictionary.safetensors", entries)
    return (
        Artifact("train_stage_one", folder / "first", "1" * 16),
        Artifact("train_stage_two", folder, "2" * 16),
        Artifact("build_dictionary", folder, "d" * 16),
    )


def heard(folder: Path, subset: str, split: str, first: StageOneConfig) -> dict[str, torch.Tensor]:
    """Return the log-mels [3, T, M] of the windows of each sample; the first ones come again where there are fewer."""
    made = {}
    for sample in shards.ShardReader(folder, (subset,), split).ordered():
        windows = shards.windows(sample)
        waves = np.stack([shards.waveform(windows[place % len(windows)]) for place in range(3)])
        made[sample.key] = audio.log_mel(torch.from_numpy(waves), first.audio)[:, 0]
    return made


@pytest.mark.parametrize("frozen", [True, False])
def test_one_row_a_frame_of_val_and_test_as_the_network_says(frames: Path, tmp_path: Path, frozen: bool):
    first = replace(FIRST, backbone=replace(FIRST.backbone, frozen=frozen))
    one, model, dictionary = trained(tmp_path / "model", first)
    made = predict_maps.fn(Run.local(tmp_path / "store"), artifact(frames), one, model, dictionary)
    rows = {(row["split"], row["item"]): row for row in tables.read(made.file("predictions.parquet"))}
    assert made.record["rows"] == {"read": 9, "written": 9, "dropped": {}} and len(rows) == 9
    net = checkpoint.load(model.file("model.safetensors")).network()
    heat = checkpoint.load(one.file("model.safetensors")).network()
    entries = checkpoint.load_dictionary(dictionary.file("dictionary.safetensors"))
    checked = 0
    for subset, split in (("solo", "val"), ("multi", "val"), ("solo", "test")):
        for sample in shards.samples(frames, subset=subset, split=split):
            frame = torch.from_numpy(sample["frame"]).permute(2, 0, 1)[None]
            log_mels = heard(frames, subset, split, first)[sample["key"]][None]
            key = (sample["key"],)
            front = image.scaled(
                first.image, 1 if subset == "solo" else net.config.test_scale, first.backbone.visual_stride
            )
            batch = AVBatch(key, key, key, key, image.to_input(frame, front), log_mels)
            (expected,) = stage_two.predict(net, batch, entries)
            expected = replace(expected, agnostic=stage_one.localise(heat, batch)[0])
            row = rows[split, sample["key"]]
            assert (row["subset"], row["height"], row["width"]) == (subset, SIDE, SIDE)
            assert row["boxes"] == sample["meta"]["boxes"] and row["video_ids"] == sample["meta"]["video_ids"]
            for name in ("maps", "visual", "agnostic", "sounding", "heard"):
                values = np.asarray(row[name], np.float32)
                assert np.allclose(values, getattr(expected, name).ravel(), atol=5e-3), name
            checked += 1
    assert checked == 9


def test_a_map_that_is_hardly_lit_keeps_its_shape(frames: Path, tmp_path: Path):
    """CIoU cuts a map at its own maximum, however faint it is."""
    deaf = StageTwoConfig(presence_midpoint=1.0, presence_power=40.0)
    one, model, dictionary = trained(tmp_path / "model", FIRST, deaf)
    made = predict_maps.fn(Run.local(tmp_path / "store"), artifact(frames), one, model, dictionary)
    for row in tables.read(made.file("predictions.parquet")):
        maps, visual = (np.array(row[name], np.float32).reshape(3, -1) for name in ("maps", "visual"))
        assert maps.max(1).min() < 6e-8  # the least half that is not 0
        peaks = (one / one.max(1, keepdims=True) for one in (maps, visual))
        np.testing.assert_allclose(*peaks, atol=2e-3)


def test_damaged_frames_are_counted(frames: Path, tmp_path: Path):
    folder = write_folder(tmp_path / "damaged", {"solo": [30]}, split="test")
    path = folder / "solo-test-00000.tar"
    offset, _ = shards.places(path, {"solo0007"})["solo0007"]["audio.npy"]
    data = bytearray(path.read_bytes())
    data[offset + 1000] ^= 0xFF
    path.write_bytes(data)
    unfrozen = replace(FIRST, backbone=replace(FIRST.backbone, frozen=False))
    made = predict_maps.fn(Run.local(tmp_path / "store"), artifact(folder), *trained(tmp_path / "model", unfrozen))
    assert made.record["rows"] == {"read": 30, "written": 29, "dropped": {"damaged sample": 1}}
    assert "solo0007" not in {row["item"] for row in tables.read(made.file("predictions.parquet"), ["item"])}


CATEGORIES = ("cello", "flute", "tuba", "violin")


def scenes(folder: Path, *, labels: bool = True) -> Path:
    """Write two val shards and a test shard of frames in which two objects are seen and the first of them sounds."""
    folder.mkdir()
    listed = []
    for index, (split, numbers) in enumerate((("val", range(5)), ("val", range(5, 8)), ("test", range(8, 9)))):
        made = []
        for number in numbers:
            sample = clip_sample(f"multi{number:04d}", f"video{number}", split=split)
            seen = (CATEGORIES[number % 4], CATEGORIES[(number + 1) % 4])
            boxes = [{**sample.meta["boxes"][0], "category": c, "sounding": c == seen[0]} for c in seen]
            meta = {**sample.meta, "categories": [seen[0]] if labels else [], "boxes": boxes if labels else []}
            made.append(shards.Sample(sample.key, meta, sample.members))
        path = folder / f"multi-{split}-{index:05d}.tar"
        listed.append(shards.Shard(path.name, "multi", split, shards.write_shard(path, made), sha256(path)))
    shards.write_manifest(folder, listed, "frames")
    return folder


@pytest.mark.parametrize("frozen", [True, False])
def test_what_pictures_say_to_silence_noise_and_sounds_of_others(tmp_path: Path, frozen: bool):
    folder = scenes(tmp_path / "scenes")
    first = replace(FIRST, backbone=replace(FIRST.backbone, frozen=frozen))
    one, model, dictionary = trained(tmp_path / "model", first)
    made = predict_maps.fn(Run.local(tmp_path / "store"), artifact(folder), one, model, dictionary)
    rows = list(tables.read(made.file("negatives.parquet")))
    assert Counter((row["split"], row["kind"]) for row in rows) == {
        ("val", "silence"): 8,
        ("val", "noise"): 8,
        ("val", "offscreen"): 8,
        ("test", "silence"): 1,
        ("test", "noise"): 1,  # its only neighbour of the same split is itself: no off-screen sound
    }
    samples = {s["key"]: s for split in ("val", "test") for s in shards.samples(folder, subset="multi", split=split)}
    net = checkpoint.load(model.file("model.safetensors")).network()
    entries = checkpoint.load_dictionary(dictionary.file("dictionary.safetensors"))
    for row in rows:
        sample = samples[row["item"]]
        noise = negatives.waveform("noise", row["item"], 48000).view(3, 16000)
        sounds = {"silence": audio.log_mel(torch.zeros(3, 16000), first.audio)[:, 0]}
        sounds["noise"] = audio.log_mel(noise, first.audio)[:, 0]
        if row["kind"] == "offscreen":
            other = samples[row["other"]]
            sounds["offscreen"] = heard(folder, "multi", row["split"], first)[row["other"]]
            assert row["rule"] == "categories" and row["split"] == other["meta"]["split"]
            assert other["meta"]["categories"][0] not in {box["category"] for box in sample["meta"]["boxes"]}
        else:
            assert row["other"] is None and row["rule"] is None
        frame = torch.from_numpy(sample["frame"]).permute(2, 0, 1)[None]
        log_mels, key = sounds[row["kind"]][None], (row["item"],)
        front = image.scaled(first.image, net.config.test_scale, first.backbone.visual_stride)
        batch = AVBatch(key, key, key, key, image.to_input(frame, front), log_mels)
        (expected,) = stage_two.predict(net, batch, entries)
        assert np.allclose(row["sounding"], expected.sounding, atol=5e-3)
        assert row["peak"] == pytest.approx(expected.maps.max(), abs=5e-3)
        assert row["video_ids"] == sample["meta"]["video_ids"]


def test_without_labels_the_off_screen_sound_is_of_another_video(tmp_path: Path):
    folder = scenes(tmp_path / "scenes", labels=False)
    made = predict_maps.fn(Run.local(tmp_path / "store"), artifact(folder), *trained(tmp_path / "model", FIRST))
    rows = [row for row in tables.read(made.file("negatives.parquet")) if row["kind"] == "offscreen"]
    assert len(rows) == 8 and {row["rule"] for row in rows} == {"videos"}
    assert all(row["other"] != row["item"] for row in rows)


def test_solos_are_not_asked(tmp_path: Path):
    folder = write_folder(tmp_path / "solos", {"solo": [3]}, split="test")
    made = predict_maps.fn(Run.local(tmp_path / "store"), artifact(folder), *trained(tmp_path / "model", FIRST))
    assert tables.count(made.file("negatives.parquet")) == 0
