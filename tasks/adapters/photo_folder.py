"""Folders of photographs and recordings, sorted by class: what belongs to what, and a split that does not leak.

    photos/<class>/*.jpg, audio/<class>/*.flac
    manifest.csv        kind, class, file, source_repo_or_package, source_path, seconds; one row a file
    boxes_auto.csv      class, file, x, y, w, h (fractions); only for photos whose object could be found

`source_path` tells which recording a sound file was cut from. Files of one recording stay together. Phrases put
together from single notes share these notes with each other, so they are for training only, and those that use a note
held out for validation or test are left out.
"""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.random import Generator

from dsol_core.types import SPLITS, Box, DataError, Split
from tasks.adapters.annotations import clipped_box

logger = logging.getLogger(__name__)

_SHORTEST = 1.0  # seconds of the shortest usable recording
_ENOUGH = 3  # uninterrupted recordings of a class below which none can be spared for the test
_NOTE = re.compile(r"([A-G])(b|s)?(-?\d)$")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True)
class Recording:
    """A sound file.

    Attributes:
        file: relative path.
        seconds: its length; NaN where the manifest has none, which makes it unusable.
        source: the recording it was cut from, or the phrase it is.
        notes: the recordings that a phrase is put together from; empty for an uninterrupted recording.
    """

    file: str
    seconds: float
    source: str
    notes: frozenset[str] = frozenset()

    @property
    def phrase(self) -> bool:
        """Whether it was put together from several recordings."""
        return bool(self.notes)


@dataclass(frozen=True)
class Photo:
    """A photograph and the box of its object; None where nobody knows it."""

    file: str
    box: Box | None


Pair = tuple[Photo, Recording]


@dataclass(frozen=True)
class ClassSources:
    """What one class has in each split, and which sound files are left out for which reason."""

    photos: Mapping[Split, tuple[Photo, ...]]
    recordings: Mapping[Split, tuple[Recording, ...]]
    dropped: Mapping[str, int]

    @property
    def uninterrupted_test(self) -> bool:
        """Whether no test sound is a phrase."""
        return not any(one.phrase for one in self.recordings["test"])

    @property
    def test_notes_in_training(self) -> bool:
        """Whether a training phrase may contain notes that the test also has."""
        trained = [note for one in self.recordings["train"] for note in one.notes]
        tested = [name for one in self.recordings["test"] for name in (one.source, *one.notes)]
        return any(name.startswith(note) for name in tested for note in trained)

    def pairs(self, split: Split, count: int, rng: Generator) -> list[Pair]:
        """Return `count` pairs of a photo and a recording, each used about equally often, pairs repeated late."""
        photos, recordings = self.photos[split], self.recordings[split]
        seen, heard = rng.permutation(len(photos)), rng.permutation(len(recordings))
        turn = math.lcm(len(seen), len(heard))
        return [(photos[seen[i % len(seen)]], recordings[heard[(i + i // turn) % len(heard)]]) for i in range(count)]

    def summary(self) -> dict[str, Any]:
        """Return what `sources.json` tells about the class."""
        splits = {
            split: {
                "photos": len(self.photos[split]),
                "photos_with_box": sum(photo.box is not None for photo in self.photos[split]),
                "recordings": len({one.source for one in self.recordings[split] if not one.phrase}),
                "recording_files": sum(not one.phrase for one in self.recordings[split]),
                "phrases": sum(one.phrase for one in self.recordings[split]),
            }
            for split in SPLITS
        }
        return {
            "splits": splits,
            "uninterrupted_test": self.uninterrupted_test,
            "test_notes_in_training": self.test_notes_in_training,
            "recordings_left_out": dict(self.dropped),
        }


def read_sources(manifest: Path, boxes: Path | None) -> dict[str, tuple[list[Photo], list[Recording]]]:
    """Read which photos and recordings each class has.

    Raises:
        DataError: the manifest lacks a column, or a class lacks photos or recordings.
    """
    rows = _table(manifest, ("class", "kind", "file", "source_repo_or_package", "source_path", "seconds"))
    places = _read_boxes(boxes) if boxes else {}
    found: dict[str, tuple[list[Photo], list[Recording]]] = {}
    for row in rows:
        if row["kind"] not in ("photo", "audio"):
            continue
        photos, recordings = found.setdefault(row["class"], ([], []))
        if row["kind"] == "photo":
            photos.append(Photo(row["file"], places.get(row["file"])))
        else:
            recordings.append(_recording(row))
    for name, (photos, recordings) in found.items():
        if not photos or not recordings:
            raise DataError(
                f"{manifest.name}: {name} has {len(photos)} photos and {len(recordings)} recordings; "
                "expected at least one of each; add files or remove the class"
            )
    return dict(sorted(found.items()))


def split_sources(
    category: str,
    photos: Sequence[Photo],
    recordings: Sequence[Recording],
    shares: tuple[float, float, float],
    rng: Generator,
) -> ClassSources:
    """Divide the photos and recordings of one class.

    Photos are divided by file, sounds by the recording they were cut from. Of three or more uninterrupted recordings a
    third (at least two, one for each split) is held out at most, for the test first, and those first that the fewest
    phrases are made of. What then lacks is taken from the phrases.

    Args:
        category: name of the class.
        photos: of the class.
        recordings: of the class.
        shares: of train, val and test.
        rng: for the order.

    Raises:
        DataError: there are fewer than three photos or usable recordings, or a split stays empty.
    """
    shares = (shares[0] / sum(shares), shares[1] / sum(shares), shares[2] / sum(shares))
    usable = [one for one in recordings if one.seconds >= _SHORTEST]
    sources = len({one.source for one in usable})
    if len(photos) < 3 or sources < 3:
        raise DataError(
            f"{category} has {len(photos)} photos and {sources} recordings of at least {_SHORTEST:g} s; expected "
            "three of each, one for each split; add files or remove the class"
        )
    held = _hold_out(usable, {"val": shares[1], "test": shares[2]}, rng)
    whole = {one.source for split in held for one in held[split] if not one.phrase}
    taken = {one.source for split in held for one in held[split]}
    left = [one for one in usable if one.source not in taken]
    train = [one for one in left if not one.notes & whole]
    unknown = sum(math.isnan(one.seconds) for one in recordings)
    made = ClassSources(
        photos=_split_photos(photos, shares, rng),
        recordings={"train": tuple(train), "val": tuple(held["val"]), "test": tuple(held["test"])},
        dropped={
            "phrase with a note that is held out": len(left) - len(train),
            f"shorter than {_SHORTEST:g} s": len(recordings) - len(usable) - unknown,
            "no length in the manifest": unknown,
        },
    )
    _check_splits(category, made)
    return made


def _check_splits(category: str, made: ClassSources) -> None:
    for split in SPLITS:
        for what, found in (("photos", made.photos[split]), ("recordings", made.recordings[split])):
            if not found:
                raise DataError(
                    f"{category} has no {what} left for {split}; expected at least three {what} that share nothing; "
                    f"add {what} to the class or remove it, or change data.videos.split"
                )


def _hold_out(
    usable: Sequence[Recording], shares: Mapping[Split, float], rng: Generator
) -> dict[Split, list[Recording]]:
    whole = _shuffled({one.source for one in usable if not one.phrase}, rng)
    whole.sort(key=lambda source: sum(source in one.notes for one in usable))  # stable: equals stay shuffled
    phrases = _shuffled({one.source for one in usable if one.phrase}, rng)
    spare = max(2, len(whole) // 3) if len(whole) >= _ENOUGH else 0
    if not spare and len(phrases) < _ENOUGH:  # too few of either kind to keep one kind for training
        whole, phrases, spare = [], phrases + whole, 0
    sources = {one.source for one in usable}
    wanted = {split: max(1, round(share * len(sources))) for split, share in shares.items()}
    test = whole[: min(wanted["test"], spare - max(1, spare // 3))] if spare else []
    val = whole[len(test) :][: min(wanted["val"], spare - len(test))]
    notes = {one.source: one.notes for one in usable}
    if not test:
        test = phrases[: min(wanted["test"], len(phrases) - 2)]
    if not val:
        clean = [source for source in phrases if source not in test and not notes[source] & set(test)]
        val = clean[: max(1, min(wanted["val"], len(clean) // 3))]
    chosen: dict[Split, list[str]] = {"test": test, "val": val}
    return {split: [one for one in usable if one.source in names] for split, names in chosen.items()}


def _split_photos(
    photos: Sequence[Photo], shares: tuple[float, float, float], rng: Generator
) -> dict[Split, tuple[Photo, ...]]:
    order = [photos[int(i)] for i in rng.permutation(len(photos))]
    test = max(1, round(shares[2] * len(order)))
    val = max(1, round(shares[1] * len(order)))
    return {"test": tuple(order[:test]), "val": tuple(order[test : test + val]), "train": tuple(order[test + val :])}


def _shuffled(names: set[str], rng: Generator) -> list[str]:
    ordered = sorted(names)
    return [ordered[int(i)] for i in rng.permutation(len(ordered))]


def _recording(row: Mapping[str, str]) -> Recording:
    origin, path, seconds = row["source_repo_or_package"], row["source_path"], _number(row["seconds"])
    folder, _, pitches = path.partition(": phrase of recorded single notes ")
    if pitches:
        notes = [f"{folder}/note {pitch}" for pitch in pitches.split("-")]
    elif path.startswith("pattern of recorded hits: "):
        notes = path.split(": ", 1)[1].split("; ")
    elif "phrase rendered" in path:
        notes = [path.split()[0]]  # of all the samples in this SoundFont
    else:
        return Recording(row["file"], seconds, f"{origin} {_source(path)}")
    return Recording(row["file"], seconds, f"{origin} {path}", frozenset(f"{origin} {x}" for x in notes))


def _number(cell: str | None) -> float:
    """Read a number; NaN where the cell is empty or no number."""
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def _source(path: str) -> str:
    """Name the recording that a file was cut from: no cutting position, and one name for a note of one folder."""
    whole = path.split("@")[0]
    folder, _, name = whole.rpartition("/")
    note = _NOTE.match(name.rsplit(".", 1)[0])
    if not note:
        return whole
    pitch = _SEMITONES[note[1]] + {"b": -1, "s": 1, None: 0}[note[2]] + 12 * (int(note[3]) + 1)
    return f"{folder}/note {pitch}"


def _read_boxes(path: Path) -> dict[str, Box]:
    """Read the boxes; a photo whose box is no number or outside the picture has none, and the log tells."""
    found = {}
    for number, row in enumerate(_table(path, ("file", "x", "y", "w", "h")), start=2):
        x, y, width, height = (_number(row[name]) for name in ("x", "y", "w", "h"))
        box = clipped_box(x, y, width, height, None)
        if box:
            found[row["file"]] = box
        else:
            values = ", ".join(str(row[name]) for name in ("x", "y", "w", "h"))
            logger.warning(
                "%s, line %d: box %s of %s is not in the picture; expected x, y, w, h as fractions; the photo counts "
                "as one without box",
                *(path, number, values, row["file"]),
            )
    return found


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # with the mark that spreadsheets put at its start
            reader = csv.DictReader(file, restval="")
            known, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} cannot be read ({error}); expected comma-separated UTF-8 text") from error
    missing = [name for name in columns if name not in known]
    if missing:
        raise DataError(f"{path.name} lacks the columns {', '.join(missing)}; expected at least {', '.join(columns)}")
    return rows
