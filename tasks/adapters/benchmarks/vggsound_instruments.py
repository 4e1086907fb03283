"""VGGSound-Instruments (Hu 2022): 446 frames with masks in place of boxes, alone and in pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsol_core.protocols import Item, Picture, Protocol, Published, Sound, Source, Switches
from dsol_core.types import DataError
from tasks.adapters.array_pickle import load_array
from tasks.adapters.benchmarks import annotation_files as files
from tasks.adapters.benchmarks.reading import Benchmark, Reading

SINGLE = "vggsound_instruments/vgginstruments_test.csv"
MULTI = "vggsound_instruments/vgginstruments_multi_test.csv"
MASKS = "vggsound_instruments/sample*.pkl"
CLASSES = tuple(
    "accordion acoustic_guitar banjo bass_drum bass_guitar bongo cello clarinet congas cornet cymbal djembe "
    "double_bass drum_kit electric_guitar electronic_organ erhu flute glockenspiel guiro hammond_organ harp "
    "harpsichord mandolin piano saxophone sitar snare_drum steel_guitar tabla timbales trumpet ukulele vibraphone "
    "violin xylophone zither".split()
)  # erhu is in the training list only
_ENDINGS = frozenset({"", ".pkl", ".pickle", ".pk", ".p", ".npy"})  # which one the download has is not documented
_SOUND = 3.0  # seconds, the middle of the recording


def read_masks(annotations: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the masks of samples, bool [H, W].

    Raises:
        DataError: one is missing, there in two versions, or no mask.
    """
    wanted = set(names)
    found: dict[str, Path] = {}
    for path in sorted(annotations.rglob("sample*")):
        if path.stem in wanted and path.suffix in _ENDINGS and path.is_file():
            if path.stem in found and path.read_bytes() != found[path.stem].read_bytes():
                raise DataError(f"{found[path.stem]} and {path} are masks of one sample and differ; remove one")
            found.setdefault(path.stem, path)
    if missing := sorted(wanted - set(found)):
        raise DataError(
            f"{annotations} lacks the masks of {len(missing)} of {len(wanted)} samples, first {missing[0]}; expected "
            f"{missing[0]}.pkl or .npy at any depth; download them from the page of Mix-and-Localize"
        )
    return {name: _mask(path) for name, path in found.items()}


def _mask(path: Path) -> Any:
    array = load_array(path)
    array = array.reshape([size for size in array.shape if size != 1]) if array.ndim > 2 else array
    values = np.unique(array)
    if array.ndim != 2 or len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape} with {len(values)} values; expected a mask [height, "
            "width] of 0 and one other value; download it again"
        )
    return array > 0


def _rows(annotations: Path, name: str, form: str) -> list[tuple[str, ...]]:
    path = files.locate(annotations, name)
    rows = files.read_rows(path, form)
    files.refuse_duplicates(path, [row[0] for row in rows])
    for row in rows:
        for category in row[1::2]:
            if category not in CLASSES:
                raise DataError(f"{path}: {row[0]!r} has class {category!r}; expected one of {', '.join(CLASSES)}")
    return rows


def parse_single(annotations: Path, switches: Switches) -> Reading:
    """Return a sample a row."""
    rows = _rows(annotations, SINGLE, "<sample>,<class>")
    masks = read_masks(annotations, [name for name, _ in rows])
    return Reading(tuple(_item([(name, category)], masks) for name, category in rows))


def parse_multi(annotations: Path, switches: Switches) -> Reading:
    """Return a pair a row; under mix="first" its first sample only, as AVGN's loader does."""
    rows = _rows(annotations, MULTI, "<sample>,<class>,<sample>,<class>")
    masks = read_masks(annotations, [name for row in rows for name in row[::2]])
    alone = switches.mix == "first"
    items = []
    for row in rows:
        pair = list(zip(row[::2], row[1::2], strict=True))
        made = _item(pair[:1] if alone else pair, masks)
        items.append(replace(made, key=",".join(row[::2]), spare=int(alone)))
    left: Counter[str] = Counter({"second source of a pair (sources, not items)": len(rows) if alone else 0})
    return Reading(tuple(items), +left)


def _item(samples: list[tuple[str, str]], masks: dict[str, Any]) -> Item:
    names = tuple(name for name, _ in samples)
    sources = tuple(Source(category, mask=masks[name], picture=place) for place, (name, category) in enumerate(samples))
    pictures, sounds = tuple(Picture(name) for name in names), tuple(Sound(name, None, _SOUND) for name in names)
    return Item(",".join(names), tuple(dict.fromkeys(names)), pictures, sounds, sources)


_REFERENCE = Switches(resize="bicubic", normalise="minmax", empty="fail", swapped_ap=True)
_MEDIA = "sampleNNNN pictures and sounds from the page of Mix-and-Localize"
_NOTES = (
    "Which VGGSound clips the samples are is in no public file, and the authors' split is lost; that the usual "
    "training list (33,934 clips) holds none of the 446 cannot be checked.",
    "Masks are pickles; here they are read by an unpickler that can build arrays of numbers and nothing else.",
)
SINGLES = Protocol(
    name="vggsound-instruments",
    title="VGGSound-Instruments",
    row=8,
    kind="single",
    annotations=(SINGLE, MASKS),
    media=_MEDIA,
    items=446,
    metrics=("iou@0.3", "auc", "ap"),
    reference=_REFERENCE,
    correct=Switches(),
    measures="Whether the instrument that sounds is found, against masks, in 446 frames of 36 classes.",
    trap=(
        "The bar is an IoU of 0.3 where the neighbouring column of a table uses 0.5, with a mask that always covers "
        "half of the frame. Overlap of training and test cannot be checked by anyone."
    ),
    published=(
        Published("Cross-Modal Alignment", "iou@0.3", 65.8, "leaderboard", "leaderboard"),
        Published("DSOL, somebody's re-implementation", "iou@0.3", 61.6, "leaderboard", "leaderboard"),
        Published("AVGN", "iou@0.3", 55.3, "recollection of the paper", "memory"),
        Published("DSOL, in the paper of Mix-and-Localize", "iou@0.3", 50.2, "recollection of the paper", "memory"),
        Published("DSOL, in the paper of Mix-and-Localize", "auc", 32.9, "recollection of the paper", "memory"),
    ),
    classes=CLASSES,
    notes=_NOTES,
)
PAIRS = Protocol(
    name="vggsound-instruments-multi",
    title="VGGSound-Instruments, pairs",
    row=7,
    kind="multi",
    annotations=(MULTI, MASKS),
    media=_MEDIA,
    items=446,
    metrics=("ciou@0.1", "auc", "ap"),
    reference=replace(_REFERENCE, oracle=True, canvas="separate", mix="first", aggregate="source"),
    correct=Switches(),
    measures="Whether two instruments heard at once are each found in their own picture, against masks.",
    trap=(
        "In AVGN's loader the branch that mixes does nothing for this set: the sound is the first source alone, the "
        "second is never evaluated, and the average over both is not a number. An IoU of 0.1 is enough to count."
    ),
    published=(
        Published("DSOL, somebody's re-implementation", "ciou@0.1", 85.9, "leaderboard", "leaderboard"),
        Published("Cross-Modal Alignment", "ciou@0.1", 84.9, "leaderboard", "leaderboard"),
        Published("AVGN", "ciou@0.1", 77.5, "recollection of the paper", "memory"),
        Published("SCAV", "ciou@0.1", 76.0, "note on arXiv 2608.05816", "note"),
        Published("SCAV", "cap", 32.0, "note on arXiv 2608.05816", "note"),
        Published("SCAV", "auc", 21.1, "note on arXiv 2608.05816", "note"),
        Published("DSOL, in the paper of Mix-and-Localize", "ciou@0.1", 74.3, "recollection of the paper", "memory"),
        Published("DSOL, in the paper of Mix-and-Localize", "auc", 15.9, "recollection of the paper", "memory"),
    ),
    classes=CLASSES,
    notes=(
        *_NOTES,
        "Reference scores the first source alone, which is all that the released loader hands over. The maps of a file "
        "(--predictions) cover both pictures, side by side, in either mode; reference looks at their left half.",
    ),
)
BENCHMARKS = (Benchmark(SINGLES, parse_single), Benchmark(PAIRS, parse_multi))
