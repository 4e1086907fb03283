"""Published annotation formats: MUSIC video lists, DSOL split lists, DSOL box files. Pure Python.

    *_videos.json                       {"version": 1.0, "videos": {"flute violin": [ids]}}: label -> videos
    {solo,duet}_*{train,val,test}*.txt  a video a line, "<id>_0_1000.flac <id>_0_1000.mp4"
    {solo,duet}test.json                "<id>_0_1000/frame_SSS/FFFFF.jpg" -> boxes of that frame, FFFFF = 30 a second
    categories.json                     {"<category_id>": "name"}, beside box files with categories of their own

Ours beyond the published formats: `silent` beside `bbox` in a box file holds visible but silent objects, and box files
may be called after any split (`soloval.json`) and be gzipped.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dsol_core.types import Box, DataError, Split
from tasks.adapters.benchmarks.annotation_files import read_json

logger = logging.getLogger(__name__)

Kind = Literal["solo", "multi"]

# The 15 classes of the detector behind the published boxes, in its order, by the names that MUSIC gives them.
DETECTOR_CATEGORIES: dict[int, str] = dict(
    enumerate(
        "banjo cello drum acoustic_guitar harp harmonica oboe piano saxophone trombone trumpet violin flute accordion "
        "horn".split()
    )
)
FRAMES_A_SECOND = 30  # of the frame numbers in the keys of a box file, whatever the video's own rate
_SUFFIX = re.compile(r"_\d+_\d{3,}$")  # "_0_1000": seconds from and to that the download asked for
_KEY = re.compile(r"(?P<name>.+)/frame_\d+/(?P<frame>\d+)\.\w+")
_BOX_FILE = re.compile(r"(solo|duet|multi)[a-z]*\.json(\.gz)?")
_SPLIT_FILE = re.compile(r"(?P<kind>solo|duet|multi)_.*(?P<split>train|val|test).*\.txt")


@dataclass(frozen=True)
class FrameBoxes:
    """The boxes of one annotated frame.

    Attributes:
        video_id: without the "_0_1000" of the file's name.
        time: seconds from the start of the video.
        boxes: clipped to the frame; sounding ones and, by our extension, silent ones.
        lost: boxes of the file that lie outside the frame or are not numbers.
    """

    video_id: str
    time: float
    boxes: tuple[Box, ...]
    lost: int = 0


def plain_id(name: str) -> str:
    """Return a video's id from a file's stem: "<id>_0_1000" -> "<id>"."""
    return _SUFFIX.sub("", name)


def list_kind(name: str) -> Kind | None:
    """Return which kind of videos a `*_videos.json` lists, None where the file is no such list."""
    stem = PurePosixPath(name).name
    if not stem.endswith("_videos.json"):
        return None
    return "multi" if re.search(r"duet|multi", stem, re.IGNORECASE) else "solo"


def read_video_list(path: Path, kind: Kind) -> dict[str, tuple[str, ...]]:
    """Return the categories of each video of a `*_videos.json`; a multi-source label is split at its spaces.

    Raises:
        DataError: the file is not of that format.
    """
    labels = read_json(path, dict).get("videos")
    if not isinstance(labels, dict) or not all(isinstance(ids, list) for ids in labels.values()):
        raise DataError(f'{path}: expected {{"videos": {{"label": ["id", ...]}}}}; see MUSIC_solo_videos.json of MUSIC')
    return {
        str(one): tuple(label.split()) if kind == "multi" else (label.strip().replace(" ", "_"),)
        for label, ids in labels.items()
        for one in ids
    }


def list_split(name: str) -> tuple[Kind, Split] | None:
    """Return the kind and split of a split list by its file's name, None where it is none ("solo_pairs.txt")."""
    match = _SPLIT_FILE.fullmatch(PurePosixPath(name).name)
    if not match:
        return None
    split: Split = "train" if match["split"] == "train" else "val" if match["split"] == "val" else "test"
    return ("solo" if match["kind"] == "solo" else "multi"), split


def read_split_list(path: Path) -> list[str]:
    """Return the video ids of a split list, in its order; CRLF and blank lines are tolerated.

    Raises:
        DataError: the file is not text.
    """
    try:
        lines = path.read_text().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text ({error}); expected lines <id>_0_1000.flac <id>_0_1000.mp4") from error
    return [plain_id(PurePosixPath(line.split()[-1]).stem) for line in lines if line.strip()]


def read_categories(path: Path | None) -> dict[int, str]:
    """Return the names of a box file's category ids, spelt as in solo lists; without a file those of the detector.

    Raises:
        DataError: the file is not of that format.
    """
    if path is None:
        return dict(DETECTOR_CATEGORIES)
    try:
        return {int(number): str(name).strip().replace(" ", "_") for number, name in read_json(path, dict).items()}
    except ValueError as error:
        raise DataError(f'{path}: {error}; expected {{"3": "acoustic_guitar", ...}}') from error


def is_box_file(name: str) -> bool:
    """Tell by its name whether a file holds boxes."""
    return _BOX_FILE.fullmatch(PurePosixPath(name).name) is not None


def read_boxes(path: Path, names: Mapping[int, str]) -> list[FrameBoxes]:
    """Return the annotated frames of a box file, those with an empty list of boxes included.

    Args:
        path: of the file, gzipped where it ends in .gz.
        names: category id -> name.

    Raises:
        DataError: a key or record is not of that format, or a category has no name.
    """
    frames = []
    for key, record in read_json(path, dict).items():
        match = _KEY.fullmatch(key)
        if not match or not isinstance(record, dict) or not isinstance(record.get("bbox"), list):
            raise DataError(f'{path}: {key!r}; expected "<id>_0_1000/frame_SSS/FFFFF.jpg": {{"bbox": [...]}}')
        found = [
            _box(path, key, item, record, names, sounding)
            for field, sounding in (("bbox", True), ("silent", False))
            for item in record.get(field, ())
        ]
        boxes = tuple(box for box in found if box)
        time = int(match["frame"]) / FRAMES_A_SECOND
        frames.append(FrameBoxes(plain_id(match["name"]), time, boxes, len(found) - len(boxes)))
    return frames


def clipped_box(
    x: float, y: float, width: float, height: float, category: str | None, sounding: bool = True
) -> Box | None:
    """Return the part of a box that lies in the frame (fractions, origin top left), None where nothing does."""
    if not all(math.isfinite(value) for value in (x, y, width, height)):
        return None
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(1.0, x + width), min(1.0, y + height)
    if right - left <= 1e-6 or bottom - top <= 1e-6:
        return None
    return Box(left, top, right - left, bottom - top, category, sounding)


def _box(
    path: Path, key: str, item: Mapping[str, Any], record: Mapping[str, Any], names: Mapping[int, str], sounding: bool
) -> Box | None:
    try:
        if "normbox" in item:
            x, y, width, height = (float(value) for value in item["normbox"])
        else:
            across, down = float(record.get("wdith", record.get("width"))), float(record["height"])
            x, y, width, height = (float(v) / s for v, s in zip(item["box"], (across, down) * 2, strict=True))
        number = int(item["category_id"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f'{path}: box {item!r} of {key!r} ({error!r}); expected {{"normbox": [x, y, w, h], "category_id": n}}'
        ) from error
    if number not in names:
        raise DataError(f"{path}: {key!r} has category_id {number}; give its name in a categories.json beside it")
    return clipped_box(x, y, width, height, names[number], sounding)
