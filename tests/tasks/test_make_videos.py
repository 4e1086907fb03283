import csv
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dsol_core.config import OrchestraConfig, PhotosConfig, VideosConfig
from dsol_core.instruments import CATEGORIES
from dsol_core.types import Box, DataError
from tasks import make_videos as step
from tasks.adapters import annotations, images, media, music_files
from tasks.adapters.steps import Run
from tasks.adapters.user_folders import external
from tasks.make_videos import make_videos

SMALL = OrchestraConfig(solo_per_category=(1, 0, 1), multi=(1, 1, 1), seconds=1.0, frames_per_second=4, side=64)
CONFIG = VideosConfig(orchestra=SMALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_videos.fn(Run.local(tmp_path_factory.mktemp("store")), CONFIG, 7)


def _digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.mp4")}


def test_there_are_as_many_videos_as_asked_for_and_the_lists_name_them(made):
    solos = {path.stem for path in (made.folder / "solo").iterdir()}
    multis = {path.stem for path in (made.folder / "multi").iterdir()}
    assert (len(solos), len(multis)) == (22, 3)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", name) for name in solos | multis)
    for kind, names, sizes in (("solo", solos, (11, 0, 11)), ("duet", multis, (1, 1, 1))):
        lists = [annotations.read_split_list(made.file(f"splits/{kind}_{s}.txt")) for s in ("train", "val", "test")]
        assert tuple(map(len, lists)) == sizes
        assert {name for names_of_split in lists for name in names_of_split} == names
    first = made.file("splits/solo_train.txt").read_text().splitlines()[0]
    assert re.fullmatch(r"(\S{11})_0_1000\.flac \1_0_1000\.mp4", first)
    assert made.record["rows"]["written"] == 25


def test_video_lists_name_the_sounding_categories(made):
    solo = annotations.read_video_list(made.file("MUSIC_solo_videos.json"), "solo")
    assert sorted(solo.values()) == sorted((name,) for name in CATEGORIES for _ in range(2))
    multi = annotations.read_video_list(made.file("MUSIC_duet_videos.json"), "multi")
    assert len(multi) == 3
    assert all(len(set(names)) == 2 for names in multi.values())


def test_boxes_are_in_the_published_format_with_silent_objects_beside(made):
    names = annotations.read_categories(made.file("categories.json"))
    assert names[3] == "acoustic_guitar"
    assert {names[n] for n in range(15, 19)} == {"clarinet", "erhu", "tuba", "xylophone"}
    test = json.loads(made.file("duettest.json").read_text())
    assert len(test) == 2  # validation and test, one second each
    for key, record in test.items():
        assert re.fullmatch(r"\S{11}_0_1000/frame_000/00015\.jpg", key)
        assert (len(record["bbox"]), len(record["silent"])) == (2, 2)
        assert (record["wdith"], record["height"]) == (64, 64)
        for one in record["bbox"] + record["silent"]:
            assert one["box"] == [round(64 * value) for value in one["normbox"]]
    multi = annotations.read_video_list(made.file("MUSIC_duet_videos.json"), "multi")
    for frame in annotations.read_boxes(made.file("duettest.json"), names):
        assert frame.time == 0.5
        assert {box.category for box in frame.boxes if box.sounding} == set(multi[frame.video_id])
    train = annotations.read_boxes(made.file("solotrain.json"), names)
    assert {frame.boxes[0].category for frame in train} == set(CATEGORIES)


def test_the_files_are_real_videos_of_that_size_and_length(made):
    for kind in ("solo", "multi"):
        path = next((made.folder / kind).iterdir())
        info = media.probe(path, check="decode")
        assert (info.width, info.height, info.codec_video, info.codec_audio) == (64, 64, "h264", "aac")
        assert info.duration == pytest.approx(1.0, abs=0.05)
        assert not info.problems


def test_the_box_lies_where_the_decoded_frame_differs_from_its_surroundings(tmp_path):
    config = replace(SMALL, solo_per_category=(0, 0, 1), multi=(0, 0, 0), side=128)
    made = make_videos.fn(Run.local(tmp_path), VideosConfig(orchestra=config), 1)
    names = annotations.read_categories(made.file("categories.json"))
    inside, outside = [], []
    for frame in annotations.read_boxes(made.file("solotest.json"), names):
        path = made.folder / "solo" / f"{frame.video_id}.mp4"
        picture = next(p for time, p in media.stream_frames(path, 4) if time == 0.5).astype(float).mean(axis=2)
        edges = np.hypot(*np.gradient(picture))
        mask = np.zeros((128, 128), bool)
        (box,) = frame.boxes
        x, y, w, h = (round(128 * v) for v in (box.x, box.y, box.width, box.height))
        mask[y : y + h, x : x + w] = True
        inside.append(edges[mask].mean())
        outside.append(edges[~mask].mean())
    assert np.mean(inside) > 1.3 * np.mean(outside)


def test_equal_seeds_give_equal_bytes_whatever_the_chunks_and_another_seed_other_videos(made, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "_CHUNK", 4)
    again = make_videos.fn(Run.local(tmp_path), CONFIG, 7)
    assert _digests(again.folder) == _digests(made.folder)
    assert again.file("solotest.json").read_bytes() == made.file("solotest.json").read_bytes()
    assert len(set(_digests(made.folder).values())) == 25
    few = replace(SMALL, solo_per_category=(0, 0, 0))
    other = make_videos.fn(Run.local(tmp_path), VideosConfig(orchestra=few), 8)
    assert not set(_digests(other.folder).values()) & set(_digests(made.folder).values())


def test_a_killed_run_goes_on_with_the_videos_it_has(made, tmp_path, monkeypatch):
    encode, calls = media.encode, []

    def dies(path, *rest):
        calls.append(path)
        encode(path, *rest)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(media, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        make_videos.fn(Run.local(tmp_path), CONFIG, 7)
    assert not list(tmp_path.glob("make_videos/[0-9a-f]*"))
    again = make_videos.fn(Run.local(tmp_path), CONFIG, 7)
    assert len(calls) == 5 + 25 - 4  # the fifth was not complete
    assert _digests(again.folder) == _digests(made.folder)


def test_it_refuses_sources_that_have_videos_and_missing_folders(tmp_path):
    with pytest.raises(DataError, match="'folders'"):
        make_videos.fn(Run.local(tmp_path), VideosConfig(source="folders"), 0)
    with pytest.raises(DataError, match="--data FOLDER"):
        make_videos.fn(Run.local(tmp_path), VideosConfig(source="photos"), 0)


def test_classes_beyond_the_known_ones_are_numbered_after_them(tmp_path):
    boxes = tuple((0, (Box(0.1, 0.1, 0.5, 0.5, name),)) for name in ("zither", "cello", "bagpipe"))
    videos = [
        music_files.MadeVideo(f"{i:011d}", "solo", "test", (b[1][0].category,), (b,)) for i, b in enumerate(boxes)
    ]
    music_files.write_annotations(tmp_path, videos, 100)
    names = annotations.read_categories(tmp_path / "categories.json")
    assert names == {1: "cello", 19: "bagpipe", 20: "zither"}
    assert {frame.boxes[0].category for frame in annotations.read_boxes(tmp_path / "solotest.json", names)} == {
        "zither",
        "cello",
        "bagpipe",
    }


def _photo_folder(root):
    """Two classes of four photos and four recordings of 2.5 s, tones of their own pitch."""
    rows = []
    for row, name in enumerate(("harp", "zither")):
        for kind in ("photos", "audio"):
            (root / kind / name).mkdir(parents=True)
        for i in range(4):
            picture = np.full((60, 90, 3), 40 + 50 * i, np.uint8)
            picture[10:40, 30:60] = (255, 0, 0)
            (root / f"photos/{name}/{i}.jpg").write_bytes(images.encode_jpeg(picture, 95))
            tone = 0.3 * np.sin(2 * np.pi * (400 + 100 * i + 50 * row) * np.arange(40000) / 16000)
            media.encode(root / "sound.mp4", iter([picture] * 10), tone.astype(np.float32), 4, 16000)
            (root / "sound.mp4").rename(root / f"audio/{name}/{i}.m4a")
            shape = {"class": name, "source_repo_or_package": "repo", "source_path": f"wav/{name}/{i}.wav"}
            rows.append({**shape, "kind": "photo", "file": f"photos/{name}/{i}.jpg", "seconds": ""})
            rows.append({**shape, "kind": "audio", "file": f"audio/{name}/{i}.m4a", "seconds": "2.50"})
    place = {"x": 1 / 3, "y": 1 / 6, "w": 1 / 3, "h": 1 / 2}
    boxes = [{"class": "harp", "file": f"photos/harp/{i}.jpg", **place} for i in range(4)]
    for file, content in (("manifest.csv", rows), ("boxes_auto.csv", boxes)):
        with (root / file).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, content[0].keys())
            writer.writeheader()
            writer.writerows(content)
    return root


@pytest.fixture(scope="module")
def from_photos(tmp_path_factory):
    root = _photo_folder(tmp_path_factory.mktemp("data"))
    config = VideosConfig(source="photos", photos=PhotosConfig((3, 1, 2), frames_per_second=6, side=96))
    where = tmp_path_factory.mktemp("store")
    return root, make_videos.fn(Run.local(where), config, 3, external(where, {"": root}))


def test_photos_and_recordings_become_solos_that_last_as_long_as_the_sound(from_photos):
    _, made = from_photos
    files = [name for name in made.files() if name.endswith(".mp4")]
    assert len(files) == 12
    info = media.probe(made.file(files[0]), check="decode")
    assert (info.width, info.height, round(info.frames_per_second)) == (96, 96, 6)
    assert info.duration == pytest.approx(2.5, abs=0.1)
    assert not info.problems


def test_each_videos_photo_and_recording_are_told_and_stay_in_their_split(from_photos):
    _, made = from_photos
    notes = json.loads(made.file("sources.json").read_text())
    assert len(notes["videos"]) == 12
    for part in ("photo", "recording_source"):
        by_split = {s: {v[part] for v in notes["videos"].values() if v["split"] == s} for s in ("train", "val", "test")}
        assert not by_split["train"] & (by_split["val"] | by_split["test"])
        assert not by_split["val"] & by_split["test"]
    assert notes["classes"]["harp"]["splits"]["test"]["recordings"] >= 1
    assert notes["classes_without_uninterrupted_test"] == []
    test = annotations.read_split_list(made.file("splits/solo_test.txt"))
    assert sorted(test) == sorted(one for one, v in notes["videos"].items() if v["split"] == "test")


def test_the_sound_of_a_video_is_the_recording_that_is_told(from_photos):
    _, made = from_photos
    notes = json.loads(made.file("sources.json").read_text())["videos"]
    for name, note in list(notes.items())[:4]:
        sound = np.concatenate(list(media.stream_audio(made.file(f"solo/{name}.mp4"))))[4000:20000]
        pitch = int(np.argmax(np.abs(np.fft.rfft(sound.astype(float)))))
        expected = 400 + 100 * int(note["recording"][-5]) + 50 * (note["category"] == "zither")
        assert abs(pitch - expected) <= 2


def test_boxes_follow_the_pan_and_loose_ones_are_flagged(from_photos):
    _, made = from_photos
    notes = json.loads(made.file("sources.json").read_text())["videos"]
    names = annotations.read_categories(made.file("categories.json"))
    frames = [f for file in ("solotest.json", "solotrain.json") for f in annotations.read_boxes(made.file(file), names)]
    assert len(frames) == 24  # two whole seconds each
    assert {note["loose_box"] for note in notes.values() if note["category"] == "zither"} == {True}
    checked = 0
    for frame in frames:
        (box,) = frame.boxes
        if notes[frame.video_id]["loose_box"]:
            continue
        path = made.file(f"solo/{frame.video_id}.mp4")
        picture = next(p for time, p in media.stream_frames(path, 8) if time == frame.time).astype(int)
        rows, columns = np.nonzero((picture[..., 0] > 180) & (picture[..., 1] < 90))
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        truth = 96 * np.array([box.x, box.y, box.x + box.width, box.y + box.height])
        assert np.abs(seen - truth).max() <= 3
        checked += 1
    assert checked == 12


def _broken_folder(root):
    """A folder with a truncated photo, a truncated recording, a row without its file and one without a length."""
    folder = _photo_folder(root)
    for name in ("photos/harp/0.jpg", "audio/zither/1.m4a"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    text = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    extra = ["photo,photos/harp/gone.jpg,", "audio,audio/harp/0.m4a,"]
    columns = text[0].strip().split(",")
    rows = []
    for one in extra:
        kind, file, seconds = one.split(",")
        row = {"class": "harp", "source_repo_or_package": "repo", "source_path": "wav/new.wav"}
        rows.append(",".join({**row, "kind": kind, "file": file, "seconds": seconds}[name] for name in columns) + "\n")
    (folder / "manifest.csv").write_text("".join(text + rows))
    return folder


def test_broken_files_cost_their_videos_only_and_are_told(tmp_path):
    root = _broken_folder(tmp_path / "data")
    config = VideosConfig(source="photos", photos=PhotosConfig((4, 2, 2), seconds=1.5, side=96))
    made = make_videos.fn(Run.local(tmp_path / "store"), config, 3, external(tmp_path / "store", {"": root}))
    notes = json.loads(made.file("sources.json").read_text())
    rows = made.record["rows"]
    reasons = {"photo cannot be read", "recording cannot be read", "no such file", "no length in the manifest"}
    assert set(rows["dropped"]) == reasons
    assert rows["read"] == rows["written"] + sum(rows["dropped"].values()) == 16 + 2
    assert len(notes["videos"]) == rows["written"] == len(list((made.folder / "solo").iterdir()))
    lost = {one["photo" if "photo" in one["reason"] else "recording"] for one in notes["dropped"] if "video" in one}
    assert lost == {"photos/harp/0.jpg", "audio/zither/1.m4a"}
    assert {one["file"] for one in notes["dropped"] if "file" in one} == {"photos/harp/gone.jpg", "audio/harp/0.m4a"}
    assert all(one["detail"] for one in notes["dropped"] if "video" in one)
    first = next(name for name in made.files() if name.endswith(".mp4"))
    assert media.probe(made.file(first), check="packets").duration == pytest.approx(1.5, abs=0.1)


def test_too_many_broken_files_end_the_run_with_their_number(tmp_path):
    root = _broken_folder(tmp_path / "data")
    config = VideosConfig(
        source="photos", photos=PhotosConfig(videos_per_category=(4, 2, 2), side=96), max_quarantined=0.12
    )
    folder = external(tmp_path / "store", {"": root})
    with pytest.raises(DataError, match=r"of 16 videos cannot be used \(expected at most 12%\), the first: .*\.jpg"):
        make_videos.fn(Run.local(tmp_path / "store"), config, 3, folder)
    config = replace(config, max_quarantined=0.1)
    with pytest.raises(DataError, match=r"2 of 18 files of manifest\.csv cannot be used"):
        make_videos.fn(Run.local(tmp_path / "store"), config, 3, folder)
