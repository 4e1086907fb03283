"""MUSIC-Solo and MUSIC-Duet as DSOL (Hu 2020) evaluates them: four annotated frames a second, one second of sound."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsol_core.protocols import Item, MaskRule, Picture, Protocol, Published, Sound, Source, Switches
from dsol_core.types import DataError
from tasks.adapters.annotations import DETECTOR_CATEGORIES, FRAMES_A_SECOND, plain_id
from tasks.adapters.benchmarks import annotation_files as files
from tasks.adapters.benchmarks import boxes
from tasks.adapters.benchmarks.reading import Benchmark, Reading

CLASSES = tuple("accordion acoustic_guitar cello clarinet erhu flute saxophone trumpet tuba violin xylophone".split())
# The boxes' classes are a detector's 15, of which MUSIC has these seven.
CATEGORIES = {number: name for number, name in DETECTOR_CATEGORIES.items() if name in CLASSES}
SECOND = 1.0  # of sound that the method hears
SOLO = "music/solotest.json"
DUET = "music/duettest.json"
MEDIA = "videos of MUSIC, <id>_0_1000.mp4, that the user obtains from YouTube by the lists of the MUSIC repository"
_FORM = '"<id>_0_1000/frame_SSS/FFFFF.jpg": {"bbox": [{"normbox": [x, y, w, h], "category_id": n}]}'
_KEY = re.compile(r"(?P<name>[^/]+)/frame_(?P<second>\d+)/(?P<frame>\d+)\.\w+")


@dataclass(frozen=True)
class Frame:
    """One key of a box file: where it lies, and its boxes by class."""

    key: str
    name: str
    second: int
    number: int
    boxes: dict[str, list[boxes.Numbers]]

    def item(self) -> Item:
        """Return the frame as a test item: a source a class."""
        sources = tuple(Source(category, tuple(some)) for category, some in self.boxes.items())
        picture = Picture(self.name, self.number / FRAMES_A_SECOND)
        heard = Sound(self.name, self.second + SECOND / 2, SECOND)
        return Item(self.key, (plain_id(self.name),), (picture,), (heard,), sources)


def read_frames(path: Path) -> list[Frame]:
    """Return the frames of a box file, those without boxes included.

    Raises:
        DataError: a key or record is malformed, a class is none of MUSIC's, or a box keeps another convention.
    """
    return [_frame(path, key, record) for key, record in files.read_json(path, dict).items()]


def _frame(path: Path, key: str, record: Any) -> Frame:
    match = _KEY.fullmatch(key)
    if not match or not isinstance(record, dict) or not isinstance(record.get("bbox"), list):
        raise DataError(f"{path}: {key!r}: {str(record)[:80]}; expected {_FORM}; mend the record")
    second, number = int(match["second"]), int(match["frame"])
    if number // FRAMES_A_SECOND != second:
        raise DataError(
            f"{path}: {key!r}: frame {number} lies in second {number // FRAMES_A_SECOND} at {FRAMES_A_SECOND} frames a "
            f"second; expected second {second}; number frames at that rate"
        )
    by_class: dict[str, list[boxes.Numbers]] = {}
    for one in record["bbox"]:
        category, box = _box(path, key, one, record)
        by_class.setdefault(category, []).append(box)
    return Frame(key, match["name"], second, number, by_class)


def _box(path: Path, key: str, one: Any, record: dict[str, Any]) -> tuple[str, boxes.Numbers]:
    if not isinstance(one, dict) or "normbox" not in one:
        raise DataError(f"{path}: box {one!r} of {key!r}; expected {_FORM}; mend the record")
    if one.get("category_id") not in CATEGORIES:
        known = ", ".join(f"{number} {name}" for number, name in CATEGORIES.items())
        raise DataError(f"{path}: {key!r} has category_id {one.get('category_id')!r}; expected one of {known}")
    box = boxes.xywh(path, key, one["normbox"])
    _agree_with_pixels(path, key, one, record, box)
    return CATEGORIES[one["category_id"]], box


def _agree_with_pixels(path: Path, key: str, one: dict[str, Any], record: dict[str, Any], box: boxes.Numbers) -> None:
    width, height = record.get("wdith", record.get("width")), record.get("height")  # the misspelling is the file's
    if "box" not in one or not width or not height:
        return
    pixels = boxes.numbers(path, key, one["box"])
    shares = [pixel / side for pixel, side in zip(pixels, (width, height) * 2, strict=True)]
    if max(abs(share - value) for share, value in zip(shares, box, strict=True)) > 0.01:
        raise DataError(
            f"{path}: {key!r} has box {list(pixels)} in a frame of {width}x{height} and normbox {list(box)}; "
            "expected normbox = box / (width, height); mend one of the two"
        )


def choose(frames: list[Frame], switches: Switches) -> Reading:
    """Return the items among frames: all with boxes, or of each second the first where it has some."""
    left_out: Counter[str] = Counter()
    kept = frames
    if switches.frames == "first":
        first: dict[tuple[str, int], Frame] = {}
        for frame in frames:
            place = frame.name, frame.second
            if place not in first or frame.number < first[place].number:
                first[place] = frame
        chosen = {frame.key for frame in first.values()}
        kept = [frame for frame in frames if frame.key in chosen]
        left_out["not the first frame of its second"] = len(frames) - len(kept)
    items = tuple(frame.item() for frame in kept if frame.boxes)
    left_out["no box"] = len(kept) - len(items)
    return Reading(items, +left_out)


def parse_solo(annotations: Path, switches: Switches) -> Reading:
    """Return the frames of `solotest.json` that have a box."""
    return choose(read_frames(files.locate(annotations, SOLO)), switches)


def parse_duet(annotations: Path, switches: Switches) -> Reading:
    """Return the frames of `duettest.json` that have a box."""
    reading = choose(read_frames(files.locate(annotations, DUET)), switches)
    return replace(reading, items=tuple(replace(item, unboxed=_UNBOXED) for item in reading.items))


_UNBOXED = frozenset(CLASSES) - set(CATEGORIES.values())


_README = "README of DSOL"
_COMMON = (
    "Boxes are a detector's proposals from which silent objects were taken out by hand; instruments that the detector "
    "does not know (clarinet, erhu, tuba, xylophone) have no boxes.",
    "The released script opens musictest.json, which does not exist, and asks for the annotation of a second's folder, "
    "which no key is; it draws one of the four frames of a second at random. Reference takes the first of them, so "
    "that a run can be repeated.",
)
MUSIC_SOLO = Protocol(
    name="music-solo",
    title="MUSIC-Solo, DSOL's protocol",
    row=4,
    kind="single",
    annotations=(SOLO,),
    media=MEDIA,
    items=12356,
    metrics=("iou@0.5", "auc"),
    reference=Switches(mask=MaskRule("relative", 0.1, strict=True), frames="first"),
    correct=Switches(),
    measures="Whether the instrument that plays alone in a music video is found, in 12,356 frames of 27 videos.",
    trap=(
        "27 videos, all of them in the validation list, stand behind 12,356 nearly equal frames, so the effective "
        "sample is tiny; and another 'MUSIC-Solo' (music-solo-avgn) has 2,124 other frames and another mask rule."
    ),
    published=(
        Published("DSOL", "iou@0.5", 51.4, _README, "readme"),
        Published("DSOL", "auc", 43.6, _README, "readme"),
        Published("Sound-of-Pixels", "iou@0.5", 40.5, _README, "readme"),
        Published("Sound-of-Pixels", "auc", 43.3, _README, "readme"),
        Published("Attention (Senocak)", "iou@0.5", 37.2, _README, "readme"),
        Published("Attention (Senocak)", "auc", 38.7, _README, "readme"),
        Published("DMC", "iou@0.5", 29.1, _README, "readme"),
        Published("DMC", "auc", 38.0, _README, "readme"),
        Published("Objects-that-Sound", "iou@0.5", 26.1, _README, "readme"),
        Published("Objects-that-Sound", "auc", 35.8, _README, "readme"),
    ),
    classes=CLASSES,
    notes=_COMMON,
)
MUSIC_DUET = Protocol(
    name="music-duet",
    title="MUSIC-Duet, DSOL's protocol",
    row=1,
    kind="multi",
    annotations=(DUET,),
    media=MEDIA,
    items=10284,
    metrics=("ciou@0.3", "auc", "nsa"),
    reference=Switches(
        mask=MaskRule("relative", 0.2, strict=True), frames="first", nsa_leaves_out="first", nsa_unboxed="silent"
    ),
    correct=Switches(),
    measures=(
        "Whether each of two instruments that play together is found by its own class's map, in 10,284 frames of 16 "
        "videos."
    ),
    trap=(
        "More than half of the 'duet' frames (5,533 of 10,284) have only one annotated class, the partner often being "
        "an instrument that the detector does not know. The leaderboard prints DSOL at 38.8 where its own table says "
        "30.2; the two cannot be compared."
    ),
    published=(
        Published("DSOL", "ciou@0.3", 30.2, _README, "readme"),
        Published("DSOL", "auc", 22.1, _README, "readme"),
        Published("DSOL", "nsa", 83.1, _README, "readme"),
        Published("Attention (Senocak)", "ciou@0.3", 21.5, _README, "readme"),
        Published("Attention (Senocak)", "auc", 19.4, _README, "readme"),
        Published("Attention (Senocak)", "nsa", 54.6, _README, "readme"),
        Published("DMC", "ciou@0.3", 17.3, _README, "readme"),
        Published("DMC", "auc", 21.1, _README, "readme"),
        Published("Sound-of-Pixels", "ciou@0.3", 16.8, _README, "readme"),
        Published("Sound-of-Pixels", "auc", 16.8, _README, "readme"),
        Published("Sound-of-Pixels", "nsa", 92.0, _README, "readme"),
        Published("Objects-that-Sound", "ciou@0.3", 13.2, _README, "readme"),
        Published("Objects-that-Sound", "auc", 18.3, _README, "readme"),
        Published("Objects-that-Sound", "nsa", 15.7, _README, "readme"),
    ),
    classes=CLASSES,
    notes=(
        *_COMMON,
        "A constant prediction scores an NSA of 100 % (a softmax over six or more channels is below 0.2 everywhere): "
        "never quote NSA without CIoU.",
        "In reference mode silent is what has no box, so a partner that plays an instrument that the detector does not "
        "know counts as silent, and to hear it rightly lowers NSA; the correct mode leaves these four out.",
    ),
)
BENCHMARKS = (Benchmark(MUSIC_SOLO, parse_solo), Benchmark(MUSIC_DUET, parse_duet))
