"""VGG-SS, its extended set, VGGSound-Single and -Duet: one annotation file, four benchmarks."""

from __future__ import annotations

import gzip
import json
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsol_core import truths
from dsol_core.protocols import Picture, Sound
from dsol_core.types import DataError
from tasks.adapters import benchmarks
from tasks.adapters.benchmarks import vgg_ss


@pytest.fixture(scope="module")
def clips(annotations: Path) -> dict[str, vgg_ss.Clip]:
    return vgg_ss.read_clips(annotations)


def test_vgg_ss_holds_what_is_known_of_it(clips: dict[str, vgg_ss.Clip]) -> None:
    assert len(clips) == 5158 and len({clip.category for clip in clips.values()}) == 221
    assert Counter(len(clip.boxes) for clip in clips.values()) == {1: 4619, 2: 385, 3: 94, 4: 37, 5: 18, 6: 3, 7: 2}


def test_lists_of_vgg_ss_agree_and_training_lists_contain_test_clips(
    annotations: Path, clips: dict[str, vgg_ss.Clip]
) -> None:
    assert (annotations / "vggss/vggss_test.csv").read_text().split() == list(clips)
    large = gzip.decompress((annotations / "vggss/vggss_144k.txt.gz").read_bytes()).decode().split()
    small = (annotations / "vggss/vggss_10k.txt").read_text().split()
    assert (len(clips.keys() & set(large)), len(clips.keys() & set(small))) == (3709, 238)


def test_one_clip_is_read_exactly(annotations: Path) -> None:
    item = benchmarks.read_items("vgg-ss", annotations).items[9]
    assert (item.key, item.videos) == ("ORaz32CQ29k_000130", ("ORaz32CQ29k",))
    assert item.pictures == (Picture("ORaz32CQ29k_000130", 5.0),)
    assert item.sounds == (Sound("ORaz32CQ29k_000130", 5.0, 3.0),)
    (source,) = item.sources
    assert source.category == "coyote howling"
    assert source.boxes == ((0.121875, 0.171875, 0.6, 0.853125), (0.765625, 0.275, 0.984375, 0.565625))


def test_the_twelve_garbage_records_are_flagged_and_two_pictures_have_no_ground_truth(annotations: Path) -> None:
    protocol = benchmarks.find("vgg-ss")
    items = benchmarks.read_items(protocol, annotations).items
    garbage = {item.key for item in items if "garbage" in item.flags}
    assert len(garbage) == 12
    empty, areas, sums = set(), [], 0
    apart = replace(protocol.correct, clip_overlap=False)
    for item in items:
        (target,) = truths.by_canvas(item, protocol.correct)
        areas.append(target.weights.mean())
        if not target.weights.any():
            empty.add(item.key)
        if len(item.sources[0].boxes) > 1:
            sums += truths.by_canvas(item, apart)[0].weights.max() > 1
    assert empty == {"M1P1xla8rg0_000000", "MKC9LvRivTM_000030"} and len(empty & garbage) == 1
    assert (f"{100 * np.mean(areas):.2f}", f"{100 * statistics.median(areas):.1f}") == ("31.24", "25.3")
    assert sums == 144  # pictures whose boxes overlap: AVGN adds them up
    assert protocol.differences()["empty"] == ("fail", "exclude")
    assert benchmarks.find("vggsound-single").differences()["clip_overlap"] == (False, True)


def test_what_garbage_becomes_depends_on_the_clipping(annotations: Path) -> None:
    items = {item.key: item for item in benchmarks.read_items("vgg-ss", annotations)}
    correct = benchmarks.find("vgg-ss").correct
    item = items["MKC9LvRivTM_000030"]  # one box, from x 0.397 to x -2.88e16
    for clip in ("frame", "below"):
        (target,) = truths.by_canvas(item, replace(correct, clip_coordinates=clip))  # type: ignore[arg-type]
        assert not target.weights.any()


def test_the_extended_set_has_as_many_negatives_of_which_1185_are_of_the_pictures_class(annotations: Path) -> None:
    reading = benchmarks.read_items("vgg-ss-extended", annotations, "reference")
    negatives = [item for item in reading if not item.sources]
    assert (len(reading), len(negatives)) == (10316, 5158)
    assert Counter(flag for item in negatives for flag in item.flags) == {"same-class": 1185, "not-annotated": 379}
    own = [item for item in negatives if item.pictures[0].name == item.sounds[0].name]
    assert len(own) == 379 and all(item.flags == {"not-annotated"} and len(item.videos) == 1 for item in own)
    correct = benchmarks.read_items("vgg-ss-extended", annotations)
    assert correct.left_out == {"same-class negative": 1185}
    assert not any("same-class" in item.flags for item in correct)
    assert {item.key for item in reading} - {item.key for item in correct} == {
        item.key for item in negatives if "same-class" in item.flags
    }


def test_a_negative_is_a_picture_with_the_sound_of_another_clip(annotations: Path) -> None:
    items = {item.key: item for item in benchmarks.read_items("vgg-ss-extended", annotations, "reference")}
    rows = (annotations / "vggss/vggss_test_plus_silent.csv").read_text().split()[1:]
    for row in rows[500:510]:
        video, audio, _ = row.split(",")
        item = items[f"{video},{audio}"]
        assert (item.pictures, item.sounds) == ((Picture(video, 5.0),), (Sound(audio, 5.0, 3.0),))


def test_single_is_vgg_ss_again(annotations: Path, clips: dict[str, vgg_ss.Clip]) -> None:
    items = benchmarks.read_items("vggsound-single", annotations).items
    assert [item.key for item in items] == list(clips)
    assert all(item.sources[0].boxes == clips[item.key].boxes for item in items)
    assert items[1].sources[0].category == "female_speech_woman_speaking"


def test_the_pairs_are_not_symmetric(annotations: Path) -> None:
    items = benchmarks.read_items("vggsound-duet", annotations).items
    partner = {item.pictures[0].name: item.pictures[1].name for item in items}
    assert len(partner) == 5158 and len(set(partner.values())) == 3255
    assert sum(partner[partner[name]] == name for name in partner) == 2
    assert sum("same-class-pair" in item.flags for item in items) == 22


def test_the_lookup_bug_gives_every_pair_the_boxes_of_others_and_is_one_switch(
    annotations: Path, clips: dict[str, vgg_ss.Clip]
) -> None:
    protocol = benchmarks.find("vggsound-duet")
    assert protocol.differences()["partner_boxes"] == (True, False)
    own = benchmarks.read_items(protocol, annotations)
    shifted = benchmarks.read_items(protocol, annotations, replace(protocol.correct, partner_boxes=True))
    partner = {item.pictures[0].name: item.pictures[1].name for item in own}
    for right, wrong in zip(own, shifted, strict=True):
        first, second = (picture.name for picture in right.pictures)
        assert [source.boxes for source in right.sources] == [clips[first].boxes, clips[second].boxes]
        assert [source.boxes for source in wrong.sources] == [clips[second].boxes, clips[partner[second]].boxes]
        assert [source.picture for source in wrong.sources] == [0, 1]
        assert (right.key, right.pictures, right.sounds) == (wrong.key, wrong.pictures, wrong.sounds)
        assert [source.category for source in right.sources] == [source.category for source in wrong.sources]
    (swapped,) = [{item.key for item in own if partner[item.pictures[1].name] == item.pictures[0].name}]
    assert len(swapped) == 2  # the one mutual pair, from both sides: swapped boxes


CLIP = {"file": "abcdefghijk_000030", "class": "playing cello", "bbox": [[0.1, 0.1, 0.3, 0.4]]}


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, "expected a list"),
        ([{**CLIP, "file": "abc"}], "record 0: file 'abc'"),
        ([{**CLIP, "bbox": []}], r"record 0: .* with bbox \[\]"),
        ([{"file": CLIP["file"], "bbox": []}], "record 0"),
        ([{**CLIP, "bbox": [[0.5, 0.5, 0.2, 0.3]]}], "runs backwards; .*these look like x, y, width, height: convert"),
        ([{**CLIP, "bbox": [[0.5, 0.5, 0.9, 1.3]]}], "leaves the frame; .* fractions of the frame"),
        ([{**CLIP, "bbox": [[10, 20, 100, 200]]}], "look like pixels: divide them"),
        ([{**CLIP, "bbox": [0.1, 0.1, 0.3, 0.4]}], "expected a list of four numbers"),
        ([CLIP, CLIP], "'abcdefghijk_000030' stands twice"),
    ],
)
def test_vgg_ss_files_are_refused_where_they_are_wrong(tmp_path: Path, records: Any, words: str) -> None:
    (tmp_path / "vggss.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items("vgg-ss", tmp_path)
    assert "vggss.json" in str(caught.value)


OTHER = {**CLIP, "file": "bbbbbbbbbbb_000001", "class": "dog barking, loudly"}


@pytest.mark.parametrize(
    ("name", "file", "text", "words"),
    [
        ("vggsound-single", "vggsound_single_test.csv", "abcdefghijk_000030,cat\n", "class 'cat'; expected 'playing_c"),
        ("vggsound-single", "vggsound_single_test.csv", "xxxxxxxxxxx_000030,cat\n", "is no clip of vggss.json"),
        ("vggsound-single", "vggsound_single_test.csv", "abcdefghijk_000030\n", "row 1: .*expected <id>,<class>"),
        ("vggsound-duet", "vggsound_duet_test.csv", "abcdefghijk_000030,playing_cello,,\n", "row 1"),
        (
            "vggsound-duet", "vggsound_duet_test.csv",
            "abcdefghijk_000030,playing_cello,bbbbbbbbbbb_000001,dog_barking_loudly\n" * 2, "stands twice",
        ),
        ("vgg-ss-extended", "vggss_test_plus_silent.csv", "a,b,c\n", "expected the header video,audio,label"),
        ("vgg-ss-extended", "vggss_test_plus_silent.csv", "video,audio,label\na,b,sounding\n", "has label 'sounding'"),
        ("vgg-ss-extended", "vggss_test_plus_silent.csv", "", "expected the header"),
        ("vgg-ss-extended", "vggss_test_plus_silent.csv", "video,audio,label\n" + 2 * "a,b,non-sounding\n", "twice"),
    ],
)  # fmt: skip
def test_lists_are_refused_where_they_are_wrong(tmp_path: Path, name: str, file: str, text: str, words: str) -> None:
    (tmp_path / "vggss.json").write_text(json.dumps([CLIP, OTHER]))
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        benchmarks.read_items(name, tmp_path)
    assert file in str(caught.value)


def test_the_lookup_bug_needs_a_row_of_the_partner(tmp_path: Path) -> None:
    (tmp_path / "vggss.json").write_text(json.dumps([CLIP, OTHER]))
    row = "abcdefghijk_000030,playing_cello,bbbbbbbbbbb_000001,dog_barking_loudly\n"
    (tmp_path / "vggsound_duet_test.csv").write_text(row)
    assert len(benchmarks.read_items("vggsound-duet", tmp_path)) == 1
    with pytest.raises(DataError, match="has no row of its own"):
        benchmarks.read_items("vggsound-duet", tmp_path, "reference")
