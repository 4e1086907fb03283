"""VGG-SS (Chen 2021): 5,158 VGGSound clips, boxes around what sounds in the frame at 5 seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsol_core.protocols import Item, Picture, Protocol, Published, Sound, Source, Switches
from dsol_core.types import DataError
from tasks.adapters.benchmarks import annotation_files as files
from tasks.adapters.benchmarks import boxes
from tasks.adapters.benchmarks.reading import Benchmark, Reading

BOXES = "vggss/vggss.json"
MEDIA = "VGGSound clips of 10 s, <id>_<start second>.mp4, cut from YouTube by the user; or prepared frames and audio"
FRAME = 5.0  # second of a clip's annotated frame: the 125th at 25 a second (ACL's README)
SOUND = 3.0  # seconds around it that the EZ-VSL family listens to
CLIP = re.compile(r"(?P<video>[\w-]{11})_(?P<start>\d{6})")


@dataclass(frozen=True)
class Clip:
    """A record of `vggss.json`."""

    category: str
    boxes: tuple[boxes.Numbers, ...]

    @property
    def garbage(self) -> bool:
        """Whether a coordinate is no coordinate: 12 records hold -2.88e16."""
        return any(boxes.is_garbage(box) for box in self.boxes)

    @property
    def source(self) -> Source:
        """What the scorer looks for."""
        return Source(self.category, self.boxes)

    @property
    def flags(self) -> frozenset[str]:
        """The flags of the clip's item."""
        return frozenset({"garbage"} if self.garbage else ())


def read_clips(annotations: Path) -> dict[str, Clip]:
    """Return the records of `vggss.json` by clip id.

    Raises:
        DataError: a record is malformed, stands twice, or its boxes keep another convention.
    """
    path = files.locate(annotations, BOXES)
    records = files.read_json(path, list)
    clips = dict(_clip(path, place, record) for place, record in enumerate(records))
    if len(clips) != len(records):
        files.refuse_duplicates(path, [record["file"] for record in records])
    return clips


def _clip(path: Path, place: int, record: Any) -> tuple[str, Clip]:
    form = '{"file": "<id>_<six digits>", "class": "...", "bbox": [[x1, y1, x2, y2], ...]}'
    if not isinstance(record, dict) or not isinstance(record.get("class"), str):
        raise DataError(f"{path}, record {place}: {str(record)[:120]}; expected {form}; mend the record")
    name, found = str(record.get("file")), record.get("bbox")
    if not CLIP.fullmatch(name) or not isinstance(found, list) or not found:
        raise DataError(f"{path}, record {place}: file {name!r} with bbox {str(found)[:80]}; expected {form}")
    return name, Clip(record["class"], tuple(boxes.xyxy(path, name, box) for box in found))


def video_of(clip: str) -> str:
    """Return the YouTube id in a clip's name."""
    return clip.rsplit("_", 1)[0]


def picture(clip: str) -> Picture:
    """Return the annotated frame of a clip."""
    return Picture(clip, FRAME)


def sound(clip: str) -> Sound:
    """Return what is heard of a clip."""
    return Sound(clip, FRAME, SOUND)


def positives(clips: dict[str, Clip]) -> Iterator[Item]:
    """Return an item a clip."""
    for name, clip in clips.items():
        yield Item(name, (video_of(name),), (picture(name),), (sound(name),), (clip.source,), clip.flags)


def parse(annotations: Path, switches: Switches) -> Reading:
    """Return all clips; what to do with garbage boxes and empty ground truths is the scorer's."""
    return Reading(tuple(positives(read_clips(annotations))))


PROTOCOL = Protocol(
    name="vgg-ss",
    title="VGG-SS",
    row=5,
    kind="single",
    annotations=(BOXES,),
    media=MEDIA,
    items=5158,
    metrics=("iou@0.5", "auc"),
    reference=Switches(resize="bilinear_corners", normalise="minmax", box_format="xyxy", empty="fail"),
    correct=Switches(box_format="xyxy"),
    measures="Whether the more salient half of the frame covers the one thing that sounds, over 221 everyday classes.",
    trap=(
        "The mask is half of the frame for every method, and half of the objects cover about a quarter of it or "
        "less: a perfect ranking of the pixels cannot pass 50.5 %, and a disk in the middle of the frame reaches "
        "34.0 % without listening, above LVS and DSOL."
    ),
    published=(
        Published("Cross-Modal Alignment, pretrained vision", "iou@0.5", 41.42, "README of SSLalignment", "readme"),
        Published("Cross-Modal Alignment", "iou@0.5", 39.94, "README of SSLalignment", "readme"),
        Published("FNAC, VGGSound-144k", "iou@0.5", 39.50, "README of FNAC_AVL", "readme"),
        Published("FNAC, VGGSound-144k", "auc", 39.66, "README of FNAC_AVL", "readme"),
        Published("EZ-VSL + saliency, full VGGSound", "iou@0.5", 39.34, "README of EZ-VSL", "readme"),
        Published("EZ-VSL + saliency, full VGGSound", "auc", 39.78, "README of EZ-VSL", "readme"),
        Published("EZ-VSL + saliency, VGGSound-144k", "iou@0.5", 38.85, "README of EZ-VSL", "readme"),
        Published("EZ-VSL + saliency, VGGSound-144k", "auc", 39.54, "README of EZ-VSL", "readme"),
        Published("EZ-VSL + saliency, VGGSound-10k", "iou@0.5", 37.18, "README of EZ-VSL", "readme"),
        Published("EZ-VSL + saliency, VGGSound-10k", "auc", 38.75, "README of EZ-VSL", "readme"),
        Published("MarginNCE", "iou@0.5", 38.25, "note on a later paper", "note"),
        Published("MarginNCE", "auc", 39.06, "note on a later paper", "note"),
        Published("SLAVC, VGGSound-144k (LocAcc of the extended set)", "iou@0.5", 37.79, "README of SLAVC", "readme"),
        Published("EchoLoc", "iou@0.5", 36.36, "note on a later paper", "note"),
        Published("EchoLoc", "auc", 38.28, "note on a later paper", "note"),
        Published("EZ-VSL without saliency", "iou@0.5", 35.96, "note on a later paper", "note"),
        Published("EZ-VSL without saliency", "auc", 38.20, "note on a later paper", "note"),
        Published("LVS", "iou@0.5", 30.30, "note on a later paper", "note"),
        Published("LVS", "auc", 36.40, "note on a later paper", "note"),
        Published("DSOL", "iou@0.5", 29.91, "leaderboard", "leaderboard"),
    ),
    notes=(
        "Reference is EZ-VSL's and FNAC's evaluator. LVS crops the picture and not the boxes and clips coordinates "
        "below 0 only; SLAVC resizes with bicubic corners.",
        "12 records hold coordinates near -2.88e16. Clipped to the frame, their boxes cover nothing, which leaves one "
        "of these pictures without ground truth; one more picture has a box of height 0. Both count as failures of "
        "every method in every public evaluator.",
        "vggss_144k.txt, the usual training list, contains 3,709 of the 5,158 test clips (no labels are used).",
        "EZ-VSL's and SLAVC's headline numbers mix in an ImageNet network's object saliency that hears nothing "
        "(38.85 with it, 35.96 without).",
        "Loaders of the EZ-VSL family replace an unreadable sample by a random other one, without a word.",
    ),
)
BENCHMARKS = (Benchmark(PROTOCOL, parse),)
