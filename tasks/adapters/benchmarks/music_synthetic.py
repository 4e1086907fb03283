"""MUSIC-Synthetic (Hu 2020): four frames tiled to one picture, two of their four sounds heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsol_core.protocols import Item, MaskRule, Picture, Protocol, Published, Sound, Source, Switches
from dsol_core.types import DataError
from tasks.adapters.array_pickle import load_array
from tasks.adapters.benchmarks import boxes
from tasks.adapters.benchmarks.music_dsol import CATEGORIES, CLASSES
from tasks.adapters.benchmarks.reading import Benchmark, Reading

BOXES = "test1/box/*.npy"
_FORM = "rows of x, y, width, height (fractions of the picture) and the category's number"


def box_folder(annotations: Path) -> Path:
    """Return the folder of the test set's box files: called `box`, not below a `train`, or the given one itself.

    Raises:
        DataError: there is none, or several.
    """
    found = {
        path.parent for path in annotations.rglob("*.npy") if path.parent in (annotations, path.parent.parent / "box")
    }
    inner = {folder for folder in found if "train" not in folder.relative_to(annotations).parts}
    if len(inner) != 1:
        have = ", ".join(str(folder) for folder in sorted(inner)) or "none"
        raise DataError(
            f"{annotations}: expected one folder test1/box with .npy files, found {have}; unpack the test set of "
            "Zenodo record 4079386, or give its box folder itself"
        )
    return inner.pop()


def parse(annotations: Path, switches: Switches) -> Reading:
    """Return an item a box file."""
    return Reading(tuple(_item(path) for path in sorted(box_folder(annotations).glob("*.npy"))))


def _item(path: Path) -> Item:
    rows = load_array(path)
    if rows.ndim != 2 or rows.shape[1] != 5 or not len(rows):
        raise DataError(f"{path} holds an array of shape {rows.shape}; expected {_FORM}")
    by_class: dict[str, list[boxes.Numbers]] = {}
    for row in rows.tolist():
        by_class.setdefault(_category(path, row), []).append(boxes.xywh(path, path.stem, row[:4]))
    sources = tuple(Source(category, tuple(some)) for category, some in by_class.items())
    return Item(path.stem, (path.stem,), (Picture(path.stem),), (Sound(path.stem, None, None),), sources)


def _category(path: Path, row: list[Any]) -> str:
    if row[4] not in CATEGORIES:
        known = ", ".join(f"{number} {name}" for number, name in CATEGORIES.items())
        raise DataError(f"{path}: row {row} has category {row[4]:g}; expected one of {known}")
    return CATEGORIES[int(row[4])]


_README = "README of DSOL"
PROTOCOL = Protocol(
    name="music-synthetic",
    title="MUSIC-Synthetic",
    row=11,
    kind="multi",
    annotations=(BOXES,),
    media="test1/video/<name>.jpg and test1/audio/<name> of Zenodo record 4079386",
    items=0,
    metrics=("ciou@0.3", "auc", "nsa"),
    reference=Switches(mask=MaskRule("relative", 0.5, strict=True), nsa_channels=11, nsa_leaves_out="first"),
    correct=Switches(),
    measures="Whether the two instruments that sound are found, and the two silent ones left dark, in a tiled picture.",
    trap=(
        "The printed number comes from a script that stops after the first batch of 32 pictures, with a map threshold "
        "of 0.5 here, 0.2 on MUSIC-Duet and 0.1 on MUSIC-Solo; objects keep to their quarter, so a prediction need "
        "only choose a tile."
    ),
    published=(
        Published("DSOL", "ciou@0.3", 32.3, _README, "readme"),
        Published("DSOL", "auc", 23.5, _README, "readme"),
        Published("DSOL", "nsa", 98.5, _README, "readme"),
        Published("Sound-of-Pixels", "ciou@0.3", 8.1, _README, "readme"),
        Published("Sound-of-Pixels", "auc", 11.8, _README, "readme"),
        Published("Sound-of-Pixels", "nsa", 97.2, _README, "readme"),
        Published("DMC", "ciou@0.3", 7.0, _README, "readme"),
        Published("DMC", "auc", 16.3, _README, "readme"),
        Published("Attention (Senocak)", "ciou@0.3", 6.4, _README, "readme"),
        Published("Attention (Senocak)", "auc", 12.3, _README, "readme"),
        Published("Attention (Senocak)", "nsa", 77.9, _README, "readme"),
        Published("Objects-that-Sound", "ciou@0.3", 3.7, _README, "readme"),
        Published("Objects-that-Sound", "auc", 10.2, _README, "readme"),
        Published("Objects-that-Sound", "nsa", 19.8, _README, "readme"),
    ),
    classes=CLASSES,
    notes=(
        "The number of items, the jitter of the mixtures, their gains and their time stamps are published nowhere "
        "outside the archive. The sound is a ready spectrogram of one second, not a waveform.",
        "NSA looks at the first 11 channels only, whatever the number of clusters.",
        "A correct evaluation reads all items; reference does so too, since which 32 came first is not known.",
    ),
)
BENCHMARKS = (Benchmark(PROTOCOL, parse),)
