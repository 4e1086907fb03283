"""MUSIC-Solo and MUSIC-Duet, as DSOL and as AVGN have them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsol_core import truths
from dsol_core.protocols import Picture, Sound
from dsol_core.types import DataError
from tasks.adapters import benchmarks
from tasks.adapters.benchmarks import music_dsol


def boxes_by_class(reading: benchmarks.Reading) -> dict[str, int]:
    return Counter(source.category for item in reading for source in item.sources for _ in source.boxes)


def test_dsols_frames_and_boxes_are_all_there(annotations: Path) -> None:
    solo, duet = (benchmarks.read_items(name, annotations) for name in ("music-solo", "music-duet"))
    assert len(solo) == 12356 and solo.left_out == {"no box": 1116}
    assert len(duet) == 10284 and duet.left_out == {"no box": 1228}
    assert boxes_by_class(solo) == {
        "acoustic_guitar": 3695, "cello": 2312, "accordion": 2113, "saxophone": 1403, "trumpet": 1114, "flute": 918,
        "violin": 801,
    }  # fmt: skip
    assert boxes_by_class(duet) == {
        "acoustic_guitar": 7156, "flute": 2074, "saxophone": 1766, "cello": 1709, "violin": 1366, "trumpet": 964,
    }  # fmt: skip
    assert Counter(len(item.sources) for item in duet) == {1: 5533, 2: 4751}
    assert {item.unboxed for item in duet} == {frozenset({"clarinet", "erhu", "tuba", "xylophone"})}
    assert benchmarks.find("music-duet").differences()["nsa_unboxed"] == ("silent", "unknown")
    assert len({item.videos for item in solo}) == 27 and len({item.videos for item in duet}) == 16
    assert {round((item.pictures[0].second or 0) % 1 * 30) for item in solo} == {0, 7, 14, 21}


def test_one_frame_is_read_exactly(annotations: Path) -> None:
    items = {item.key: item for item in benchmarks.read_items("music-solo", annotations)}
    item = items["4Oy5VmaacaI_0_1000/frame_013/00411.jpg"]
    assert item.videos == ("4Oy5VmaacaI",)
    assert item.pictures == (Picture("4Oy5VmaacaI_0_1000", 13.7),)
    assert item.sounds == (Sound("4Oy5VmaacaI_0_1000", 13.5, 1.0),)
    (source,) = item.sources
    assert (source.category, source.boxes) == ("cello", ((0.35, 0.0, 0.3734375, 0.9944444444444445),))


def test_the_first_frame_of_each_second_stands_for_the_random_one(annotations: Path) -> None:
    first = benchmarks.read_items("music-solo", annotations, "reference")
    assert len(first) == 3368 - 279 and first.left_out["not the first frame of its second"] == 13472 - 3368
    places = [item.key.rsplit("/", 1)[0] for item in first]
    assert len(set(places)) == len(places)
    for item in first:
        second, frame = item.key.split("/frame_")[1].removesuffix(".jpg").split("/")
        assert int(frame) - int(second) * 30 in (0, 7, 14, 21)


def test_avgns_boxes_are_copies_of_dsols(annotations: Path) -> None:
    for ours, theirs, videos in (("music-solo", "music-solo-avgn", 20), ("music-duet", "music-duet-avgn", 6)):
        known = {
            (*item.videos, item.key.rsplit("/", 1)[1].removesuffix(".jpg"), source.category): source.boxes
            for item in benchmarks.read_items(ours, annotations)
            for source in item.sources
        }
        items = benchmarks.read_items(theirs, annotations).items
        assert len({item.videos for item in items}) == videos
        for item in items:
            for source in item.sources:
                assert known[(*item.videos, item.key.rsplit("_", 1)[1], source.category)] == source.boxes


def test_avgns_classes_are_lopsided(annotations: Path) -> None:
    solo, duet = (benchmarks.read_items(name, annotations).items for name in ("music-solo-avgn", "music-duet-avgn"))
    assert Counter(item.sources[0].category for item in solo) == {
        "flute": 918, "saxophone": 558, "accordion": 454, "trumpet": 180, "cello": 8, "acoustic_guitar": 5, "violin": 1,
    }  # fmt: skip
    pairs = Counter(tuple(sorted(source.category or "" for source in item.sources)) for item in duet)
    assert pairs["acoustic_guitar", "cello"] == 1012


def test_the_box_bug_of_avgn_empties_most_boxes_and_is_one_switch(annotations: Path) -> None:
    protocol = benchmarks.find("music-solo-avgn")
    assert protocol.differences()["box_format"] == ("xyxy", "xywh")
    solo = benchmarks.read_items("music-solo-avgn", annotations).items
    misread, ious = replace(protocol.correct, box_format="xyxy"), []
    empty = 0
    for item in solo:
        (bad,), (good,) = truths.by_source(item, misread), truths.by_source(item, protocol.correct)
        empty += not bad.weights.any()
        ious.append((bad.weights & good.weights).sum() / (bad.weights | good.weights).sum())
        assert good.weights.any()
    assert f"{100 * empty / len(solo):.1f}" == "77.6"
    assert f"{sum(ious) / len(ious):.3f}" == "0.065"  # on the grid; 0.0653 from the numbers; our notes print 0.066
    duet = benchmarks.read_items("music-duet-avgn", annotations).items
    second = sum(not truths.by_source(item, misread)[1].weights.any() for item in duet)
    assert f"{100 * second / len(duet):.1f}" == "99.6"


def test_avgn_hears_the_middle_of_the_video_and_the_correct_mode_the_frame(annotations: Path) -> None:
    for name in ("music-solo-avgn", "music-duet-avgn"):
        reference, correct = (benchmarks.read_items(name, annotations, mode).items for mode in ("reference", "correct"))
        assert {sound.middle for item in reference for sound in item.sounds} == {None}
        assert all(item.sounds[0].middle == item.pictures[0].second for item in correct)
        assert {sound.duration for item in (*reference, *correct) for sound in item.sounds} == {3.0}
        assert len({item.sounds for item in reference}) == len({item.videos for item in reference})


def write(folder: Path, name: str, value: Any) -> Path:
    text = value if isinstance(value, str) else json.dumps(value)
    if name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    else:
        (folder / name).write_text(text)
    return folder


KEY = "abcdefghijk_0_1000/frame_002/00067.jpg"
BOX = {"box": [64, 36, 64, 72], "normbox": [0.1, 0.1, 0.1, 0.2], "category_id": 1}
SIZE = {"wdith": 640, "height": 360}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "expected an object"),
        ({"abc/00000.jpg": {"bbox": []}}, "'abc/00000.jpg': .*expected \"<id>_0_1000/frame_SSS/FFFFF.jpg\""),
        ({KEY: {"bbox": {}}}, "expected .*normbox"),
        ({KEY: {"bbox": [{"box": [0, 0, 1, 1], "category_id": 1}]}}, "expected .*normbox"),
        ({KEY: {"bbox": [{**BOX, "category_id": 7}], **SIZE}}, "category_id 7; expected one of 1 cello, 3 acoustic"),
        ({KEY: {"bbox": [{**BOX, "normbox": [0, 0, 1]}]}}, "expected a list of four finite numbers"),
        ({KEY: {"bbox": [{**BOX, "normbox": [0, "a", 1, 1]}]}}, "expected a list of four numbers"),
        ({KEY: {"bbox": [{**BOX, "normbox": [0.5, 0.5, 0.9, 0.9]}]}}, "beyond the frame; .*look like x1, y1, x2, y2"),
        ({KEY: {"bbox": [{**BOX, "normbox": [64, 36, 64, 72]}]}}, "these look like pixels"),
        ({KEY: {"bbox": [{**BOX, "normbox": [0.1, 0.1, 0.2, 0.3]}], **SIZE}}, "expected normbox = box / "),
        ({KEY.replace("_002", "_004"): {"bbox": []}}, "frame 67 lies in second 2 .* expected second 4"),
        (f'{{"{KEY}": {{"bbox": []}}, "{KEY}": {{"bbox": []}}}}', f"key '{KEY}' stands twice"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_dsols_files_are_refused_where_they_are_wrong(tmp_path: Path, records: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("music-solo", write(tmp_path, "solotest.json.gz", records))
    assert "solotest.json.gz" in str(caught.value)


def test_boxes_of_one_class_are_one_source(tmp_path: Path) -> None:
    other = {"normbox": [0.5, 0.5, 0.5, 0.5], "category_id": 3}
    reading = benchmarks.read_items("music-duet", write(tmp_path, "duettest.json", {KEY: {"bbox": [BOX, other, BOX]}}))
    assert [(source.category, len(source.boxes)) for source in reading.items[0].sources] == [
        ("cello", 2), ("acoustic_guitar", 1),
    ]  # fmt: skip
    assert music_dsol.CATEGORIES == {
        1: "cello", 3: "acoustic_guitar", 8: "saxophone", 10: "trumpet", 11: "violin", 12: "flute", 13: "accordion",
    }  # fmt: skip


SOLO = {"file": "abcdefghijk_002_00067", "class": "cello", "bbox": [0.1, 0.1, 0.3, 0.4]}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, "expected a list"),
        ([{**SOLO, "file": "abcdefghijk"}], 'record 0: .*expected {"file": "<id>_SSS_FFFFF"'),
        ([{"file": SOLO["file"], "class": "cello"}], "record 0"),
        (["x"], "record 0"),
        ([{**SOLO, "class": "theremin"}], "has class 'theremin'; expected one of accordion"),
        ([{**SOLO, "bbox": [0.6, 0.1, 0.9, 0.4]}], "beyond the frame; .* these look like x1, y1, x2, y2: convert"),
        ([SOLO, SOLO], "'abcdefghijk_002_00067' stands twice"),
    ],
)
def test_avgns_files_are_refused_where_they_are_wrong(tmp_path: Path, records: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("music-solo-avgn", write(tmp_path, "music_solo.json", records))
    assert "music_solo.json" in str(caught.value)
