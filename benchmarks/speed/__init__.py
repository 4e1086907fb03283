"""What `make bench` measures: one module a subject, each with `stages(size)`; `benchmarks/bench.py` runs them.

A module of this package is measured because it is here; nothing has to be entered anywhere. It defines

    def stages(size: Size) -> Iterator[Stage]:
        ...                                   # make the inputs, below size.folder
        yield Stage(title=..., unit=..., about=..., ways={...}, ratios=[...], values=[...])
        ...                                   # clean up

and runs in a process of its own, in which OMP_NUM_THREADS and its like are `size.threads`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# A way of doing the work once: returns how many units it did (the runner takes the wall time of the whole call), or
# (units, seconds) where only a part of the call counts.
Way = Callable[[], float | tuple[float, float]]


@dataclass(frozen=True)
class Size:
    """How large to measure.

    Attributes:
        quick: seconds instead of minutes; the numbers then say only that the code runs.
        threads: that every way may use, all of them the same.
        folder: empty, on disk, removed afterwards.
        seed: of every random input.
    """

    quick: bool
    threads: int
    folder: Path
    seed: int = 0

    def of(self, full: T, quick: T) -> T:
        """Return one of the two."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Ratio:
    """Speed of one way over the speed of another, and the bound that it has to keep.

    Attributes:
        name: of the row in the table, such as "decode and shard / bare ffmpeg"; unique.
        of: the way above the line.
        to: the way below it.
        target: bound of the ratio, or None: shown, not judged.
        at_most: whether the target is an upper bound.
    """

    name: str
    of: str
    to: str
    target: float | None
    at_most: bool = False


@dataclass(frozen=True)
class Value:
    """A number that is no speed, such as files on disk, a difference of losses or megabytes; taken after the timing.

    Attributes:
        name: of the row, with its unit.
        measure: returns it.
        target: bound of it, or None: shown, not judged.
        at_most: whether the target is an upper bound.
    """

    name: str
    measure: Callable[[], float]
    target: float | None
    at_most: bool = True


@dataclass(frozen=True)
class Stage:
    """One subject: the ways that are timed in turn, and what is made of their speeds.

    Attributes:
        title: heading of its section.
        unit: what a speed counts, such as "clips/s".
        about: what each way does, and what the work is; Markdown.
        ways: name -> way; "ours" first, then "limit" (the physical limit) and "plain" (of the literature) by custom.
        ratios: rows of the table.
        values: rows of the table.
        notes: called last; Markdown to add, such as a profile. Made of measured numbers only.
        repeats: times that every way runs; None: what the command line says.
        warm_up: untimed turns before.
    """

    title: str
    unit: str
    about: str
    ways: Mapping[str, Way]
    ratios: Sequence[Ratio] = ()
    values: Sequence[Value] = ()
    notes: Callable[[], str] | None = None
    repeats: int | None = None
    warm_up: int = 1
