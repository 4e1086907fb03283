from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dsol_core.config import ClipsConfig
from dsol_core.types import Box, DataError
from tasks.adapters import tables
from tasks.adapters.steps import Run, StepOutput
from tasks.adapters.store import Artifact
from tasks.adapters.user_folders import external
from tasks.index_clips import index_clips


def video(one: str, duration: float, **facts: Any) -> dict[str, Any]:
    plain = {"kind": "solo", "split": "test", "categories": ["cello"], "width": 64, "height": 64, "status": "ok"}
    return {"id": one, "path": f"solo/{one}.mp4", "sha256": one, "duration": duration, **plain, **facts}


def index(tmp_path: Path, videos: list[dict[str, Any]], data: Path, config: ClipsConfig | None = None) -> Artifact:
    run = Run.local(tmp_path / "store")
    (data / "readme.md").touch()

    def write(out: StepOutput) -> None:
        tables.write(out.folder / "videos.parquet", "videos", videos)

    table = run.step("ingest_videos", {"videos": videos}, {}, write)
    return index_clips.fn(run, table, external(tmp_path / "store", {"": data}), config or ClipsConfig())


def rows(artifact: Artifact) -> list[dict[str, Any]]:
    return list(tables.read(artifact.file("clips.parquet")))


def record(*boxes: tuple[float, float, float, float], silent: tuple[float, float, float, float] | None = None) -> Any:
    content: dict[str, Any] = {"bbox": [{"normbox": box, "category_id": 1} for box in boxes], "wdith": 64, "height": 64}
    return content | ({"silent": [{"normbox": silent, "category_id": 8}]} if silent else {})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_videos_are_cut_into_whole_seconds_and_the_rest_is_counted(tmp_path: Path, data: Path) -> None:
    videos = [
        video("a", 3.0),
        video("b", 2.96),  # ends within a sound packet of 3 s
        video("c", 2.5, kind="multi", split="train", categories=["cello", "flute"]),
        video("d", 0.4),
        video("e", 9.0, status="quarantined"),
        video("f", 0.0, status="missing"),
    ]
    clips = index(tmp_path, videos, data)
    table = rows(clips)
    assert [row["id"] for row in table] == [
        *(f"{one}_{second:05d}000" for one in "ab" for second in range(3)),
        "c_00000000",
        "c_00001000",
    ]
    assert [row["start"] for row in table] == [0, 1, 2, 0, 1, 2, 0, 1]
    last = table[-1]
    assert (last["video_id"], last["kind"], last["split"], last["duration"]) == ("c", "multi", "train", 1.0)
    assert last["categories"] == ["cello", "flute"] and last["boxes"] == []
    assert clips.record["rows"] == {"read": 10, "written": 8, "dropped": {"final partial window": 2}}
    assert [clip.id for clip in tables.clips(clips.file("clips.parquet"))] == [row["id"] for row in table]


def test_a_box_goes_to_the_clip_that_contains_its_time(tmp_path: Path, data: Path) -> None:
    keys = {
        "a_0_1000/frame_000/00029.jpg": record((0.0, 0.0, 0.1, 0.1)),
        "a_0_1000/frame_001/00030.jpg": record((0.1, 0.1, 0.1, 0.1)),
        "a_0_1000/frame_002/00075.jpg": record((0.2, 0.2, 0.1, 0.1), (0.5, 0.5, 0.2, 0.2), silent=(0.7, 0.0, 0.2, 0.3)),
        "a_0_1000/frame_003/00090.jpg": record(),
        "elsewhere/frame_000/00000.jpg": record((0.0, 0.0, 0.1, 0.1)),
    }
    (data / "solotest.json").write_text(json.dumps(keys))
    (data / "categories.json").write_text('{"1": "cello", "8": "kazoo"}')
    clips = index(tmp_path, [video("a", 4.0), video("b", 1.0)], data)
    boxes = {clip.id: clip.boxes for clip in tables.clips(clips.file("clips.parquet"))}
    assert [len(boxes[f"a_{second:05d}000"]) for second in range(4)] == [1, 1, 3, 0]
    assert boxes["a_00001000"] == (Box(0.1, 0.1, 0.1, 0.1, "cello", True),)
    quiet = boxes["a_00002000"][2]
    assert (quiet.x, quiet.y, quiet.width, quiet.height) == pytest.approx((0.7, 0.0, 0.2, 0.3))
    assert (quiet.category, quiet.sounding) == ("kazoo", False)
    assert boxes["b_00000000"] == ()
    assert clips.record["metrics"] == {"videos": 2, "annotated": 3, "boxes": 5, "boxes_lost": 0}


def test_of_several_annotated_frames_the_one_nearest_to_the_middle_is_taken(tmp_path: Path, data: Path) -> None:
    keys = {f"a/frame_000/{frame:05d}.jpg": record((frame / 100, 0.0, 0.1, 0.1)) for frame in (21, 0, 14, 7)}
    with gzip.open(data / "duettest.json.gz", "wt") as file:
        json.dump(keys, file)
    (row,) = rows(index(tmp_path, [video("a", 1.0)], data))
    assert [box["x"] for box in row["boxes"]] == [0.14]
    first, second = rows(index(tmp_path, [video("a", 1.0)], data, ClipsConfig(duration=0.5)))
    assert [first["boxes"][0]["x"], second["boxes"][0]["x"]] == [0.07, 0.21]


def test_cropping_moves_boxes_into_the_middle_square(tmp_path: Path, data: Path) -> None:
    # 200 x 100 pixels: the square is x 50..150, so x fractions 0.25..0.75 become 0..1.
    keys = {"a/frame_000/00015.jpg": record((0.0, 0.5, 0.5, 0.25), (0.0, 0.0, 0.2, 1.0), (0.4, 0.0, 0.1, 1.0))}
    (data / "solotest.json").write_text(json.dumps(keys))
    clips = index(tmp_path, [video("a", 1.0, width=200, height=100)], data, ClipsConfig(square="crop"))
    (clip,) = tables.clips(clips.file("clips.parquet"))
    first, second = clip.boxes
    assert (first.x, first.y, first.width, first.height) == pytest.approx((0.0, 0.5, 0.5, 0.25))
    assert (second.x, second.y, second.width, second.height) == pytest.approx((0.3, 0.0, 0.2, 1.0))
    assert clips.record["metrics"]["boxes_lost"] == 1


def test_videos_shorter_than_a_clip_are_an_error_when_there_are_no_others(tmp_path: Path, data: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of 2 videos lasts 5 s; give longer ones or a smaller data\.clips\.duration"
    ):
        index(tmp_path, [video("a", 3.0), video("b", 4.0)], data, ClipsConfig(duration=5.0, context=5.0))


def test_an_annotation_file_of_another_format_stops_with_its_name(tmp_path: Path, data: Path) -> None:
    (data / "solotest.json").write_text('{"x": 1}')
    with pytest.raises(DataError, match=r"solotest\.json"):
        index(tmp_path, [video("a", 3.0)], data)


def test_without_annotation_files_nothing_but_the_videos_is_read(tmp_path: Path) -> None:
    run = Run.local(tmp_path / "store")

    def write(out: StepOutput) -> None:
        tables.write(out.folder / "videos.parquet", "videos", [video("a", 3.0)])

    made = index_clips.fn(run, run.step("ingest_videos", {}, {}, write), None, ClipsConfig())
    assert len(rows(made)) == 3 and list(made.record["parents"]) == ["videos"]


def test_the_published_boxes_reach_the_seconds_they_were_drawn_in(shared_dir: Path, tmp_path: Path, data: Path) -> None:
    music = shared_dir / "annotations/music"
    for name in ("solotest.json.gz", "duettest.json.gz"):
        shutil.copyfile(music / name, data / name)
    keys = json.loads(gzip.decompress((music / "solotest.json.gz").read_bytes()))
    seconds: dict[str, int] = {}
    for key in keys:
        one, second = key.split("_0_1000/frame_")
        seconds[one] = max(seconds.get(one, 0), int(second.split("/")[0]))
    videos = [video(one, last + 1.0, categories=[]) for one, last in seconds.items()]
    clips = index(tmp_path, videos, data)
    middle = {key: len(value["bbox"]) for key, value in keys.items() if int(key.split("/")[2][:-4]) % 30 == 14}
    assert len(middle) == 3368
    table = {row["id"]: row for row in rows(clips)}
    assert Counter(bool(row["boxes"]) for row in table.values())[True] == sum(count > 0 for count in middle.values())
    key = next(key for key, count in middle.items() if count)
    one, rest = key.split("_0_1000/frame_")
    box = table[f"{one}_{int(rest[:3]) * 1000:08d}"]["boxes"][0]
    expected = keys[key]["bbox"][0]["normbox"]
    assert [box["x"], box["y"], box["width"], box["height"]] == pytest.approx(expected)
    assert box["category"] in {"cello", "acoustic_guitar", "saxophone", "trumpet", "violin", "flute", "accordion"}
