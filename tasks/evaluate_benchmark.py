"""Score a model, or another system's maps, on a published benchmark. Not a step: the command line calls `evaluate`.

A model's maps are computed in blocks of items, a Ray task each, and kept as Parquet parts, so that a run that was
killed goes on where it stopped. Then they are scored in the asked modes, block by block; memory holds a few blocks. A
folder holds `parts/<what is heard>/*.parquet`, `scores.json` and `missing.parquet`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dsol_core.canvas import within
from dsol_core.config import Compute
from dsol_core.protocols import MODES, Item, Maps, Mode, Protocol
from dsol_core.types import UsageError
from tasks.adapters import benchmark_maps, benchmarks, cluster, localizers, prediction_files
from tasks.adapters.benchmark_maps import Lack, Request
from tasks.adapters.benchmark_parts import bytes_of, chunks, digest, finished_parts, write_part
from tasks.adapters.benchmark_scores import SYSTEM, UNKNOWN, Block, Result, result, score_block, write_missing
from tasks.adapters.benchmark_tracking import tell_mlflow
from tasks.adapters.class_names import Classes, benchmark_classes, match_classes, with_agnostic, without_agnostic
from tasks.adapters.fingerprints import code_digest, sha256
from tasks.adapters.media_layouts import Library
from tasks.adapters.store import write_json

Progress = Callable[[float, float], None]

BLOCK = 64  # items of a task
_LISTED = 20  # unknown items named in scores.json; all of them are in missing.parquet


@dataclass(frozen=True)
class Task:
    """A block of items to localise.

    Attributes:
        requests: items whose media were found.
        marks: of each, what its maps are made from.
        model: as the user gave it.
        store: whose registry is asked.
        identity: of the model, so that a worker does not keep another one.
        part: file to write.
    """

    requests: tuple[Request, ...]
    marks: tuple[str, ...]
    model: str
    store: str
    identity: str
    part: str


def evaluate(
    benchmark: str,
    annotations: Path,
    *,
    data: Path | None = None,
    model: str | None = None,
    predictions: Path | None = None,
    modes: Sequence[Mode] = MODES,
    names: Mapping[str, str] | None = None,
    out: Path | None = None,
    store: Path = Path("runs"),
    compute: Compute | None = None,
    track: bool = True,
    resamples: int = 1000,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a model or a file of maps.

    Args:
        benchmark: its name (`benchmarks.all_protocols`).
        annotations: folder of its annotation files.
        data: folder of its media, in any layout of `media_layouts`; needed for a model.
        model: "models:/<name>@<alias>", "models:/<name>/<version>", or a folder of train_stage_two.
        predictions: a Parquet file of maps (`prediction_files`) in place of a model.
        modes: "reference", "correct".
        names: class of the system -> class of the benchmark, where the names do not tell.
        out: folder of the results; by default STORE/benchmarks/<benchmark>-<fingerprint>.
        store: for the results, and whose MLflow is told.
        compute: Ray cluster; `workers=0` computes in this process.
        track: whether MLflow is told.
        resamples: of the bootstrap over videos.
        on_progress: hears how many of the items are done, as (done, total).

    Returns:
        The content of scores.json.

    Raises:
        UsageError: an unknown benchmark, mode or class, or not exactly one of a model with its media and a file.
        DataError: annotations or predictions that cannot be used, or no item that can be scored.
        CheckpointError: there is no such model.
        TrackingError: MLflow has no such model.
    """
    began = time.time()
    if (model is None) == (predictions is None) or (model is not None and data is None):
        raise UsageError("expected either --model with --data, or --predictions; give one of the two")
    if not modes or set(modes) - set(MODES):
        raise UsageError(f"modes are {list(modes)}; expected some of {', '.join(MODES)}")
    if out and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    protocol = benchmarks.find(benchmark)
    readings = {mode: benchmarks.read_items(protocol, annotations, mode) for mode in modes}
    run = _Run(protocol, readings, compute or Compute(), on_progress or (lambda done, total: None))
    system: _Model | _File
    if predictions is not None:
        system = _File(run, predictions, names or {})
    else:
        system = _Model(run, str(model), Path(str(data)), names or {}, store)
    folder = out or store / "benchmarks" / f"{protocol.name}-{system.fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    system.compute(folder)
    results, lacks = {}, [*system.strangers]
    for mode in modes:
        results[mode], more = run.score(mode, system, resamples)
        lacks += more
    write_missing(folder / "missing.parquet", lacks)
    facts = {"benchmark": protocol.name, "title": protocol.title, "fingerprint": system.fingerprint}
    summary = facts | system.facts() | {"modes": {mode: one.as_dict() for mode, one in results.items()}}
    summary |= {"differences": {name: [str(a), str(b)] for name, (a, b) in protocol.differences().items()}}
    summary |= {"folder": str(folder), "seconds": round(time.time() - began, 1)}
    summary["tracking"] = tell_mlflow(store, protocol.name, summary, results) if track else None
    write_json(folder / "scores.json", summary)
    return summary


class _Run:
    """What all parts of an evaluation share."""

    def __init__(
        self, protocol: Protocol, readings: Mapping[Mode, benchmarks.Reading], compute: Compute, tell: Progress
    ) -> None:
        self.protocol, self.readings, self.compute = protocol, readings, compute
        self._tell, self._done = tell, 0
        self._total = 2 * sum(len(reading) for reading in readings.values())

    def match(self, system: Sequence[str], names: Mapping[str, str]) -> Classes:
        """Match the classes of a system with the benchmark's.

        Raises:
            UsageError: none matches, and the protocol compares maps of classes.
        """
        own = benchmark_classes(self.protocol, (item for one in self.readings.values() for item in one))
        found = match_classes(system, own, names)
        if self.protocol.class_aware and system and not found.known:
            raise UsageError(
                f"{self.protocol.name} compares maps of classes, and none of the system's ({', '.join(system)}) is one "
                f"of its ({', '.join(own)}); give --map class=class, or name a model's entries with dsol name"
            )
        return found

    def keys(self) -> set[str]:
        """Return the keys of the items of all asked modes."""
        return {item.key for reading in self.readings.values() for item in reading}

    def advance(self, count: int) -> None:
        """Tell that so many more items are localised or scored."""
        self._done += count
        self._tell(min(self._done, self._total), self._total)

    def tasks(self, blocks: int) -> Compute:
        """Return where to compute so many blocks: starting Ray for one costs more than it gains."""
        return self.compute if blocks > 1 or self.compute.address else Compute(workers=0)

    def score(self, mode: Mode, system: _Model | _File, resamples: int) -> tuple[Result, list[Lack]]:
        """Score one mode."""
        reading = self.readings[mode]
        items = {item.key: item for item in reading}
        said = (one for one in system.read(mode) if one.key in items)
        blocks = (self._block(mode, some, items) for some in chunks(said, BLOCK, bytes_of))
        scored = []
        for one in cluster.map_tasks(score_block, blocks, compute=self.tasks(-(-len(items) // BLOCK))):
            scored.append(one)
            self.advance(len(one[SYSTEM].keys))
        return result(self.protocol, mode, reading, scored, system.lacks(mode), resamples=resamples)

    def _block(self, mode: Mode, said: list[Maps], items: Mapping[str, Item]) -> Block:
        return Block(self.protocol, mode, tuple(items[one.key] for one in said), tuple(said))


class _File:
    """A file of maps that any system made."""

    def __init__(self, run: _Run, path: Path, names: Mapping[str, str]) -> None:
        self.path = path
        self._run = run
        self._file = prediction_files.open_predictions(path, run.keys())
        self._classes = run.match(sorted(self._file.classes), names)
        self.strangers = [Lack(key, path.name, UNKNOWN) for key in self._file.unknown]
        self.fingerprint = digest([run.protocol.name, sha256(path), dict(names)])
        self._said = _classes_fact(run, self._classes)

    def compute(self, folder: Path) -> None:
        """Do nothing: the maps are there."""

    def read(self, mode: Mode) -> Iterator[Maps]:
        """Yield the maps of the pictures that the mode looks at."""
        items = {item.key: item for item in self._run.readings[mode]}
        return (self._classes.rename(within(items[one.key], one)) for one in self._file.read() if one.key in items)

    def lacks(self, mode: Mode) -> dict[str, Lack]:
        """Return nothing: a file does not say why an item has no maps."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what scores.json says about it."""
        unknown = {"count": len(self._file.unknown), "first": list(self._file.unknown)[:_LISTED]}
        return {"predictions": str(self.path), "rows": self._file.rows, "unknown_items": unknown, "classes": self._said}


class _Model:
    """A model of ours, run on the benchmark's media."""

    strangers: tuple[Lack, ...] = ()

    def __init__(self, run: _Run, model: str, data: Path, names: Mapping[str, str], store: Path) -> None:
        self._run, self.model, self._store = run, model, store
        self._loaded = localizers.load(model, store)
        self._library = Library(data)
        self._classes = run.match(self._loaded.entries, names)
        facts = [self._loaded.identity or model, self._loaded.entries, self._loaded.heard_seconds, self._loaded.square]
        code = [code_digest(one.__name__) for one in (benchmark_maps, localizers)]
        self._made_by = digest([facts, self._loaded.side, code])
        self.fingerprint = digest([run.protocol.name, self._made_by, self._library.listing()])
        self._own_agnostic, self._heard = False, 0.0
        self._parts: dict[Mode, dict[Path, set[str]]] = {}
        self._lacks: dict[Mode, dict[str, Lack]] = {}

    def compute(self, folder: Path) -> None:
        """Localise what no earlier run has."""
        for mode, reading in self._run.readings.items():
            switches = self._run.protocol.switches(mode)
            place = folder / "parts" / f"{switches.mix}-{switches.audio}"
            place.mkdir(parents=True, exist_ok=True)
            self._localise(mode, reading, switches.mix, place)

    def _localise(self, mode: Mode, reading: benchmarks.Reading, mix: str, place: Path) -> None:
        clips = benchmark_maps.named_clips(self._run.protocol)
        found = list(benchmark_maps.find_media(reading, self._library, mix, clips=clips))
        wanted = {one.key: self._mark(one) for one in found if isinstance(one, Request)}
        done = finished_parts(place, wanted)
        todo = [one for one in found if isinstance(one, Request) and one.key not in done]
        self._run.advance(len(found) - len(todo))
        allowed = [seconds for one in found if isinstance(one, Request) for seconds in one.seconds]
        self._heard = max([self._heard, *(benchmark_maps.heard_seconds(one, self._loaded) for one in allowed)])
        tasks = [self._task(tuple(some), place) for some in chunks(todo, BLOCK)]
        for count in cluster.map_tasks(predict_block, tasks, compute=self._run.tasks(len(tasks))):
            self._run.advance(count)
        done = finished_parts(place, wanted)
        lacks = {one.item: one for one in (*found, *done.values()) if isinstance(one, Lack)}
        parts: dict[Path, set[str]] = {}
        for key, where in done.items():
            if isinstance(where, Path):
                parts.setdefault(where, set()).add(key)
        self._parts[mode], self._lacks[mode] = parts, lacks

    def _task(self, requests: tuple[Request, ...], place: Path) -> Task:
        marks = tuple(self._mark(one) for one in requests)
        store, part = str(self._store.absolute()), str((place / f"{digest(marks)}.parquet").absolute())
        return Task(requests, marks, self.model, store, self._loaded.identity, part)

    def _mark(self, request: Request) -> str:
        """Return what an item's maps are made from: the model, the files, wherever the folder lies, and the times."""
        media = []
        for one in (*request.pictures, *request.sounds):
            stat = one.path.stat()
            name = str(one.path.relative_to(self._library.root))
            media.append([name, stat.st_size, stat.st_mtime_ns, one.second, one.in_clip])
        return digest([self._made_by, request.key, media, request.seconds, request.mix])

    def read(self, mode: Mode) -> Iterator[Maps]:
        """Yield the maps under the benchmark's class names."""
        single = self._run.protocol.kind != "multi"
        for part, keys in sorted(self._parts[mode].items()):
            for one in prediction_files.open_predictions(part, keys).read():
                said = self._classes.rename(one)
                self._own_agnostic = None in said.classes
                yield with_agnostic(said) if single else without_agnostic(said)

    def lacks(self, mode: Mode) -> dict[str, Lack]:
        """Return why items have no maps."""
        return self._lacks[mode]

    def facts(self) -> dict[str, Any]:
        """Return what scores.json says about it."""
        made = self._loaded
        media = {"folder": str(self._library.root), "files": dict(self._library.counts)}
        facts = {"model": self.model, "entries": list(made.entries), "side": made.side, "square": made.square}
        agnostic = "the model's own" if self._own_agnostic else "maximum of the class maps"
        facts |= {"heard_seconds": self._heard, "agnostic_map": agnostic}
        return facts | {"data": media, "classes": _classes_fact(self._run, self._classes)}


def predict_block(task: Task) -> int:
    """Localise a block, write its part, and return its number of items."""
    said = list(benchmark_maps.predict(task.requests, _loaded(task.model, task.store, task.identity)))
    write_part(Path(task.part), {one.key: mark for one, mark in zip(task.requests, task.marks, strict=True)}, said)
    return len(task.requests)


@lru_cache(maxsize=1)
def _loaded(model: str, store: str, identity: str) -> localizers.Model:
    return localizers.load(model, Path(store))


def _classes_fact(run: _Run, classes: Classes) -> dict[str, Any]:
    sounding = {one.category for reading in run.readings.values() for item in reading for one in item.sources}
    unknown = [name for name in classes.unknown if name in sounding]
    return {"matched": dict(classes.known), "unknown_to_the_system": unknown, "unused": list(classes.unused)}
