"""The published benchmarks of sound source localisation: a record and a parser each.

A module here that defines `BENCHMARKS`, a tuple of `reading.Benchmark(protocol, parse)`, is found by itself: a new
benchmark is one new file. The parser gets the folder of the annotation files and the switches, and applies those that
concern the annotations: `partner_boxes`, `same_class_negatives`, `class_10`, `frames`, `audio`, `flickr_list`,
`count`. All others (box format, clipping, mask rule, ...) are the scorer's; a box stays as the file has it.

How media are named: `Picture.name` and `Sound.name` are the annotation's name of a clip or video, `Item.key` is the
annotation's own key. Benchmarks of prepared frames keep them under the key (`frames/<key>.jpg`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from pathlib import Path

from dsol_core.protocols import MODES, Mode, Protocol, Switches
from dsol_core.types import DataError, UsageError
from tasks.adapters.benchmarks.reading import Benchmark, Reading

__all__ = ["Reading", "all_protocols", "find", "read_items"]


def all_protocols() -> tuple[Protocol, ...]:
    """Return the records of all benchmarks, in the order of the leaderboard's rows."""
    return tuple(one.protocol for one in _benchmarks().values())


def find(name: str) -> Protocol:
    """Return the record of a benchmark by its name.

    Raises:
        UsageError: there is none; names the ones there are.
    """
    return _benchmark(name).protocol


def read_items(protocol: Protocol | str, annotations: Path, how: Mode | Switches = "correct") -> Reading:
    """Return the items of a benchmark.

    Args:
        protocol: its record or name.
        annotations: folder that holds the annotation files, at any depth.
        how: a mode of the record, or switches of one's own.

    Raises:
        DataError: a file is missing, malformed or contradicts itself.
        UsageError: no such benchmark or mode.
    """
    benchmark = _benchmark(protocol if isinstance(protocol, str) else protocol.name)
    record = benchmark.protocol if isinstance(protocol, str) else protocol
    if isinstance(how, str) and how not in MODES:
        raise UsageError(f"mode {how!r} is unknown; expected one of {', '.join(MODES)}")
    reading = benchmark.parse(annotations, how if isinstance(how, Switches) else record.switches(how))
    keys = {item.key for item in reading.items}
    if len(keys) != len(reading.items):
        raise DataError(f"{annotations}: {len(reading.items) - len(keys)} items of {record.name} share their key")
    return reading


def _benchmark(name: str) -> Benchmark:
    known = _benchmarks()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"benchmark {name!r} is unknown; expected one of {', '.join(known)}{hint}")
    return known[name]


@functools.cache
def _benchmarks() -> dict[str, Benchmark]:
    found: list[Benchmark] = []
    for module in pkgutil.iter_modules(__path__):
        found += getattr(importlib.import_module(f"{__name__}.{module.name}"), "BENCHMARKS", ())
    found.sort(key=lambda one: (one.protocol.row, one.protocol.name))
    return {one.protocol.name: one for one in found}
