import io
import os
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsol_core.types import DataError
from tasks.adapters import shards
from tasks.adapters.shards import Sample, Shard, ShardReader

from .made_shards import SECOND, SIDE, clip_sample, write_folder

ROOT = Path(__file__).resolve().parents[3]


def keys(samples) -> list[str]:
    return [sample.key for sample in samples]


def test_a_shard_gives_back_what_was_written(tmp_path: Path):
    sample = clip_sample("a-_1", "video", frames=3)
    assert shards.write_shard(tmp_path / "x.tar", [sample]) == 1
    (read,) = shards.read_shard(tmp_path / "x.tar")
    assert read.members == sample.members
    assert {name: value for name, value in read.meta.items() if name != "crc32"} == sample.meta
    assert read.video == "video"


def test_equal_samples_give_equal_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shards.write_shard(tmp_path / "a.tar", [clip_sample("a", "v"), clip_sample("b", "v")])
    monkeypatch.setattr("time.time", lambda: 12345.0)
    shards.write_shard(tmp_path / "b.tar", [clip_sample("a", "v"), clip_sample("b", "v")])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "b.tar"]


@pytest.mark.parametrize("key", ["", "a.b", "a/b"])
def test_a_key_that_would_not_survive_is_refused_and_leaves_no_shard(tmp_path: Path, key: str):
    with pytest.raises(DataError, match="sample key"):
        shards.write_shard(tmp_path / "x.tar", [Sample(key, {}, {})])
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize("key", ["__abc__def__", "-start", "é" * 150])
def test_unusual_keys_survive(tmp_path: Path, key: str):
    shards.write_shard(tmp_path / "x.tar", [clip_sample(key, "v")])
    assert keys(shards.read_shard(tmp_path / "x.tar")) == [key]


def test_ordered_is_the_manifests_order_and_subsets_and_splits_are_kept_apart(tmp_path: Path):
    write_folder(tmp_path, {"solo": [3, 2], "multi": [2]})
    solo = ["solo0000", "solo0001", "solo0002", "solo0003", "solo0004"]
    assert keys(ShardReader(tmp_path, ("solo",), "train").ordered()) == solo
    assert keys(ShardReader(tmp_path, None, None).ordered()) == [*solo, "multi0000", "multi0001"]
    assert ShardReader(tmp_path, ("solo",), "test").expected == 0


def test_shuffled_is_a_permutation_that_depends_on_the_seed_alone(tmp_path: Path):
    write_folder(tmp_path, {"solo": [7, 7, 6]})
    reader = ShardReader(tmp_path, ("solo",), "train")
    first = keys(reader.shuffled(5, buffer=6))
    assert first == keys(ShardReader(tmp_path, ("solo",), "train").shuffled(5, buffer=6))
    assert first != keys(reader.shuffled(6, buffer=6))
    assert first != sorted(first) and sorted(first) == keys(reader.ordered())


def test_the_order_of_shards_is_mixed_too(tmp_path: Path):
    write_folder(tmp_path, {"solo": [2, 2, 2]})
    reader = ShardReader(tmp_path, ("solo",), "train")
    starts = {keys(reader.shuffled(seed, buffer=1))[0] for seed in range(20)}
    assert starts == {"solo0000", "solo0002", "solo0004"}


def test_a_truncated_shard_costs_its_last_samples_only(tmp_path: Path):
    write_folder(tmp_path, {"solo": [4, 4]})
    path = tmp_path / "solo-train-00000.tar"
    second = shards.places(path, {"solo0002"})["solo0002"]["audio.npy"][0]
    with path.open("r+b") as file:
        file.truncate(second + 100)
    reader = ShardReader(tmp_path, ("solo",), "train", max_damaged=0.25)
    expected = ["solo0000", "solo0001", *(f"solo000{n}" for n in range(4, 8))]
    assert keys(reader.ordered()) == expected
    assert reader.lost == {"solo-train-00000.tar": 2} and reader.damaged == 2
    assert keys(reader.ordered()) == expected and reader.damaged == 2  # counted once, not once a pass


def test_a_shard_cut_between_two_samples_is_noticed(tmp_path: Path):
    write_folder(tmp_path, {"solo": [4]})
    path = tmp_path / "solo-train-00000.tar"
    offset = shards.places(path, {"solo0002"})["solo0002"]["audio.npy"][0] - 512
    with path.open("r+b") as file:
        file.truncate(offset)
    reader = ShardReader(tmp_path, ("solo",), "train", max_damaged=0.5)
    assert keys(reader.ordered()) == ["solo0000", "solo0001"] and reader.damaged == 2


@pytest.mark.parametrize(
    ("name", "skip"), [("frame0.jpg", 200), ("audio.npy", 500), ("meta.json", 30), ("audio.npy", 2)]
)
def test_a_changed_byte_costs_its_own_sample(tmp_path: Path, name: str, skip: int):
    write_folder(tmp_path, {"solo": [3]})
    path = tmp_path / "solo-train-00000.tar"
    offset, _ = shards.places(path, {"solo0001"})["solo0001"][name]
    data = bytearray(path.read_bytes())
    data[offset + skip] ^= 0xFF
    path.write_bytes(data)
    reader = ShardReader(tmp_path, ("solo",), "train", max_damaged=0.5)
    assert keys(reader.ordered()) == ["solo0000", "solo0002"] and reader.damaged == 1


def damage_header(path: Path, key: str, name: str, byte: int = 0) -> None:
    offset, _ = shards.places(path, {key})[key][name]
    data = bytearray(path.read_bytes())
    data[offset - 512 + byte] ^= 0x01
    path.write_bytes(data)


@pytest.mark.parametrize("byte", [0, 130, 150])  # of a header: the name, the size, its own checksum
def test_a_damaged_header_costs_its_own_sample(tmp_path: Path, byte: int):
    write_folder(tmp_path, {"solo": [3]})
    damage_header(tmp_path / "solo-train-00000.tar", "solo0001", "frame0.jpg", byte)
    reader = ShardReader(tmp_path, ("solo",), "train", max_damaged=0.5)
    assert keys(reader.ordered()) == ["solo0000", "solo0002"] and reader.damaged == 1


def test_digits_behind_a_damaged_header_are_no_header(tmp_path: Path):
    samples = [clip_sample(key, "v") for key in "abc"]
    samples[1] = replace(samples[1], meta={**samples[1].meta, "a": "9" * 600})  # blocks of nothing but digits
    shards.write_shard(tmp_path / "x.tar", samples)
    damage_header(tmp_path / "x.tar", "b", "meta.json")
    assert keys(shards.read_shard(tmp_path / "x.tar")) == ["a", "c"]


def test_a_long_name_whose_member_is_damaged_is_not_given_to_the_next(tmp_path: Path):
    long = "\u00e9" * 150
    shards.write_shard(tmp_path / "x.tar", [clip_sample(key, "v") for key in ("a", long, "b")])
    damage_header(tmp_path / "x.tar", long, "meta.json")
    assert keys(shards.read_shard(tmp_path / "x.tar")) == ["a", "b"]


def test_arrays_in_another_layout_than_ours_are_refused():
    column = io.BytesIO()
    np.save(column, np.asfortranarray(np.zeros((2, 3))))
    for data in (column.getvalue(), b"", b"text", shards.array_bytes(np.zeros(9))[:-1]):
        with pytest.raises(DataError, match=r"sample a: x.npy is no array"):
            shards.array(Sample("a", {}, {"x.npy": data}), "x.npy")
    whole = np.arange(6, dtype=np.float16).reshape(1, 2, 3)
    read = shards.array(Sample("a", {}, {"x.npy": shards.array_bytes(whole)}), "x.npy")
    assert np.array_equal(read, whole) and read.dtype == whole.dtype


def test_a_missing_shard_is_counted_and_too_much_damage_stops(tmp_path: Path):
    write_folder(tmp_path, {"solo": [2, 2, 2]})
    (tmp_path / "solo-train-00001.tar").unlink()
    reader = ShardReader(tmp_path, ("solo",), "train", max_damaged=0.4)
    assert len(keys(reader.ordered())) == 4 and reader.lost == {"solo-train-00001.tar": 2}
    with pytest.raises(DataError, match=r"2 of 6 samples .* solo-train-00001.tar"):
        keys(ShardReader(tmp_path, ("solo",), "train", max_damaged=0.3).ordered())


def test_a_pickle_in_a_shard_is_never_executed(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    sample = clip_sample("a", "v")
    objects = io.BytesIO()
    np.save(objects, np.array([Evil()], dtype=object), allow_pickle=True)
    hostile = Sample("b", sample.meta, {**sample.members, "audio.npy": objects.getvalue()})
    path = tmp_path / "x.tar"
    shards.write_shard(path, [sample, hostile])
    pickled = pickle.dumps(Evil())
    with tarfile.open(path, "a") as tar:
        for name in ("a.evil.pkl", "a.pyd", "a.pickle", "c.pth"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            tar.addfile(member, io.BytesIO(pickled))
    first, second = list(shards.read_shard(path))[:2]
    assert first.key == "a" and "evil.pkl" not in first.members
    assert len(shards.windows(first)) == 2
    with pytest.raises(DataError, match="no array"):
        shards.windows(second)
    assert not (tmp_path / "executed").exists()
    import webdataset.utils

    assert webdataset.utils.enforce_security


def test_windows_are_the_own_second_first_and_only_what_the_sound_holds():
    sound = np.arange(3 * SECOND).astype(np.int16)
    meta = {**clip_sample("a", "v").meta, "offset": SECOND}
    middle = Sample("a", meta, {"audio.npy": shards.array_bytes(sound)})
    starts = [int(window[0]) & 0xFFFF for window in shards.windows(middle)]
    assert starts == [SECOND, 0, 2 * SECOND]
    assert all(window.shape == (SECOND,) for window in shards.windows(middle))
    cut = Sample("a", {**meta, "offset": SECOND + 161}, {"audio.npy": shards.array_bytes(sound)})
    assert [int(w[0]) for w in shards.windows(cut)] == [SECOND + 161, 161]  # what lies after is too short
    short = Sample("a", {**meta, "offset": 0}, {"audio.npy": shards.array_bytes(sound[:100])})
    with pytest.raises(DataError, match="100 values of sound"):
        shards.windows(short)
    assert shards.waveform(np.array([-32768, 0, 16384], np.int16)).tolist() == [-1.0, 0.0, 0.5]


def test_a_picture_is_the_middle_frame_and_a_grid_is_tiled_row_by_row(tmp_path: Path):
    from tasks.adapters import images

    def flat(value: int) -> bytes:
        return images.encode_jpeg(np.full((SIDE, SIDE, 3), value, np.uint8), 95)

    values = [10, 90, 170, 250]
    frames = Sample("a", {}, {f"frame{i}.jpg": flat(values[i % 4]) for i in range(12)})
    assert shards.pictures(frames)[-1] == "frame11.jpg"
    assert abs(float(shards.picture(frames).float().mean()) - values[6 % 4]) < 2
    assert abs(float(shards.picture(frames, 1).float().mean()) - values[1]) < 2
    tiled = shards.picture(Sample("a", {}, {f"part{i}.jpg": flat(values[i]) for i in range(4)}))
    assert tiled.shape == (3, SIDE, SIDE)
    half = SIDE // 2
    corners = [tiled[:, y : y + half, x : x + half].float().mean() for y in (0, half) for x in (0, half)]
    assert np.allclose(corners, values, atol=2)


def test_samples_are_decoded_for_evaluation(tmp_path: Path):
    write_folder(tmp_path, {"solo": [3]}, split="val")
    (one,) = shards.samples(tmp_path, subset="solo", split="val", keys={"solo0001"})
    assert one["key"] == "solo0001" == one["meta"]["key"]
    assert one["frame"].shape == (SIDE, SIDE, 3) and one["frame"].dtype == np.uint8
    assert one["waveform"].shape == (SECOND,) and one["waveform"].dtype == np.float32
    assert len(list(shards.samples(tmp_path, subset="solo", split="val"))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as a list of shards"),
        ("{}", "cannot be read as a list of shards"),
        ('{"content": "frames", "shards": [{"path": "x"}]}', "cannot be read as a list of shards"),
    ],
)
def test_a_bad_manifest_is_reported(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "shards.json").write_text(text)
    with pytest.raises(DataError, match=message):
        shards.read_manifest(tmp_path)


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path: Path):
    shards.write_manifest(tmp_path, [Shard("../secret.tar", "solo", "train", 1, "")], "frames")
    with pytest.raises(DataError, match=r"names '\.\./secret.tar'"):
        shards.read_manifest(tmp_path)


def test_places_find_a_samples_bytes(tmp_path: Path):
    write_folder(tmp_path, {"solo": [3]})
    path = tmp_path / "solo-train-00000.tar"
    found = shards.places(path, {"solo0001", "nowhere"})
    assert set(found) == {"solo0001"}
    sample = shards.read_at(path, "solo0001", found["solo0001"])
    assert sample.members == clip_sample("solo0001", "solo-video000").members
    assert sample.meta["video_ids"] == ["solo-video000"]
    with pytest.raises(DataError, match="no sample solo0001 at its place"):
        shards.read_at(path, "solo0001", {"meta.json": (3, 10)})


@pytest.mark.parametrize("key", ["solo0000", "solo0001"])
def test_places_go_on_after_a_damaged_header_as_reading_does(tmp_path: Path, key: str):
    write_folder(tmp_path, {"solo": [3]})
    path = tmp_path / "solo-train-00000.tar"
    damage_header(path, key, "audio.npy", 130)
    whole = [one.key for one in shards.read_shard(path)]
    assert len(whole) == 2 and key not in whole
    found = shards.places(path, set(whole))
    assert [shards.read_at(path, one, found[one]).members["frame0.jpg"][:2] for one in whole] == [b"\xff\xd8"] * 2
    assert shards.places(tmp_path / "nowhere.tar", {key}) == {}
    last = found[whole[-1]]
    with path.open("r+b") as file:
        file.truncate(max(offset + size for offset, size in last.values()) - 1)
    assert len(shards.places(path, {whole[-1]})[whole[-1]]) == len(last) - 1


def test_shards_are_what_webdatasets_own_writer_makes(tmp_path: Path):
    import webdataset as wds

    samples = [clip_sample("a", "v", frames=2), clip_sample("é" * 150, "v")]
    shards.write_shard(tmp_path / "ours.tar", samples)
    with (tmp_path / "theirs.tar").open("wb") as file, wds.TarWriter(file, mtime=0, encoder=False) as writer:
        for sample in samples:
            (read,) = (one for one in shards.read_shard(tmp_path / "ours.tar") if one.key == sample.key)
            writer.write({"__key__": sample.key, **sample.members, "meta.json": shards.json_bytes(read.meta)})
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_decoding_tasks_import_neither_torch_nor_webdataset():
    code = "import tasks.adapters.samples, sys; print([one for one in ('torch', 'webdataset') if one in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
