import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsol_core.config import ClipsConfig
from dsol_core.types import DataError, Scene
from tasks.adapters import media, shards, tables
from tasks.adapters.steps import Run, Scope
from tasks.adapters.store import Artifact
from tasks.write_shards import write_shards

CONFIG = ClipsConfig(side=32, samples_per_shard=4)
BOX = {"x": 0.2, "y": 0.4, "width": 0.5, "height": 0.6, "category": "cello", "sounding": True}
SECOND = 16000


class Data:
    """Parents of the step over videos that `decode` below invents: 3 seconds each, grey level by video and second."""

    def __init__(self, root: Path, videos: dict[str, tuple[str, str]], scenes: list[Scene]) -> None:
        for name in ("clips", "scenes", "videos", "media"):
            (root / name).mkdir(parents=True)
        self.media = Artifact("make_videos", root / "media", "m" * 16)
        rows, clips = [], []
        for number, (name, (kind, split)) in enumerate(videos.items()):
            path = f"{name}.mp4"
            (root / "media" / path).write_text(str(10 + 40 * (number % 6)))
            rows.append({"id": name, "path": path, "kind": kind, "split": split, "duration": 3.0, "status": "ok"})
            clips += [
                {
                    "id": f"{name}_{1000 * second:08d}",
                    "video_id": name,
                    "start": float(second),
                    "duration": 1.0,
                    "kind": kind,
                    "split": split,
                    "categories": [f"category-{name}"],
                    "boxes": [BOX],
                }
                for second in range(3)
            ]
        tables.write(root / "videos" / "videos.parquet", "videos", rows)
        tables.write(root / "clips" / "clips.parquet", "clips", clips)
        tables.write(root / "scenes" / "scenes.parquet", "scenes", map(tables.scene_row, scenes))
        self.clips, self.scenes, self.videos = (
            Artifact(name, root / name, name[0] * 16) for name in ("clips", "scenes", "videos")
        )

    def run(self, store: Path, config: ClipsConfig = CONFIG, force: tuple[str, ...] = ()) -> Artifact:
        run = Run.local(store)
        run.scope = Scope(force=force)
        return write_shards.fn(run, self.clips, self.scenes, self.videos, self.media, config)


SOLO = {f"solo-{i}": ("solo", "train") for i in range(4)} | {f"val-{i}": ("solo", "val") for i in range(4)}
MULTI = {"multi-0": ("multi", "train"), "multi-1": ("multi", "test")}
SCENES = [
    Scene(
        f"scene-{split}-{n:05d}",
        tuple(f"{prefix}-{(n + i) % 4}_{1000 * ((i + (n == 1)) % 3):08d}" for i in range(4)),
        (True, False, n % 2 == 0, n % 2 == 1),
        (1.0, 0.9, 1.2, 1.1),
        split,
    )
    for split, prefix in (("train", "solo"), ("val", "val"))
    for n in range(5)
]
decoded: Counter[str] = Counter()
failing: dict[str, int] = {}


def decode(path: Path, config: ClipsConfig, *, duration: float):
    decoded[path.stem] += 1
    level = int(path.read_text())
    sound = np.sin(2 * np.pi * (200 + 10 * level) * np.arange(round(duration * SECOND)) / SECOND)
    louder = 1 + np.arange(len(sound)) // SECOND  # from second to second
    sound = (4000 * louder * sound).astype(np.int16)
    for second in range(int(duration)):
        if second == failing.get(path.stem):
            raise media.MediaError(path, "damaged: somewhere")
        frames = np.full((config.frames_per_clip, config.side, config.side, 3), level + 10 * second, np.uint8)
        low, high = 0, 3 * SECOND
        if path.stem == "solo-0":  # as if at its ends it had one whole clip more, not two
            low, high = max(0, second - 1) * SECOND, min(3, second + 2) * SECOND
        yield media.DecodedClip(second, float(second), frames, sound[low:high], second * SECOND - low)


@pytest.fixture(autouse=True)
def invented(monkeypatch: pytest.MonkeyPatch):
    decoded.clear()
    failing.clear()
    monkeypatch.setattr(media, "decode", decode)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path / "parents", SOLO | MULTI, SCENES)


def listing(artifact: Artifact) -> dict[str, tuple[int, str]]:
    return {one.path: (one.samples, one.sha256) for one in shards.read_manifest(artifact.folder)[1]}


def all_samples(artifact: Artifact, subset: str, split: str) -> list[shards.Sample]:
    return list(shards.ShardReader(artifact.folder, (subset,), split).ordered())


def test_every_clip_and_scene_becomes_a_sample_and_each_video_is_decoded_once(data: Data, tmp_path: Path):
    artifact = data.run(tmp_path / "store")
    assert set(decoded.values()) == {1} and len(decoded) == 10
    sizes = Counter()
    for one in shards.read_manifest(artifact.folder)[1]:
        sizes[one.subset, one.split] += one.samples
        assert one.samples <= CONFIG.samples_per_shard
        assert one.sha256 == artifact.record["files"][one.path]["sha256"]
    assert sizes == {
        ("solo", "train"): 12,
        ("solo", "val"): 12,
        ("multi", "train"): 3,
        ("multi", "test"): 3,
        ("grid", "train"): 5,
        ("grid", "val"): 5,
    }
    assert artifact.record["rows"] == {"read": 40, "written": 40, "dropped": {}}
    assert list(tables.read(artifact.file("dropped.parquet"))) == []
    assert artifact.files()[-1] == "solo-val-00003.tar" and len(listing(artifact)) == len(artifact.files()) - 2


def test_a_clips_sample_holds_its_picture_sound_and_facts(data: Data, tmp_path: Path):
    artifact = data.run(tmp_path / "store", replace(CONFIG, frames_per_clip=2))
    found = {sample.key: sample for sample in all_samples(artifact, "solo", "train")}
    sample = found["solo-2_00001000"]
    assert set(sample.members) == {"frame0.jpg", "frame1.jpg", "audio.npy"}
    assert abs(float(shards.picture(sample).float().mean()) - (10 + 40 * 2 + 10)) < 2
    meta = {name: value for name, value in sample.meta.items() if name != "crc32"}
    assert meta == {
        "key": "solo-2_00001000",
        "video_ids": ["solo-2"],
        "kind": "solo",
        "split": "train",
        "categories": ["category-solo-2"],
        "boxes": [BOX],
        "start": 1.0,
        "duration": 1.0,
        "offset": SECOND,
        "height": 32,
        "width": 32,
    }
    own = shards.windows(sample)
    assert len(own) == 3
    ends = [shards.windows(found[f"solo-2_0000{second}000"]) for second in (0, 2)]
    for around, order in zip(ends, ([1, 0, 2], [2, 0, 1]), strict=True):  # all three hear the whole video
        for window, place in zip(around, order, strict=True):
            np.testing.assert_array_equal(window, own[place])


def test_a_scene_tiles_its_clips_mixes_what_sounds_and_moves_the_boxes(data: Data, tmp_path: Path):
    artifact = data.run(tmp_path / "store")
    scene = SCENES[1]
    sample = next(s for s in all_samples(artifact, "grid", "train") if s.key == scene.id)
    solo = {s.key: s for s in all_samples(artifact, "solo", "train")}
    for part, clip in enumerate(scene.clip_ids):
        assert sample.members[f"part{part}.jpg"] == solo[clip].members["frame0.jpg"]
    assert sample.meta["video_ids"] == [clip.split("_")[0] for clip in scene.clip_ids]
    assert sample.meta["categories"] == sorted(["category-solo-1", "category-solo-0"])
    parts = [solo[clip].meta for clip in scene.clip_ids]
    assert sample.meta["visible"] == sorted({*(name for part in parts for name in part["categories"]), "cello"})
    assert [box["sounding"] for box in sample.meta["boxes"]] == [True, False, False, True]
    corners = [(0.1, 0.2), (0.6, 0.2), (0.1, 0.7), (0.6, 0.7)]
    assert [(b["x"], b["y"]) for b in sample.meta["boxes"]] == [pytest.approx(corner) for corner in corners]
    assert all((b["width"], b["height"]) == (0.25, 0.3) for b in sample.meta["boxes"])


def test_a_scene_has_the_mixed_windows_around_its_own_too(data: Data, tmp_path: Path):
    artifact = data.run(tmp_path / "store")
    solo = {s.key: s for s in all_samples(artifact, "solo", "train")}
    made = {s.key: s for s in all_samples(artifact, "grid", "train")}
    most = set[int]()
    for scene in (scene for scene in SCENES if scene.id in made):
        heard = [[shards.waveform(window) for window in shards.windows(solo[clip])] for clip in scene.clip_ids]
        on = [part for part in range(4) if scene.sounding[part]]
        lengths = [len(heard[part]) for part in on]
        windows = shards.windows(made[scene.id])
        assert len(windows) == 3
        most |= set(lengths)
        # The level is that of the own window; a clip comes again where it has no second neighbour.
        level = [0.1 * scene.gains[part] / np.sqrt((heard[part][0] ** 2).mean()) for part in on]
        for place, window in enumerate(windows):
            waves = [heard[part][place % len(heard[part])] for part in on]
            expected = sum(one * wave for one, wave in zip(level, waves, strict=True))
            assert np.allclose(shards.waveform(window), expected, atol=1e-3)
    assert most == {2, 3}


def test_equal_input_gives_equal_bytes(data: Data, tmp_path: Path):
    assert listing(data.run(tmp_path / "one")) == listing(data.run(tmp_path / "two"))


def test_videos_that_fail_are_counted_with_their_scenes(data: Data, tmp_path: Path):
    failing.update({"solo-1": 1, "val-3": 0})
    (data.media.folder / "multi-0.mp4").unlink()
    artifact = data.run(tmp_path / "store")
    dropped = {row["key"]: row for row in tables.read(artifact.file("dropped.parquet"))}
    clips = {key: row["reason"] for key, row in dropped.items() if not key.startswith("scene")}
    assert set(clips) == {
        *("solo-1_00001000", "solo-1_00002000"),
        *(f"val-3_0000{n}000" for n in range(3)),
        *(f"multi-0_0000{n}000" for n in range(3)),
    }
    assert clips["solo-1_00001000"] == "damaged: somewhere" and clips["multi-0_00000000"].startswith("missing: ")
    lost = {scene.id for scene in SCENES if set(scene.clip_ids) & set(clips)}
    assert {key for key in dropped if key.startswith("scene")} == lost and 0 < len(lost) < 10
    assert dropped[min(lost)]["video_id"] in ("solo-1", "val-3")
    rows = artifact.record["rows"]
    assert rows["dropped"] == {"damaged": 5, "missing": 3, "a clip of the scene was dropped": len(lost)}
    assert rows["read"] == rows["written"] + 8 + len(lost) == 40


def test_a_video_shorter_than_its_index_loses_the_missing_clips(data: Data, tmp_path: Path):
    rows = list(tables.read(data.videos.file("videos.parquet")))
    tables.write(
        data.videos.folder / "videos.parquet",
        "videos",
        [{**row, "duration": 2.0 if row["id"] == "solo-0" else 3.0} for row in rows],
    )
    artifact = data.run(tmp_path / "store")
    (row,) = (r for r in tables.read(artifact.file("dropped.parquet")) if not r["key"].startswith("scene"))
    assert row["key"] == "solo-0_00002000" and row["reason"].startswith("shorter than its index")


def test_too_many_failures_stop_the_step_with_the_reasons(data: Data, tmp_path: Path):
    failing.update({name: 0 for name in (*SOLO, *MULTI)})
    with pytest.raises(DataError, match=r"of 30 clips cannot be decoded, more than .* 0.5 .* damaged \(\d+\)"):
        data.run(tmp_path / "store")
    with pytest.raises(DataError, match="none of 30 clips became a sample"):
        data.run(tmp_path / "store2", replace(CONFIG, max_dropped=1.0))


def test_another_try_decodes_again_what_failed(data: Data, tmp_path: Path):
    failing.update({name: 0 for name in (*SOLO, *MULTI)})
    with pytest.raises(DataError, match="cannot be decoded"):
        data.run(tmp_path / "store")
    failing.clear()
    artifact = data.run(tmp_path / "store")
    assert artifact.record["rows"]["dropped"] == {}
    assert listing(artifact) == listing(data.run(tmp_path / "undisturbed"))


def test_a_killed_try_keeps_its_losses_until_the_step_is_forced(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    def killed(store: Path) -> None:
        failing["solo-1"] = 0
        with monkeypatch.context() as patch:
            patch.setattr(shards, "write_manifest", kill)
            with pytest.raises(KeyboardInterrupt):
                data.run(store)
        failing.clear()
        decoded.clear()

    killed(tmp_path / "one")
    assert data.run(tmp_path / "one").record["rows"]["dropped"], "finished pieces are taken as they are"
    assert not decoded
    killed(tmp_path / "two")
    assert data.run(tmp_path / "two", force=("write_shards",)).record["rows"]["dropped"] == {}
    assert 0 < len(decoded) < len({**SOLO, **MULTI}), "what lost nothing is taken"


def test_a_killed_run_goes_on_from_its_finished_shards(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    finished = 0
    original = shards.write_shard

    def killed(path: Path, samples) -> int:
        nonlocal finished
        finished += 1
        if finished == 6:
            next(iter(samples))
            raise KeyboardInterrupt
        return original(path, samples)

    monkeypatch.setattr(shards, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        data.run(tmp_path / "store")
    before = Counter(decoded)
    monkeypatch.setattr(shards, "write_shard", original)
    artifact = data.run(tmp_path / "store")
    again = {name for name in decoded if decoded[name] > before[name] > 0}
    assert len(before) == 6 and len(again) == 1 and max(decoded.values()) == 2
    assert listing(artifact) == listing(data.run(tmp_path / "undisturbed"))
    assert not list((tmp_path / "store" / "write_shards").glob(".work-*"))


def test_a_long_video_fills_several_shards(tmp_path: Path):
    data = Data(tmp_path / "parents", {"long": ("solo", "train"), "other": ("solo", "train")}, [])
    artifact = data.run(tmp_path / "store", replace(CONFIG, samples_per_shard=2))
    assert [value[0] for value in listing(artifact).values()] == [2, 1, 2, 1] and decoded == {"long": 1, "other": 1}
    keys = [sample.key for sample in all_samples(artifact, "solo", "train")]
    assert len(set(keys)) == 6


def test_the_order_of_rows_does_not_matter(data: Data, tmp_path: Path):
    first = data.run(tmp_path / "one")
    path = data.clips.file("clips.parquet")
    tables.write(path, "clips", list(tables.read(path))[::-1])
    assert listing(first) == listing(data.run(tmp_path / "two"))


def test_real_videos_become_samples(tmp_path: Path, film, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    data = Data(tmp_path / "parents", {"real": ("solo", "train"), "text": ("solo", "train")}, [])
    (data.media.folder / "real.mp4").write_bytes(film("for-shards.mp4", seconds=3).read_bytes())
    artifact = data.run(tmp_path / "store")
    found = all_samples(artifact, "solo", "train")
    assert sorted(sample.key for sample in found) == [f"real_0000{n}000" for n in range(3)]
    levels = {sample.key: float(shards.picture(sample).float().mean()) for sample in found}
    assert levels["real_00000000"] < levels["real_00001000"] < levels["real_00002000"]
    wave = shards.waveform(shards.windows(found[0])[0])
    peak = int(np.abs(np.fft.rfft(wave)).argmax())
    assert peak == 440
    assert json.loads(artifact.file("shards.json").read_text())["content"] == "frames"
    assert artifact.record["rows"]["written"] == 3 and sum(artifact.record["rows"]["dropped"].values()) == 3
