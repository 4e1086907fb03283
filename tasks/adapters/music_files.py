"""Writes the annotation files of made videos in the published formats of MUSIC and DSOL (read by `annotations.py`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsol_core.types import SPLITS, Box, Split
from tasks.adapters.annotations import DETECTOR_CATEGORIES, Kind
from tasks.adapters.store import write_json

# Classes without a number of the detector; any other class is numbered after these.
_MORE_CATEGORIES = ("clarinet", "erhu", "tuba", "xylophone")
_KINDS: dict[Kind, str] = {"solo": "solo", "multi": "duet"}


@dataclass(frozen=True)
class MadeVideo:
    """A finished video.

    Attributes:
        id: 11 characters.
        kind: "solo" or "multi".
        split: it belongs to.
        categories: that sound.
        boxes: (second, boxes of the frame at its middle), for the seconds where they are known.
    """

    id: str
    kind: Kind
    split: Split
    categories: tuple[str, ...]
    boxes: tuple[tuple[int, tuple[Box, ...]], ...]


def write_annotations(folder: Path, videos: Sequence[MadeVideo], side: int) -> None:
    """Write the video lists, the split lists, the box files and `categories.json`.

    Boxes of validation and test go to `{solo,duet}test.json`, those of training to `{solo,duet}train.json`.

    Args:
        folder: of the data set.
        videos: in the order of the lists.
        side: pixels of the (square) videos.
    """
    numbers = _numbers({box.category for video in videos for _, boxes in video.boxes for box in boxes})
    write_json(folder / "categories.json", {str(number): name for name, number in numbers.items()})
    (folder / "splits").mkdir(exist_ok=True)
    for kind, name in _KINDS.items():
        mine = [video for video in videos if video.kind == kind]
        labels: dict[str, list[str]] = defaultdict(list)
        for video in mine:
            labels[" ".join(video.categories)].append(video.id)
        write_json(folder / f"MUSIC_{name}_videos.json", {"version": 1.0, "videos": labels})
        for split in SPLITS:
            lines = [f"{v.id}_0_1000.flac {v.id}_0_1000.mp4\n" for v in mine if v.split == split]
            (folder / "splits" / f"{name}_{split}.txt").write_text("".join(lines))
        held_out = [video for video in mine if video.split != "train"]
        write_json(folder / f"{name}test.json", _records(held_out, numbers, side))
        write_json(folder / f"{name}train.json", _records([v for v in mine if v.split == "train"], numbers, side))


def _numbers(categories: Iterable[str | None]) -> dict[str, int]:
    known = {name: number for number, name in DETECTOR_CATEGORIES.items()}
    known |= {name: len(DETECTOR_CATEGORIES) + i for i, name in enumerate(_MORE_CATEGORIES)}
    named = sorted(name for name in categories if name)
    known |= {name: len(known) + i for i, name in enumerate(one for one in named if one not in known)}
    return {name: known[name] for name in named}


def _records(videos: Sequence[MadeVideo], numbers: dict[str, int], side: int) -> dict[str, Any]:
    """Frame numbers count 30 a second; the frame at the middle of second s has the number 30 s + 15."""
    records = {}
    for video in videos:
        for second, boxes in video.boxes:
            record: dict[str, Any] = {"bbox": [], "wdith": side, "height": side}
            for box in boxes:
                record.setdefault("bbox" if box.sounding else "silent", []).append(_record(box, numbers, side))
            records[f"{video.id}_0_1000/frame_{second:03d}/{30 * second + 15:05d}.jpg"] = record
    return records


def _record(box: Box, numbers: dict[str, int], side: int) -> dict[str, Any]:
    place = [box.x, box.y, box.width, box.height]
    return {
        "box": [round(side * value) for value in place],
        "normbox": [round(value, 6) for value in place],
        "category_id": numbers[str(box.category)],
    }
