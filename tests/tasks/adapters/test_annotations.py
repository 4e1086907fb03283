from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from dsol_core.types import DataError
from tasks.adapters import annotations as formats


@pytest.fixture
def music(shared_dir: Path) -> Path:
    return shared_dir / "annotations/music"


@pytest.mark.parametrize(
    ("name", "frames", "boxes", "videos", "categories"),
    [
        (
            "solotest.json.gz",
            {0: 1116, 1: 12356},
            12356,
            27,
            {"acoustic_guitar": 3695, "cello": 2312, "accordion": 2113, "saxophone": 1403, "trumpet": 1114,
             "flute": 918, "violin": 801},
        ),
        (
            "duettest.json.gz",
            {0: 1228, 1: 5533, 2: 4751},
            15035,
            16,
            {"acoustic_guitar": 7156, "flute": 2074, "saxophone": 1766, "cello": 1709, "violin": 1366, "trumpet": 964},
        ),
    ],
)  # fmt: skip
def test_the_published_box_files_hold_what_is_known_of_them(
    music: Path, name: str, frames: dict[int, int], boxes: int, videos: int, categories: dict[str, int]
) -> None:
    found = formats.read_boxes(music / name, formats.read_categories(None))
    assert Counter(len(one.boxes) for one in found) == frames
    assert Counter(box.category for one in found for box in one.boxes) == categories
    assert sum(len(one.boxes) for one in found) == boxes and not sum(one.lost for one in found)
    assert len({one.video_id for one in found}) == videos
    assert {len(one.video_id) for one in found} == {11}
    assert {round(one.time % 1 * 30) for one in found} == {0, 7, 14, 21}
    assert all(box.sounding for one in found for box in one.boxes)


def test_one_published_box_is_read_exactly(music: Path) -> None:
    found = formats.read_boxes(music / "solotest.json.gz", formats.read_categories(None))
    (frame,) = (one for one in found if one.video_id == "4Oy5VmaacaI" and one.time == 411 / 30)
    (box,) = frame.boxes
    assert (box.x, box.y, box.width, box.height) == pytest.approx((224 / 640, 0, 239 / 640, 358 / 360))
    assert box.category == "cello"


def test_the_published_video_lists_hold_what_is_known_of_them(music: Path) -> None:
    solo = formats.read_video_list(music / "MUSIC_solo_videos.json", "solo")
    duet = formats.read_video_list(music / "MUSIC_duet_videos.json", "multi")
    assert len(solo) == 536 and len(duet) == 149
    counts = Counter(categories for categories in solo.values())
    assert counts["accordion",] == 60 and counts["saxophone",] == 25 and len(counts) == 11
    pairs = Counter(duet.values())
    assert pairs["acoustic_guitar", "violin"] == 43 and pairs["trumpet", "tuba"] == 3 and len(pairs) == 9
    assert formats.list_kind("a/MUSIC_solo_videos.json") == "solo"
    assert formats.list_kind("MUSIC_duet_videos.json") == "multi"
    assert formats.list_kind("solotest.json") is None


def test_the_published_split_lists_hold_what_is_known_of_them(music: Path) -> None:
    lists = {path.name: formats.read_split_list(path) for path in sorted((music / "dsol_splits").glob("*.txt"))}
    assert {name: len(ids) for name, ids in lists.items()} == {
        "duet_pairs_train.txt": 124,
        "duet_pairs_val.txt": 17,
        "solo_pairs.txt": 489,
        "solo_testing.txt": 27,
        "solo_training_1.txt": 217,
        "solo_training_2.txt": 223,
        "solo_validation.txt": 49,
    }
    assert set(lists["solo_testing.txt"]) <= set(lists["solo_validation.txt"])
    assert {formats.list_split(f"splits/{name}") for name in lists} == {
        ("multi", "train"), ("multi", "val"), None, ("solo", "test"), ("solo", "train"), ("solo", "val"),
    }  # fmt: skip


def test_split_lists_with_windows_ends_and_single_names(tmp_path: Path) -> None:
    path = tmp_path / "solo_train.txt"
    path.write_bytes(b"a-_B0123456_0_1000.flac a-_B0123456_0_1000.mp4\r\n\r\nplain.mp4\r\nbare")
    assert formats.read_split_list(path) == ["a-_B0123456", "plain", "bare"]


def write_boxes(path: Path, records: object) -> Path:
    data = json.dumps(records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_our_extension_marks_silent_objects_and_pixels_are_enough(tmp_path: Path) -> None:
    record = {
        "bbox": [{"box": [64, 36, 64, 72], "category_id": 3}],
        "silent": [{"normbox": [0.5, 0.5, 0.25, 0.25], "category_id": 17}],
        "wdith": 640,
        "height": 360,
    }
    path = write_boxes(tmp_path / "soloval.json", {"abc_0_1000/frame_002/00075.jpg": record})
    assert formats.is_box_file("x/soloval.json") and formats.is_box_file("duettest.json.gz")
    assert not formats.is_box_file("MUSIC_solo_videos.json")
    (frame,) = formats.read_boxes(path, {3: "acoustic_guitar", 17: "tuba"})
    assert (frame.video_id, frame.time) == ("abc", 2.5)
    sounding, silent = frame.boxes
    assert (sounding.x, sounding.y, sounding.width, sounding.height) == pytest.approx((0.1, 0.1, 0.1, 0.2))
    assert (sounding.category, sounding.sounding, silent.category, silent.sounding) == (
        "acoustic_guitar", True, "tuba", False,
    )  # fmt: skip


def test_boxes_are_clipped_and_garbage_is_counted(tmp_path: Path) -> None:
    boxes = [[-0.1, 0.9, 0.3, 0.3], [1.2, 0, 0.1, 0.1], [-2.88e16, 0, 1, 1], [0.1, 0.1, 0, 0.5]]
    record = {"bbox": [{"normbox": box, "category_id": 1} for box in boxes]}
    path = write_boxes(tmp_path / "solotest.json", {"abc/frame_000/00000.jpg": record})
    (frame,) = formats.read_boxes(path, {1: "cello"})
    (box,) = frame.boxes
    assert (box.x, box.y, box.width, box.height) == pytest.approx((0, 0.9, 0.2, 0.1))
    assert frame.lost == 3


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "holds list"),
        ({"abc/00000.jpg": {"bbox": []}}, 'expected "<id>_0_1000/frame_SSS/FFFFF.jpg"'),
        ({"abc/frame_000/00000.jpg": {"bbox": [{"normbox": [0, 0, 1], "category_id": 1}]}}, 'expected {"normbox"'),
        ({"abc/frame_000/00000.jpg": {"bbox": [{"box": [0, 0, 1, 1], "category_id": 1}]}}, 'expected {"normbox"'),
        ({"abc/frame_000/00000.jpg": {"bbox": [{"normbox": [0, 0, 1, 1], "category_id": 99}]}}, "category_id 99"),
    ],
)
def test_a_box_file_of_another_format_is_refused_by_name(tmp_path: Path, records: object, words: str) -> None:
    path = write_boxes(tmp_path / "solotest.json.gz", records)
    with pytest.raises(DataError) as caught:
        formats.read_boxes(path, {1: "cello"})
    assert words in str(caught.value) and "solotest.json.gz" in str(caught.value)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "MUSIC_solo_videos.json"
    path.write_text('{"videos": ')
    with pytest.raises(DataError, match=r"MUSIC_solo_videos\.json cannot be read as JSON"):
        formats.read_video_list(path, "solo")
    path.write_text('{"videos": ["a"]}')
    with pytest.raises(DataError, match="expected"):
        formats.read_video_list(path, "solo")
    cut = tmp_path / "duettest.json.gz"
    cut.write_bytes(gzip.compress(b"{}" * 1000)[:20])
    with pytest.raises(DataError, match=r"duettest\.json\.gz cannot be read"):
        formats.read_boxes(cut, {})
    whole = bytearray(gzip.compress(b"{}" * 1000))
    whole[12] ^= 0xFF
    cut.write_bytes(whole)
    with pytest.raises(DataError, match=r"duettest\.json\.gz cannot be read"):
        formats.read_boxes(cut, {})


def test_names_of_boxes_are_spelt_like_those_of_solo_lists(tmp_path: Path) -> None:
    (tmp_path / "categories.json").write_text('{"3": "acoustic guitar"}')
    (tmp_path / "solo_videos.json").write_text('{"videos": {"acoustic guitar": ["a"]}}')
    (label,) = formats.read_video_list(tmp_path / "solo_videos.json", "solo")["a"]
    assert formats.read_categories(tmp_path / "categories.json") == {3: label} == {3: "acoustic_guitar"}


def test_categories_come_from_the_file_or_the_detector(tmp_path: Path) -> None:
    assert formats.read_categories(None)[3] == "acoustic_guitar" and len(formats.read_categories(None)) == 15
    path = tmp_path / "categories.json"
    path.write_text('{"15": "tuba"}')
    assert formats.read_categories(path) == {15: "tuba"}
    path.write_text('{"tuba": 15}')
    with pytest.raises(DataError, match="expected"):
        formats.read_categories(path)


def test_ids_lose_only_the_suffix_of_the_download() -> None:
    assert formats.plain_id("8DHG_hVSw1o_0_1000") == "8DHG_hVSw1o"
    assert formats.plain_id("8DHG_hVSw1o") == "8DHG_hVSw1o"
    assert formats.plain_id("take_1_2") == "take_1_2"
