"""AudioSet-instrument: thirteen classes, one of them contaminated, and a partition rebuilt from tags."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsol_core.protocols import Picture, Sound
from dsol_core.types import DataError
from tasks.adapters import benchmarks
from tasks.adapters.benchmarks import audioset


def test_the_partition_by_tags_holds_what_is_known_of_it(annotations: Path) -> None:
    solo = benchmarks.read_items("audioset-solo", annotations, "reference")
    multi = benchmarks.read_items("audioset-multi", annotations, "reference")
    assert (len(solo), len(multi)) == (4000, 473)
    assert solo.left_out["no box"] + multi.left_out["no box"] == 30
    frames = audioset.read_marks(annotations, audioset.read_tags(annotations))
    tags = audioset.read_tags(annotations)
    assert len(frames) == 4503 and sum(map(len, frames.values())) == 7403
    assert max(map(len, frames.values())) == 16
    videos = Counter(len(tags[one]) for one in {key.split("/")[0] for key in frames})
    assert videos[1] == 499 and videos[2] + videos[3] == 67
    assert Counter(len(item.sources) for item in (*solo, *multi)) == {1: 4270, 2: 194, 3: 9}
    assert all(item.unboxed == tags[item.videos[0]] for item in multi)
    correct = benchmarks.read_items("audioset-multi", annotations)
    known = set(audioset.CLASSES)
    unboxed = [one for one in correct if one.unboxed & known - {source.category for source in one.sources}]
    assert (len(unboxed), len(correct)) == (255, 463), "with a class that is tagged and has no box"
    assert {len(item.sources) for item in solo} == {1}
    item = solo.items[0]
    assert item.key == "8LYWfpPUokc/3" and item.pictures == (Picture("8LYWfpPUokc", 3.5),)
    assert item.sounds == (Sound("8LYWfpPUokc", 3.5, 1.0),)


def test_the_thirteen_classes_are_those_of_the_older_annotation_but_for_25_trumpets(annotations: Path) -> None:
    older = json.loads(gzip.decompress((annotations / "audioset_instrument/normav.json.gz").read_bytes()))
    names = {one["id"]: one["name"] for one in older["categories"]}
    clips = sorted(audioset.read_tags(annotations))  # image id = 10 x the clip's place + second
    known = {
        (f"{clips[one['image_id'] // 10]}/{one['image_id'] % 10}", tuple(one["bbox"])): names[one["category_id"]]
        for one in older["annotations"]
    }
    assert len(older["annotations"]) == 8038
    frames = audioset.read_marks(annotations, audioset.read_tags(annotations))
    pairs = Counter((mark.category, known[key, mark.box]) for key, marks in frames.items() for mark in marks)
    assert pairs.pop(("Flute", "Trumpet")) == 25 and pairs["Flute", "Flute"] == 210
    assert all(here == there for here, there in pairs)
    trumpets = {(key, mark.box) for key, marks in frames.items() for mark in marks if mark.trumpet}
    assert trumpets == {
        (key, mark.box) for key, marks in frames.items() for mark in marks
        if mark.category == "Flute" and known[key, mark.box] == "Trumpet"
    }  # fmt: skip


def test_the_contamination_of_class_10_is_one_switch(annotations: Path) -> None:
    protocol = benchmarks.find("audioset-multi")
    assert protocol.differences()["class_10"] == ("keep", "drop")

    def boxes(how: Any) -> tuple[int, Counter[str | None], Counter[str]]:
        reading = benchmarks.read_items(protocol, annotations, replace(protocol.correct, class_10=how))
        named = Counter(source.category for item in reading for source in item.sources for _ in source.boxes)
        return len(reading), named, reading.left_out

    count, named, _ = boxes("keep")
    assert (count, named["Flute"], named["Trumpet"]) == (473, 37, 0)
    count, named, _ = boxes("relabel")
    assert (count, named["Flute"], named["Trumpet"]) == (473, 12, 25)
    count, named, left = boxes("drop")
    assert (count, named["Flute"], named["Trumpet"]) == (463, 12, 0)
    assert left["box of class 10 that is a Trumpet (boxes, not items)"] == 25
    assert left["no box without those of class 10"] == 10
    kept = benchmarks.read_items(protocol, annotations, "reference")
    assert sum("class-10" in item.flags for item in kept) == 25
    solo = [benchmarks.read_items("audioset-solo", annotations, mode) for mode in ("reference", "correct")]
    assert [item.sources for item in solo[0]] == [item.sources for item in solo[1]]


BOX = {"category": 1, "normbox": [0.1, 0.1, 0.3, 0.4]}
TAGS = {"detector15": ["Banjo", "Cello", "Trumpet", "Flute"], "clips": {"abcdefghijk": [1], "bbbbbbbbbbb": [1, 2]}}


def folder(path: Path, records: Any, tags: Any = TAGS) -> Path:
    (path / "audioset_box.json").write_text(json.dumps(records))
    (path / "balanced_clip_tags.json").write_text(json.dumps(tags))
    return path


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"abc/3": {"bbox": []}}, "'abc/3': .*expected \"<id>/<second>\""),
        ({"abcdefghijk/3": {"bbox": None}}, "abcdefghijk/3"),
        ({"ccccccccccc/3": {"bbox": []}}, "the clip of 'ccccccccccc/3' has no tags"),
        ({"abcdefghijk/3": {"bbox": [{**BOX, "category": 13}]}}, "with a category of 0 Banjo, 1 Cello"),
        ({"abcdefghijk/3": {"bbox": [{"category": 1}]}}, "expected"),
        ({"abcdefghijk/3": {"bbox": [{**BOX, "category": 0}]}}, r"a box of Banjo, its clip the tags \['Cello'\]"),
        ({"abcdefghijk/3": {"bbox": [{**BOX, "category": 10}]}}, r"a box of Flute, its clip the tags \['Cello'\]"),
        ({"abcdefghijk/3": {"bbox": [{**BOX, "normbox": [0.6, 0.1, 0.9, 0.4]}]}}, "look like x1, y1, x2, y2"),
    ],
)
def test_box_files_are_refused_where_they_are_wrong(tmp_path: Path, records: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("audioset-solo", folder(tmp_path, records))
    assert "audioset_box.json" in str(caught.value)


@pytest.mark.parametrize(
    "tags", [{}, {"detector15": [], "clips": {"abcdefghijk": [1]}}, {"detector15": 1, "clips": []}]
)
def test_tag_files_are_refused_where_they_are_wrong(tmp_path: Path, tags: Any) -> None:
    with pytest.raises(DataError, match=r'balanced_clip_tags\.json .*expected {"detector15"'):
        benchmarks.read_items("audioset-solo", folder(tmp_path, {}, tags))


def test_a_trumpet_under_index_10_is_known_by_its_clips_tags(tmp_path: Path) -> None:
    path = folder(tmp_path, {"bbbbbbbbbbb/0": {"bbox": [BOX, {**BOX, "category": 10}]}})
    item = benchmarks.read_items("audioset-multi", path, replace(audioset.MULTI.correct, class_10="relabel")).items[0]
    assert [source.category for source in item.sources] == ["Cello", "Trumpet"] and item.flags == {"class-10"}
