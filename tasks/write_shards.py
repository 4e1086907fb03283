"""clips.parquet + scenes.parquet + media -> *.tar + shards.json + dropped.parquet.

Every video is decoded once, by Ray tasks: the solo and multi shards first. The grid shards are then put together from
the bytes of the solo shards. Finished pieces (about a shard; a longer video is one piece) stay in the step's work
folder, so that a killed run goes on from them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsol_core.config import ClipsConfig
from dsol_core.types import SPLITS, DataError, Scene
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact, StoreError

if TYPE_CHECKING:
    from tasks.adapters.samples import Source
    from tasks.adapters.shards import Sample

Row = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """The work of one task: the clips of some videos, or some scenes with the places of their clips' bytes.

    Attributes:
        name: of the files it leaves in `work`.
        subset: solo, multi or grid.
        split: train, val or test.
        work: folder that every node sees.
        config: of the clips.
        sources: videos to decode.
        scenes: scenes to compose.
        places: clip -> (tar, member -> (offset, size)).
        attempt: what could not be decoded in one is tried again in the next.
    """

    name: str
    subset: str
    split: str
    work: Path
    config: ClipsConfig
    sources: tuple[Source, ...] = ()
    scenes: tuple[Scene, ...] = ()
    places: Mapping[str, tuple[Path, Mapping[str, tuple[int, int]]]] | None = None
    attempt: int = 0

    @property
    def clips(self) -> int:
        """How many clips or scenes it is made from."""
        return sum(len(source.rows) for source in self.sources) + len(self.scenes)


@step
def write_shards(
    run: Run, clips: Artifact, scenes: Artifact, videos: Artifact, media: Artifact, config: ClipsConfig
) -> Artifact:
    """Read clips, scenes and the media, write WebDataset shards with their manifest and what was dropped."""

    def write(out: StepOutput) -> None:
        from tasks.adapters import shards, tables

        index = ClipIndex(clips.file("clips.parquet"), out.work / "clips.jsonl")
        total = len(index) + tables.count(scenes.file("scenes.parquet"))
        attempt = _attempt(out.work, another="write_shards" in run.scope.force)
        ledger = Ledger(out, len(index), total, config.max_dropped)
        pieces = decoding_pieces(index, videos.file("videos.parquet"), media, config, out.work)
        for piece, done in _map(run, decode_piece, (replace(piece, attempt=attempt) for piece in pieces)):
            ledger.add(piece, done, "decoding")
        for split in SPLITS:
            recipes = [scene for scene in tables.scenes(scenes.file("scenes.parquet")) if scene.split == split]
            grids = composing_pieces(recipes, split, ledger, config, out.work)
            for piece, done in _map(run, compose_piece, (replace(piece, attempt=attempt) for piece in grids)):
                ledger.add(piece, done, "composing")
        if not ledger.shards:
            _attempt(out.work, another=True)
            raise DataError(f"none of {len(index)} clips became a sample; look at videos.parquet for the reasons")
        shards.write_manifest(out.folder, ledger.publish(), "frames")
        tables.write(out.folder / "dropped.parquet", "dropped", ledger.dropped)
        out.rows(read=total, written=sum(one["samples"] for one in ledger.shards), dropped=ledger.reasons())

    parents = {"clips": clips, "scenes": scenes, "videos": videos, "media": media}
    return run.step("write_shards", config, parents, write)


def _attempt(work: Path, *, another: bool) -> int:
    """Return the number of this attempt: a killed one goes on, after one that lost too much there is another."""
    from tasks.adapters.store import write_json

    path = work / ".attempt"  # hidden: it does not travel to the nodes
    number = int(path.read_text()) if path.exists() else 0
    if another:
        write_json(path, number + 1)
    return number + another


def _map(run: Run, function: Any, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Row]]:
    """Run a function over pieces on the cluster, and yield each piece with its result."""
    from tasks.adapters.cluster import map_tasks

    waiting: list[Piece] = []

    def noted() -> Iterator[Piece]:
        for piece in pieces:
            waiting.append(piece)
            yield piece

    for done in map_tasks(function, noted(), compute=run.compute):
        yield waiting.pop(0), done


class ClipIndex:
    """The rows of clips.parquet by video. They lie in a file; memory holds one number a clip."""

    def __init__(self, table: Path, path: Path) -> None:
        from tasks.adapters import tables

        self._path, self._count = path, 0
        self._offsets: dict[tuple[str, str], dict[str, list[int]]] = {}
        with path.open("wb") as file:
            for row in tables.read(table):
                videos = self._offsets.setdefault((row["kind"], row["split"]), {})
                videos.setdefault(row["video_id"], []).append(file.tell())
                file.write(json.dumps(row).encode() + b"\n")
                self._count += 1

    def __len__(self) -> int:
        return self._count

    def videos(self, kind: str, split: str) -> list[str]:
        """Return the videos of a subset in an order that mixes them: by a hash of their ids."""
        import hashlib

        return sorted(self._offsets.get((kind, split), {}), key=lambda name: hashlib.sha256(name.encode()).digest())

    def rows(self, kind: str, split: str, video: str) -> tuple[Row, ...]:
        """Return the rows of a video by time."""
        with self._path.open("rb") as file:
            found = []
            for offset in self._offsets[kind, split][video]:
                file.seek(offset)
                found.append(json.loads(file.readline()))
        return tuple(sorted(found, key=lambda row: row["start"]))


class Ledger:
    """What the pieces brought: shards to publish, samples lost and why."""

    def __init__(self, out: StepOutput, clips: int, total: int, max_dropped: float) -> None:
        self._out, self._clips, self._total, self._max = out, clips, total, max_dropped
        self._done = 0
        self.shards: list[Row] = []
        self.dropped: list[Row] = []

    def add(self, piece: Piece, done: Row, text: str) -> None:
        """Take a piece's result; stop when too many clips could not be decoded."""
        self.shards += [{**one, "subset": piece.subset, "split": piece.split} for one in done["shards"]]
        self.dropped += done["dropped"]
        self._done += piece.clips
        self._out.progress(self._done, self._total, f"{text} {piece.subset} {piece.split}")
        if text == "decoding" and len(self.dropped) > self._max * self._clips:
            reasons = ", ".join(f"{name} ({count})" for name, count in Counter(self.reasons()).most_common(3))
            _attempt(self._out.work, another=True)  # a disk that was away may be back
            raise DataError(
                f"{len(self.dropped)} of {self._clips} clips cannot be decoded, more than the share of {self._max:g} "
                f"(clips.max_dropped): {reasons}; mend or remove those videos, or raise the share"
            )

    def tars(self, subset: str, split: str) -> list[Path]:
        """Return the finished shards of a subset."""
        return [self._out.work / one["file"] for one in self.shards if (one["subset"], one["split"]) == (subset, split)]

    def reasons(self) -> dict[str, int]:
        """Count the losses by the first words of their reason."""
        return dict(Counter(row["reason"].split(":")[0] for row in self.dropped))

    def publish(self) -> list[Any]:
        """Give the finished shards their final names in the artifact and return the manifest's lines."""
        from tasks.adapters.shards import Shard

        listed = []
        numbers: Counter[tuple[str, str]] = Counter()
        for one in self.shards:
            subset, split = one["subset"], one["split"]
            name = f"{subset}-{split}-{numbers[subset, split]:05d}.tar"
            numbers[subset, split] += 1
            _link(self._out.work / one["file"], self._out.folder / name)
            listed.append(Shard(name, subset, split, one["samples"], one["sha256"]))
        return listed


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def decoding_pieces(
    index: ClipIndex, videos: Path, media: Artifact, config: ClipsConfig, work: Path
) -> Iterator[Piece]:
    """Cut the videos of each subset and split into pieces of about a shard."""
    from tasks.adapters import tables

    known = {row["id"]: row for row in tables.read(videos, ["id", "path", "duration"])}
    for subset in ("solo", "multi"):
        for split in SPLITS:
            sources: list[Source] = []
            number = 0
            for name in chain(index.videos(subset, split), [None]):
                rows = index.rows(subset, split, name) if name is not None else ()
                full = sum(len(one.rows) for one in sources) + len(rows) > config.samples_per_shard
                if sources and (name is None or full):
                    yield Piece(f"{subset}-{split}-{number:05d}", subset, split, work, config, tuple(sources))
                    sources, number = [], number + 1
                if name is not None:
                    sources.append(_source(known.get(name), name, rows, media))


def _source(video: Row | None, name: str, rows: tuple[Row, ...], media: Artifact) -> Source:
    from tasks.adapters.samples import Source

    if video is None:
        return Source({"id": name}, "", rows, "missing: the clips' video is not in videos.parquet")
    try:
        return Source(video, str(media.file(video["path"])), rows)
    except StoreError as error:
        return Source(video, "", rows, f"missing: {error}")


def decode_piece(piece: Piece) -> Row:
    """Decode the videos of a piece into shards; what an earlier try finished is taken as it is."""
    from tasks.adapters.samples import decode_source

    dropped: list[Row] = []
    samples = (sample for source in piece.sources for sample in decode_source(source, piece.config, dropped))
    return _finish(piece, samples, dropped)


def _finish(piece: Piece, samples: Iterator[Sample], dropped: list[Row]) -> Row:
    """Write the samples of a piece to its shards, then, as the last act, the record that says so."""
    from tasks.adapters.fingerprints import sha256
    from tasks.adapters.shards import write_shard
    from tasks.adapters.store import write_json

    record = piece.work / f"{piece.name}.json"
    if record.exists():
        known = dict(json.loads(record.read_text()))
        if not known["dropped"] or known.get("attempt") == piece.attempt:
            return known
    shards: list[Row] = []
    for first in samples:
        path = piece.work / f"{piece.name}-{len(shards):05d}.tar"
        count = write_shard(path, chain([first], islice(samples, piece.config.samples_per_shard - 1)))
        shards.append({"file": path.name, "samples": count, "sha256": sha256(path)})
    result = {"shards": shards, "dropped": dropped, "attempt": piece.attempt}
    write_json(record, result)
    return result


def composing_pieces(
    scenes: list[Scene], split: str, ledger: Ledger, config: ClipsConfig, work: Path
) -> Iterator[Piece]:
    """Cut the scenes of a split into pieces of a shard, each with the places of its clips in the solo shards."""
    from tasks.adapters.shards import places

    wanted = {clip for scene in scenes for clip in scene.clip_ids}
    found = {key: (tar, place) for tar in ledger.tars("solo", split) for key, place in places(tar, wanted).items()}
    for number, start in enumerate(range(0, len(scenes), config.samples_per_shard)):
        part = tuple(scenes[start : start + config.samples_per_shard])
        needed = {clip: found[clip] for scene in part for clip in scene.clip_ids if clip in found}
        name = f"grid-{split}-{number:05d}"
        yield Piece(name, "grid", split, work, config, scenes=part, places=needed)


def compose_piece(piece: Piece) -> Row:
    """Put the scenes of a piece together; those that need a dropped clip are dropped too."""
    dropped: list[Row] = []
    return _finish(piece, _composed(piece, dropped), dropped)


def _composed(piece: Piece, dropped: list[Row]) -> Iterator[Sample]:
    from tasks.adapters.samples import scene_sample
    from tasks.adapters.shards import read_at

    places = piece.places or {}
    for scene in piece.scenes:
        missing = [clip for clip in scene.clip_ids if clip not in places]
        if missing:
            reason = f"a clip of the scene was dropped: {missing[0]}"
            dropped.append({"key": scene.id, "video_id": missing[0].rpartition("_")[0], "reason": reason})
        else:
            parts = [read_at(places[clip][0], clip, places[clip][1]) for clip in scene.clip_ids]
            yield scene_sample(scene, parts)
