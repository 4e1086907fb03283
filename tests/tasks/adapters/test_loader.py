import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsol_core import audio, image
from dsol_core.config import AudioConfig, ImageConfig
from dsol_core.types import AVBatch, DataError
from tasks.adapters import loader, shards
from tasks.adapters.fingerprints import sha256
from tasks.adapters.inputs import Recipe
from tasks.adapters.loader import Loader
from tasks.adapters.pool import Pool
from tasks.adapters.shards import Sample, Shard, ShardReader

from .made_shards import SIDE, clip_sample, write_folder

AUDIO = AudioConfig()
RECIPE = Recipe(AUDIO, ImageConfig(side=SIDE), 8, seed=3, neighbour_seconds=True, mixtures=2, other=True)


@dataclass(frozen=True)
class Rank:
    rank: int
    world_size: int
    device: str = "cpu"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("frames"), {"grid": [7, 7], "multi": [7]})


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    generator = np.random.default_rng(0)
    samples = []
    for number in range(20):
        views = generator.normal(size=(3, 4, 2, 2)).astype(np.float16)
        views[:, 0] = np.arange(3)[:, None, None]  # channel 0 tells the view
        mels = generator.normal(size=(1 + number % 3, 5, AUDIO.mel_bins)).astype(np.float16)
        mels[:, 0] = np.arange(len(mels))[:, None]  # the first step tells the second
        members = {"views.npy": shards.array_bytes(views), "mels.npy": shards.array_bytes(mels)}
        samples.append(Sample(f"s{number:02d}", clip_sample("x", f"video{number // 2}").meta, members))
    path = folder / "solo-train-00000.tar"
    shards.write_shard(path, samples)
    shards.write_manifest(folder, [Shard(path.name, "solo", "train", 20, sha256(path))], "features")
    return folder


def interleaved(folder: Path, world: int, recipe: Recipe = RECIPE, subsets=("grid", "multi"), epoch: int = 1, part=0):
    """Global batches put together from the ranks' rows, rank 0 first, as a gather does."""
    ranks = [list(Loader(folder, subsets, recipe, Rank(r, world)).train(epoch, part)) for r in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    return [joined(rows) for rows in zip(*ranks, strict=True)]


def joined(rows: tuple[AVBatch, ...]) -> AVBatch:
    def cat(name: str):
        return None if getattr(rows[0], name) is None else torch.cat([getattr(one, name) for one in rows])

    assert len({one.all_keys for one in rows}) == len({one.all_mixed_partners for one in rows}) == 1
    keys = tuple(key for one in rows for key in one.keys)
    videos = tuple(video for one in rows for video in one.video_ids)
    tensors = {name: cat(name) for name in ("visual", "log_mels", "other", "mixed")}
    return replace(rows[0], keys=keys, video_ids=videos, **tensors)


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_workers_sees_the_same_global_batches(frames: Path, world: int):
    alone, together = interleaved(frames, 1), interleaved(frames, world)
    assert len(alone) == len(together) == 2  # 21 samples, batches of 8, the incomplete third is left out
    for one, other in zip(alone, together, strict=True):
        assert one.keys == other.keys == one.all_keys == other.all_keys
        assert one.video_ids == one.all_video_ids == other.video_ids
        assert one.all_mixed_partners == other.all_mixed_partners
        for name in ("visual", "log_mels", "other", "mixed"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_shapes(frames: Path):
    batch = next(iter(Loader(frames, ("grid", "multi"), RECIPE, Rank(1, 2)).train(0)))
    assert batch.visual.shape == batch.other.shape == (4, 3, SIDE, SIDE)
    assert batch.log_mels.shape == (4, 1, 101, 64) and batch.mixed.shape == (8, 1, 101, 64)
    assert len(batch.all_keys) == 8 and len(batch.all_mixed_partners) == 16 and not batch.features


def test_passes_differ_by_epoch_part_and_seed_and_repeat_exactly(frames: Path):
    def order(recipe: Recipe, epoch: int, part: int) -> list[str]:
        recipe = replace(recipe, mixtures=0, other=False)
        return [key for batch in interleaved(frames, 1, recipe, epoch=epoch, part=part) for key in batch.keys]

    orders = [order(RECIPE, 0, 0), order(RECIPE, 1, 0), order(RECIPE, 0, 1), order(replace(RECIPE, seed=4), 0, 0)]
    assert len({tuple(one) for one in orders}) == 4
    assert order(RECIPE, 1, 0) == orders[1]
    assert all(len(set(one)) == 16 for one in orders)
    first, second = interleaved(frames, 1)[1], interleaved(frames, 1)[1]
    assert torch.equal(first.visual, second.visual) and torch.equal(first.mixed, second.mixed)


def test_mixtures_are_those_of_the_named_partners(features: Path):
    recipe = replace(RECIPE, neighbour_seconds=False, mixture_gain=0.0)
    for batch in interleaved(features, 1, recipe, ("solo",)):
        partners = np.array(batch.all_mixed_partners).reshape(8, 2)
        assert all(row not in others for row, others in enumerate(partners))
        for row, others in enumerate(partners):
            for number, other in enumerate(others):
                pair = batch.log_mels[row][None], batch.log_mels[other][None]
                expected = audio.mix_log_mels(*pair, torch.zeros(1), AUDIO)[0]
                assert torch.allclose(batch.mixed[2 * row + number], expected, atol=1e-5)


def test_mixtures_of_waveforms_are_those_of_the_named_partners(frames: Path):
    recipe = replace(RECIPE, neighbour_seconds=False, mixing="waveform", mixture_gain=0.5)
    sounds = {
        one["key"]: torch.from_numpy(one["waveform"])[None] for s in ("grid", "multi") for one in all_samples(frames, s)
    }
    found = []
    for batch, other in zip(interleaved(frames, 1, recipe), interleaved(frames, 2, recipe), strict=True):
        assert torch.equal(batch.mixed, other.mixed)
        partners = np.array(batch.all_mixed_partners).reshape(8, 2)
        row, number = 3, 1
        first, second = (sounds[batch.keys[place]] for place in (row, partners[row, number]))
        gains = torch.linspace(-0.5, 0.5, 201)
        tries = audio.log_mel(audio.mix_waveforms(first.expand(201, -1), second.expand(201, -1), gains), AUDIO)
        errors = (tries - batch.mixed[2 * row + number]).abs().amax((1, 2, 3))
        assert errors.min() < 0.05
        found.append(float(gains[errors.argmin()]))
    assert len(set(found)) == 2 and any(abs(gain) > 0.05 for gain in found)


def test_features_hold_no_waveforms_to_mix(features: Path):
    with pytest.raises(DataError, match="holds features; to mix waveforms give shards of frames"):
        Loader(features, ("solo",), replace(RECIPE, mixing="waveform"))


def test_mixture_gains_stay_in_their_range(features: Path):
    recipe = replace(RECIPE, neighbour_seconds=False, mixture_gain=0.5)
    seen = []
    for batch in interleaved(features, 1, recipe, ("solo",)):
        for row in range(8):
            other = batch.log_mels[batch.all_mixed_partners[2 * row]]
            found = batch.mixed[2 * row]
            gains = torch.linspace(-0.5, 0.5, 201)
            tries = audio.mix_log_mels(
                batch.log_mels[row].expand(201, -1, -1, -1), other.expand(201, -1, -1, -1), gains, AUDIO
            )
            errors = (tries - found).abs().amax((1, 2, 3))
            assert errors.min() < 5e-3
            seen.append(float(gains[errors.argmin()]))
    assert min(seen) < -0.1 < 0.1 < max(seen)


def test_other_pictures_never_share_a_video(tmp_path: Path):
    """Each picture here has one flat value, its video's number, so that it tells where it comes from."""
    samples = []
    for number in range(24):
        views = np.full((1, 1, 1, 1), number // 4, np.float16)
        members = {"views.npy": shards.array_bytes(views), "mels.npy": shards.array_bytes(np.zeros((1, 2, 2), "f2"))}
        samples.append(Sample(f"s{number:02d}", clip_sample("x", str(number // 4)).meta, members))
    path = tmp_path / "solo-train-00000.tar"
    shards.write_shard(path, samples)
    shards.write_manifest(tmp_path, [Shard(path.name, "solo", "train", 24, "")], "features")
    seen = set()
    for epoch in range(6):
        for batch in Loader(tmp_path, ("solo",), replace(RECIPE, mixtures=0)).train(epoch):
            numbers = [int(value) for value in batch.other.flatten()]
            assert all(str(number) != video for number, video in zip(numbers, batch.video_ids, strict=True))
            seen.update(numbers)
    assert seen == set(range(6))


def test_negatives_of_a_single_video_are_refused(tmp_path: Path):
    write_folder(tmp_path, {"solo": [8]}, clips_per_video=8)
    with pytest.raises(DataError, match="at least two videos"):
        list(Loader(tmp_path, ("solo",), RECIPE).train(0))


def test_features_give_augmented_views_and_any_second_in_training(features: Path):
    recipe = replace(RECIPE, mixtures=0, other=False)
    views, seconds = set(), set()
    for epoch in range(8):
        for batch in Loader(features, ("solo",), recipe).train(epoch):
            assert batch.features and batch.visual.dtype == batch.log_mels.dtype == torch.float32
            views |= {int(value) for value in batch.visual[:, 0, 0, 0]}
            for key, value in zip(batch.keys, batch.log_mels[:, 0, 0, 0], strict=True):
                assert int(value) <= int(key[1:]) % 3
                seconds.add(int(value))
    assert views == {1, 2} and seconds == {0, 1, 2}
    own = [b for b in Loader(features, ("solo",), replace(recipe, neighbour_seconds=False)).train(0)]
    assert {float(value) for batch in own for value in batch.log_mels[:, 0, 0, 0]} == {0.0}


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_sequential_gives_each_row_once_as_it_is(frames: Path, features: Path, world: int):
    recipe = replace(RECIPE, batch=12)
    ranks = [list(Loader(frames, ("grid", "multi"), recipe, Rank(r, world)).sequential()) for r in range(world)]
    keys = [key for batches in ranks for batch in batches for key in batch.keys]
    expected = {sample["key"]: sample for s in ("grid", "multi") for sample in all_samples(frames, s)}
    assert sorted(keys) == sorted(expected) and len(keys) == 21
    for batches in ranks:
        for batch in batches:
            assert batch.other is None and batch.mixed is None
            for key, visual, mel in zip(batch.keys, batch.visual, batch.log_mels, strict=True):
                frame = torch.from_numpy(expected[key]["frame"]).permute(2, 0, 1)[None]
                assert torch.equal(visual, image.to_input(frame, recipe.image)[0])
                wave = torch.from_numpy(expected[key]["waveform"])[None]
                assert torch.equal(mel, audio.log_mel(wave, AUDIO)[0])
    plain = [batch for batch in Loader(features, ("solo",), recipe).sequential()]
    assert all(float(b.visual[:, 0].abs().sum() + b.log_mels[:, 0, 0].abs().sum()) == 0 for b in plain)


def all_samples(folder: Path, subset: str):
    return shards.samples(folder, subset=subset, split="train")


def test_damaged_samples_are_skipped_alike_by_all_workers(tmp_path: Path):
    write_folder(tmp_path, {"solo": [10, 10]})
    path = tmp_path / "solo-train-00000.tar"
    offset, _ = shards.places(path, {"solo0003"})["solo0003"]["frame0.jpg"]
    data = bytearray(path.read_bytes())
    data[offset + 20 : offset + 60] = bytes(40)
    path.write_bytes(data)
    recipe = replace(RECIPE, batch=4)
    alone, together = (interleaved(tmp_path, world, recipe, ("solo",)) for world in (1, 2))
    assert len(alone) == 4  # 19 whole samples
    assert [b.keys for b in alone] == [b.keys for b in together]
    assert "solo0003" not in {key for batch in alone for key in batch.keys}
    loader = Loader(tmp_path, ("solo",), recipe)
    assert len([key for batch in loader.sequential() for key in batch.keys]) == 19
    assert loader.reader.damaged == 1
    with pytest.raises(DataError, match="1 of 20 samples"):
        list(Loader(tmp_path, ("solo",), recipe, max_damaged=0.01).train(0))


def test_any_number_of_threads_makes_the_same_batches(frames: Path):
    def batches(threads: int) -> list[AVBatch]:
        return list(Loader(frames, ("grid", "multi"), RECIPE, threads=threads).train(0))

    before = torch.get_num_threads()
    for one, other in zip(batches(1), batches(3), strict=True):
        assert one.keys == other.keys
        for name in ("visual", "log_mels", "other", "mixed"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.get_num_threads() == before


def test_a_truncated_and_a_missing_shard_cost_their_own_samples_on_every_rank(tmp_path: Path):
    write_folder(tmp_path, {"solo": [10, 10, 10]})
    path = tmp_path / "solo-train-00001.tar"
    start = min(offset for offset, _ in shards.places(path, {"solo0014"})["solo0014"].values())
    os.truncate(path, start + 30)
    (tmp_path / "solo-train-00002.tar").unlink()
    recipe = replace(RECIPE, batch=4, other=False)
    whole = {f"solo{number:04d}" for number in range(14)}
    for world in (1, 2):
        ranks = [Loader(tmp_path, ("solo",), recipe, Rank(r, world), max_damaged=0.6) for r in range(world)]
        found = [[batch.keys for batch in loader.train(0)] for loader in ranks]
        assert [len(keys) for batches in found for keys in batches] == [4 // world] * (3 * world)
        assert {key for batches in found for keys in batches for key in keys} < whole
        assert {key for loader in ranks for batch in loader.sequential() for key in batch.keys} == whole
        assert [loader.reader.damaged for loader in ranks] == [16] * world


def test_impossible_requests_are_refused(frames: Path):
    with pytest.raises(DataError, match="batch is 8 for 3 workers"):
        Loader(frames, ("grid",), RECIPE, Rank(0, 3))
    with pytest.raises(DataError, match=r"7 samples .* of multi train .* do not fill a batch of 8"):
        list(Loader(frames, ("multi",), RECIPE).train(0))
    with pytest.raises(DataError, match="44100"):
        Loader(frames, ("grid",), replace(RECIPE, audio=AudioConfig(sample_rate_hz=44100)))
    assert Loader(frames, ("grid", "multi"), RECIPE).steps == 2


def test_an_early_end_leaves_no_thread(frames: Path):
    import threading

    before = threading.active_count()
    batches = Loader(frames, ("grid",), replace(RECIPE, batch=2)).train(0)
    next(iter(batches))
    batches.close()
    assert threading.active_count() == before


def test_a_picture_that_cannot_be_decoded_is_named_and_leaves_no_thread(tmp_path: Path):
    import threading

    samples = [clip_sample(f"s{number:02d}", f"v{number}") for number in range(40)]
    samples[3] = replace(samples[3], members={**samples[3].members, "frame0.jpg": b"text"})
    shards.write_shard(tmp_path / "solo-train-00000.tar", samples)
    shards.write_manifest(tmp_path, [Shard("solo-train-00000.tar", "solo", "train", 40, "")], "frames")
    before = threading.active_count()
    with pytest.raises(DataError, match="sample s03") as raised:
        list(Loader(tmp_path, ("solo",), replace(RECIPE, batch=4), threads=2).sequential())
    assert raised.value.__traceback__ and threading.active_count() == before


def test_large_samples_are_shuffled_in_smaller_groups(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardReader(features, ("solo",), "train")
    assert loader.buffered(reader) == loader.BUFFER["features"]
    monkeypatch.setattr(loader, "BUFFER_BYTES", 3.5 * reader.sample_bytes)
    assert loader.buffered(reader) == 3
    monkeypatch.setattr(loader, "BUFFER_BYTES", 1)
    assert loader.buffered(reader) == 1


def test_threads_that_make_rows_compute_with_one_each() -> None:
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    used: set[int] = set()

    def row(number: int, *, out: torch.Tensor | None = None) -> torch.Tensor:
        made = torch.nn.functional.interpolate(torch.full((1, 3, 300, 300), float(number)), (8, 8))[0]
        used.add(torch.get_num_threads())
        return made if out is None else out.copy_(made)

    try:
        with Pool(2) as pool:
            assert pool.stack(row, [(number,) for number in range(16)])[:, 0, 0, 0].tolist() == list(range(16))
        assert used == {1} and torch.get_num_threads() == 2, "those of the caller stay"
    finally:
        torch.set_num_threads(own)
