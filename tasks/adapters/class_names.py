"""From the classes of a system to those of a benchmark, by name: "Acoustic_Guitar" is "acoustic guitar"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dsol_core.protocols import Item, Maps, Protocol
from dsol_core.types import UsageError


@dataclass(frozen=True)
class Classes:
    """Which of a system's classes stands for which of a benchmark's.

    Attributes:
        known: system's class -> benchmark's class.
        unknown: the benchmark's classes that the system does not know, sorted.
        unused: the system's classes that the benchmark does not have, sorted; they keep their names.
    """

    known: Mapping[str, str]
    unknown: tuple[str, ...]
    unused: tuple[str, ...]

    def rename(self, said: Maps) -> Maps:
        """Return a prediction under the benchmark's names."""
        names = tuple(None if name is None else self.known.get(name, name) for name in said.classes)
        return Maps(said.key, said.maps, names, said.confidence)


def plain(name: str) -> str:
    """Return a name without what spelling it is free in: capitals, underscores, dashes, runs of spaces."""
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def benchmark_classes(protocol: Protocol, items: Iterable[Item]) -> tuple[str, ...]:
    """Return the classes of the items' sources and of the record, sorted; the record alone names what never sounds."""
    return tuple(sorted({one.category for item in items for one in item.sources if one.category} | {*protocol.classes}))


def match_classes(system: Iterable[str], benchmark: Iterable[str], given: Mapping[str, str]) -> Classes:
    """Match classes by name.

    Args:
        system: its classes. The second entry of a name, "cello 2", is of the first one's class.
        benchmark: its classes.
        given: system's class -> benchmark's, where names do not tell (`--map`).

    Raises:
        UsageError: `given` names a class that is not there.
    """
    entries, wanted = list(dict.fromkeys(system)), {plain(name): name for name in benchmark}
    spellings = {plain(name): name for name in entries}
    for name, target in given.items():
        if plain(name) not in spellings or plain(target) not in wanted:
            wrong, some = (target, sorted(wanted.values())) if plain(name) in spellings else (name, sorted(entries))
            raise UsageError(f"--map {name}={target}: {wrong!r} is unknown; expected one of {', '.join(some)}")
    spelt = {plain(name): plain(target) for name, target in given.items()}
    known = {}
    for name in entries:
        first = plain(re.sub(r" \d+$", "", name))
        for one in (plain(name), first if first in spellings else plain(name)):
            target = spelt.get(one, one)
            if name not in known and target in wanted:
                known[name] = wanted[target]
    unknown = sorted(set(wanted.values()) - set(known.values()))
    return Classes(known, tuple(unknown), tuple(sorted(set(entries) - set(known))))


def with_agnostic(said: Maps) -> Maps:
    """Add a class-agnostic map to maps of classes: their maximum; its confidence is left to the protocol."""
    if None in said.classes or not len(said.maps):
        return said
    maps = np.concatenate([said.maps, said.maps.max(0, keepdims=True)])
    return Maps(said.key, maps, (*said.classes, None), (*said.confidence, None))


def without_agnostic(said: Maps) -> Maps:
    """Leave the class-agnostic map out, where there are others."""
    kept = [place for place, name in enumerate(said.classes) if name is not None]
    if not kept or len(kept) == len(said.classes):
        return said
    classes, confidence = tuple(said.classes[place] for place in kept), tuple(said.confidence[place] for place in kept)
    return Maps(said.key, said.maps[kept], classes, confidence)
