"""VGGSound-Single and VGGSound-Duet (Mo 2023): the clips of VGG-SS alone, and in pairs heard together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dsol_core.protocols import Item, Protocol, Published, Source, Switches
from dsol_core.types import DataError
from tasks.adapters.benchmarks import annotation_files as files
from tasks.adapters.benchmarks import vgg_ss
from tasks.adapters.benchmarks.reading import Benchmark, Reading

SINGLE = "vggsound_single_duet/vggsound_single_test.csv"
DUET = "vggsound_single_duet/vggsound_duet_test.csv"


def _checked(path: Path, name: str, category: str, clips: dict[str, vgg_ss.Clip]) -> None:
    if name not in clips:
        raise DataError(f"{path}: {name!r} is no clip of {Path(vgg_ss.BOXES).name}; expected one; mend the row")
    expected = clips[name].category.replace(",", "").replace(" ", "_")
    if category != expected:
        raise DataError(f"{path}: {name!r} has class {category!r}; expected {expected!r}, its class in VGG-SS")


def parse_single(annotations: Path, switches: Switches) -> Reading:
    """Return a clip of VGG-SS a row."""
    clips = vgg_ss.read_clips(annotations)
    path = files.locate(annotations, SINGLE)
    rows = files.read_rows(path, "<id>,<class>")
    files.refuse_duplicates(path, [row[0] for row in rows])
    items = []
    for name, category in rows:
        _checked(path, name, category, clips)
        source = Source(category, clips[name].boxes)
        ids = (vgg_ss.video_of(name),)
        items.append(Item(name, ids, (vgg_ss.picture(name),), (vgg_ss.sound(name),), (source,), clips[name].flags))
    return Reading(tuple(items))


def parse_duet(annotations: Path, switches: Switches) -> Reading:
    """Return a pair a row: two pictures, two sounds, a source in each picture.

    Under `partner_boxes` boxes come from the partner's record, as AVGN's loader takes them: the first picture gets the
    partner's boxes and the second those of the partner's own partner.
    """
    clips = vgg_ss.read_clips(annotations)
    path = files.locate(annotations, DUET)
    rows = files.read_rows(path, "<id>,<class>,<partner>,<class>")
    files.refuse_duplicates(path, [row[0] for row in rows])
    partners = {row[0]: row[2] for row in rows}
    items = []
    for first, category, second, other in rows:
        _checked(path, first, category, clips)
        _checked(path, second, other, clips)
        owners = (first, second)
        if switches.partner_boxes:
            if second not in partners:
                raise DataError(f"{path}: {second!r} has no row of its own; partner_boxes needs its partner")
            owners = (second, partners[second])
        sources = (Source(category, clips[owners[0]].boxes), Source(other, clips[owners[1]].boxes, picture=1))
        flags = clips[owners[0]].flags | clips[owners[1]].flags | _twins(category, other)
        ids = tuple(dict.fromkeys((vgg_ss.video_of(first), vgg_ss.video_of(second))))
        pictures, sounds = map(vgg_ss.picture, (first, second)), map(vgg_ss.sound, (first, second))
        items.append(Item(f"{first},{second}", ids, tuple(pictures), tuple(sounds), sources, flags))
    return Reading(tuple(items))


def _twins(category: str, other: str) -> frozenset[str]:
    return frozenset({"same-class-pair"} if category == other else ())


SWAPPED = (
    "AVGN calls its AP routine with prediction and ground truth swapped and the prediction binarised. Half of the "
    "pixels are then labels, so that no map, however wrong, gets less than 41.4 % (the square root of 2, less 1); a "
    "printed AP below that came from other code."
)
_NOTE = "note on a later paper"
_REFERENCE = Switches(
    resize="bicubic", normalise="minmax", box_format="xyxy", clip_overlap=False, empty="fail", swapped_ap=True
)
_NOTES = (
    "Reference is the validation of AVGN's train.py, which picks the best epoch on this test set; test.py cannot run "
    "as released.",
    SWAPPED,
)
VGGSOUND_SINGLE = Protocol(
    name="vggsound-single",
    title="VGGSound-Single",
    row=3,
    kind="single",
    annotations=(vgg_ss.BOXES, SINGLE),
    media=vgg_ss.MEDIA,
    items=5158,
    metrics=("iou@0.5", "auc", "ap"),
    reference=_REFERENCE,
    correct=Switches(box_format="xyxy"),
    measures="The same as VGG-SS, on the same 5,158 clips and boxes, under another name and another evaluator.",
    trap=(
        "It is VGG-SS again, so the two columns of a table are no independent evidence. Overlapping boxes are added "
        "up where they should be joined, which moves 144 pictures."
    ),
    published=(
        Published("GAR-SSL (boxes of a language model)", "iou@0.5", 60.2, "note on arXiv 2604.06824", "note"),
        Published("GAR-SSL (boxes of a language model)", "ap", 60.5, "note on arXiv 2604.06824", "note"),
        Published("GAR-SSL (boxes of a language model)", "auc", 55.2, "note on arXiv 2604.06824", "note"),
        Published("Cross-Modal Alignment", "iou@0.5", 50.8, "leaderboard", "leaderboard"),
        Published("OA-SSL", "iou@0.5", 47.3, "note on arXiv 2506.18557", "note"),
        Published("OA-SSL", "ap", 51.7, "note on arXiv 2506.18557", "note"),
        Published("DSOL, somebody's re-implementation", "iou@0.5", 46.8, "leaderboard", "leaderboard"),
        Published("AVGN", "iou@0.5", 40.8, "recollection of the paper", "memory"),
        Published("AVGN", "ap", 35.3, "recollection of the paper", "memory"),
        Published("AVGN", "auc", 42.3, "recollection of the paper", "memory"),
    ),
    notes=_NOTES,
)
VGGSOUND_DUET = Protocol(
    name="vggsound-duet",
    title="VGGSound-Duet",
    row=2,
    kind="multi",
    annotations=(vgg_ss.BOXES, DUET),
    media=vgg_ss.MEDIA,
    items=5158,
    metrics=("ciou@0.3", "auc", "ap"),
    reference=replace(_REFERENCE, partner_boxes=True, oracle=True, canvas="separate", mix="sum", aggregate="source"),
    correct=Switches(box_format="xyxy"),
    measures="Whether two clips heard at once are each found in their own picture of the pair.",
    trap=(
        "AVGN's loader compares the first picture with the boxes of the second and the second with those of a third "
        "clip: a system that finds every object scores 37.3 %, a disk in the middle of each picture 60.0 %, more than "
        "all printed numbers but one. A map sees one picture only, given its class; over both pictures at once the "
        "disk scores 14.7 %, and NoPrior falls from 46.9 to 18.1 %."
    ),
    published=(
        Published("GAR-SSL (boxes of a language model, union)", "ciou@0.3", 77.6, "note on arXiv 2604.06824", "note"),
        Published("GAR-SSL (boxes of a language model, union)", "auc", 45.8, "note on arXiv 2604.06824", "note"),
        Published("OA-SSL", "ciou@0.3", 55.2, "note on arXiv 2506.18557", "note"),
        Published("OA-SSL", "auc", 44.8, "note on arXiv 2506.18557 (another says 33.6)", "note"),
        Published("OA-SSL", "cap", 45.9, "note on arXiv 2506.18557", "note"),
        Published("SCAV, frame-wise", "ciou@0.3", 53.3, "note on arXiv 2608.05816", "note"),
        Published("SCAV, frame-wise", "auc", 32.0, "note on arXiv 2608.05816", "note"),
        Published("SCAV, frame-wise", "cap", 53.0, "note on arXiv 2608.05816", "note"),
        Published("NoPrior (best tile)", "ciou@0.3", 46.9, _NOTE, "note"),
        Published("NoPrior (best tile)", "auc", 29.2, _NOTE, "note"),
        Published("NoPrior, frame-wise, run again by SCAV", "ciou@0.3", 18.1, "note on arXiv 2608.05816", "note"),
        Published("Qwen2.5-Omni, asked directly", "ciou@0.3", 42.6, _NOTE, "note"),
        Published("DSOL, somebody's re-implementation", "ciou@0.3", 36.9, "leaderboard", "leaderboard"),
        Published("Cross-Modal Alignment", "ciou@0.3", 35.8, "leaderboard", "leaderboard"),
        Published("AVGN", "ciou@0.3", 26.2, _NOTE, "note"),
        Published("AVGN", "auc", 23.8, _NOTE, "note"),
        Published("AVGN", "cap", 21.9, _NOTE, "note"),
        Published("DSOL, as AVGN and its successors quote it", "ciou@0.3", 22.3, _NOTE, "note"),
        Published("DSOL, as AVGN and its successors quote it", "auc", 21.1, _NOTE, "note"),
        Published("Mix-and-Localize", "ciou@0.3", 21.1, _NOTE, "note"),
        Published("Mix-and-Localize", "auc", 20.5, _NOTE, "note"),
        Published("Mix-and-Localize", "cap", 16.3, _NOTE, "note"),
        Published("LVS", "ciou@0.3", 17.3, _NOTE, "note"),
        Published("LVS", "auc", 19.5, _NOTE, "note"),
        Published("Coarse-to-Fine", "ciou@0.3", 14.7, _NOTE, "note"),
        Published("Coarse-to-Fine", "auc", 18.5, _NOTE, "note"),
    ),
    notes=(
        *_NOTES,
        "Pairs are not symmetric: 3,255 clips serve as partner of 5,158, only two are each other's. 22 pairs share "
        "their class.",
        "NoPrior pairs clip i with clip i + N/2 of the sorted list instead, stacks the pictures and takes each map's "
        "best half; T-VSL prints a mean cIoU (switch value), GAR-SSL scores the union of all boxes.",
    ),
)
BENCHMARKS = (Benchmark(VGGSOUND_SINGLE, parse_single), Benchmark(VGGSOUND_DUET, parse_duet))
