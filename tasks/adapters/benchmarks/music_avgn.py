"""MUSIC-Solo and MUSIC-Duet as AVGN (Mo 2023) and its successors evaluate them: subsets of DSOL's frames."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dsol_core.protocols import Item, Picture, Protocol, Published, Sound, Source, Switches
from dsol_core.types import DataError
from tasks.adapters.annotations import FRAMES_A_SECOND
from tasks.adapters.benchmarks import annotation_files as files
from tasks.adapters.benchmarks import boxes
from tasks.adapters.benchmarks.music_dsol import CLASSES, MEDIA
from tasks.adapters.benchmarks.reading import Benchmark, Reading
from tasks.adapters.benchmarks.vggsound import SWAPPED

SOLO = "music/avgn/music_solo.json"
DUET = "music/avgn/music_duet.json"
_SOUND = 3.0  # seconds
_FILE = re.compile(r"(?P<video>.+)_(?P<second>\d{3})_(?P<frame>\d{5})")
_FORMS = {
    ("",): '{"file": "<id>_SSS_FFFFF", "class": "...", "bbox": [x, y, w, h]}',
    ("_src1", "_src2"): '{"file": "<id>_SSS_FFFFF", "class_src1": "...", "bbox_src1": [x, y, w, h], ... "_src2"}',
}


def parse_solo(annotations: Path, switches: Switches) -> Reading:
    """Return the frames of `music_solo.json`; reading its boxes as xyxy is the scorer's (`box_format`)."""
    return _parse(annotations, SOLO, switches, ("",))


def parse_duet(annotations: Path, switches: Switches) -> Reading:
    """Return the frames of `music_duet.json`: two sources in one picture."""
    return _parse(annotations, DUET, switches, ("_src1", "_src2"))


def _parse(annotations: Path, name: str, switches: Switches, endings: tuple[str, ...]) -> Reading:
    path = files.locate(annotations, name)
    records = files.read_json(path, list)
    items = tuple(_item(path, place, record, switches, endings) for place, record in enumerate(records))
    files.refuse_duplicates(path, [item.key for item in items])
    return Reading(items)


def _item(path: Path, place: int, record: Any, switches: Switches, endings: tuple[str, ...]) -> Item:
    fields = {"file", *(f"{field}{ending}" for field in ("class", "bbox") for ending in endings)}
    match = _FILE.fullmatch(str(record.get("file"))) if isinstance(record, dict) else None
    if not match or not fields <= set(record):
        raise DataError(f"{path}, record {place}: {str(record)[:120]}; expected {_FORMS[endings]}; mend the record")
    sources = tuple(_source(path, record, ending) for ending in endings)
    time = int(match["frame"]) / FRAMES_A_SECOND
    heard = Sound(match["video"], time if switches.audio == "frame" else None, _SOUND)
    return Item(record["file"], (match["video"],), (Picture(match["video"], time),), (heard,), sources)


def _source(path: Path, record: dict[str, Any], ending: str) -> Source:
    category = record[f"class{ending}"]
    if category not in CLASSES:
        raise DataError(f"{path}: {record['file']!r} has class {category!r}; expected one of {', '.join(CLASSES)}")
    return Source(category, (boxes.xywh(path, record["file"], record[f"bbox{ending}"]),))


_REFERENCE = {"resize": "bicubic", "normalise": "minmax", "box_format": "xyxy", "empty": "fail", "audio": "video"}
_NOTES = (
    "All boxes are copies of DSOL's normbox, hence x, y, width, height; AVGN and T-VSL hand them to a routine that "
    "expects corners. NoPrior converts them.",
    "The sound is the middle 3 s of the whole video's recording, one and the same for every frame of the video; the "
    "correct mode hears the 3 s around the frame.",
    "The code selects the best epoch on the test set.",
    SWAPPED,
)
MUSIC_SOLO = Protocol(
    name="music-solo-avgn",
    title="MUSIC-Solo, AVGN's protocol",
    row=4,
    kind="single",
    annotations=(SOLO,),
    media=MEDIA,
    items=2124,
    metrics=("iou@0.5", "auc", "ap"),
    reference=Switches(**_REFERENCE, swapped_ap=True),  # type: ignore[arg-type]
    correct=Switches(),
    measures="Whether the instrument that plays alone is found, in 2,124 frames of 20 videos.",
    trap=(
        "The released evaluator reads widths and heights as corners: 77.6 % of its boxes are empty, and a perfect "
        "ranking scores 0.14 %. With boxes read as they are it scores 30.65 %, since the objects are small and the "
        "mask is half of the frame: the printed 58 to 98 % come from another rule or other boxes in any case. Three of "
        "the seven classes have eight frames or fewer."
    ),
    published=(
        Published("GAR-SSL (boxes of a language model)", "iou@0.5", 98.5, "note on arXiv 2604.06824", "note"),
        Published("OA-SSL", "iou@0.5", 71.1, "note on arXiv 2506.18557", "note"),
        Published("Cross-Modal Alignment", "iou@0.5", 66.4, "leaderboard", "leaderboard"),
        Published("DSOL, somebody's re-implementation", "iou@0.5", 62.7, "leaderboard", "leaderboard"),
        Published("AVGN", "iou@0.5", 58.1, "recollection of the paper", "memory"),
    ),
    classes=CLASSES,
    notes=_NOTES,
)
_NOTE = "note on a later paper"
MUSIC_DUET = Protocol(
    name="music-duet-avgn",
    title="MUSIC-Duet, AVGN's protocol",
    row=1,
    kind="multi",
    annotations=(DUET,),
    media=MEDIA,
    items=1020,
    metrics=("ciou@0.3", "auc", "ap"),
    reference=Switches(**_REFERENCE, oracle=True, aggregate="source", swapped_ap=True),  # type: ignore[arg-type]
    correct=Switches(aggregate="source"),
    measures="Whether two instruments in one picture are each found, in 1,020 frames of 6 videos.",
    trap=(
        "Nearly every frame (1,012 of 1,020) shows one pair of classes, cello and guitar; 99.6 % of the second boxes "
        "are empty as the released evaluator reads them; and the class that sounds is given at test time. NoPrior "
        "scores the union of both boxes instead, where a centred disk reaches 76.1 %."
    ),
    published=(
        Published("GAR-SSL (boxes of a language model, union)", "ciou@0.3", 82.7, "note on arXiv 2604.06824", "note"),
        Published("GAR-SSL (boxes of a language model, union)", "auc", 53.2, "note on arXiv 2604.06824", "note"),
        Published("SCAV, frame-wise", "ciou@0.3", 47.1, "note on arXiv 2608.05816", "note"),
        Published("SCAV, frame-wise", "auc", 28.6, "note on arXiv 2608.05816", "note"),
        Published("SCAV, frame-wise", "cap", 47.6, "note on arXiv 2608.05816", "note"),
        Published("OA-SSL", "ciou@0.3", 45.9, "note on arXiv 2506.18557", "note"),
        Published("OA-SSL", "auc", 36.1, "note on arXiv 2506.18557", "note"),
        Published("OA-SSL", "cap", 61.4, "note on arXiv 2506.18557 (another says 64.1)", "note"),
        Published("T-VSL", "ciou@0.3", 43.2, "note on arXiv 2506.18557", "note"),
        Published("T-VSL", "auc", 35.9, "note on arXiv 2506.18557", "note"),
        Published("T-VSL", "cap", 62.9, "note on arXiv 2506.18557", "note"),
        Published("DSOL, somebody's re-implementation", "ciou@0.3", 38.8, "leaderboard", "leaderboard"),
        Published("NoPrior (union of boxes)", "ciou@0.3", 38.6, _NOTE, "note"),
        Published("NoPrior (union of boxes)", "auc", 30.1, _NOTE, "note"),
        Published("NoPrior (union of boxes)", "cap", 52.1, _NOTE, "note"),
        Published("NoPrior, frame-wise, run again by SCAV", "ciou@0.3", 2.5, "note on arXiv 2608.05816", "note"),
        Published("Cross-Modal Alignment", "ciou@0.3", 38.3, "leaderboard", "leaderboard"),
        Published("AVGN", "ciou@0.3", 32.5, _NOTE, "note"),
        Published("AVGN", "auc", 24.6, _NOTE, "note"),
        Published("AVGN", "cap", 50.6, _NOTE, "note"),
        Published("DSOL, as later papers quote it", "ciou@0.3", 30.1, _NOTE, "note"),
        Published("DSOL, as later papers quote it", "auc", 22.3, _NOTE, "note"),
        Published("Mix-and-Localize", "ciou@0.3", 26.5, _NOTE, "note"),
        Published("Mix-and-Localize", "auc", 21.5, _NOTE, "note"),
        Published("Mix-and-Localize", "cap", 47.5, _NOTE, "note"),
        Published("LVS", "ciou@0.3", 22.5, _NOTE, "note"),
        Published("LVS", "auc", 20.9, _NOTE, "note"),
        Published("Coarse-to-Fine", "ciou@0.3", 17.6, _NOTE, "note"),
        Published("Coarse-to-Fine", "auc", 20.6, _NOTE, "note"),
    ),
    classes=CLASSES,
    notes=(
        *_NOTES,
        "T-VSL's code prints the mean cIoU under a map threshold of 0.3, not a rate of success (switch value).",
    ),
)
BENCHMARKS = (Benchmark(MUSIC_SOLO, parse_solo), Benchmark(MUSIC_DUET, parse_duet))
