"""What every benchmark module hands over: its record, its parser, and what a parser returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dsol_core.protocols import Item, Protocol, Switches


@dataclass(frozen=True)
class Reading:
    """What the annotation files say under given switches.

    Attributes:
        items: to score, in the order of the annotation.
        left_out: reason -> how many records (or boxes, where the reason says so) are not among the items.
        notes: what a reader of the score should know: a file that was missing and what stood in for it.
    """

    items: tuple[Item, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


Parse = Callable[[Path, Switches], Reading]


@dataclass(frozen=True)
class Benchmark:
    """A protocol and the parser of its annotation files; a module of this package lists its own in `BENCHMARKS`."""

    protocol: Protocol
    parse: Parse
