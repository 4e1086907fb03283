"""Scoring of benchmark items block by block, the trivial predictors beside the system, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dsol_core import protocol_estimates, protocol_scores, trivial
from dsol_core.protocol_scores import Scores
from dsol_core.protocols import Item, Maps, Mode, Protocol
from dsol_core.types import DataError, Estimate
from tasks.adapters import tables
from tasks.adapters.benchmark_maps import Lack
from tasks.adapters.benchmarks import Reading

SYSTEM, CEILING = "system", "ceiling"
NO_PREDICTION, UNKNOWN = "no prediction", "not in the benchmark"


@dataclass(frozen=True)
class Block:
    """Items and what a system says about them, to be scored in a task of its own."""

    protocol: Protocol
    mode: Mode
    items: tuple[Item, ...]
    said: tuple[Maps, ...]


@dataclass(frozen=True)
class Result:
    """What a benchmark says about a system in one mode.

    Attributes:
        mode: of the protocol.
        items: of the benchmark.
        scored: of them.
        metrics: of the system.
        beside: predictor that neither looks nor listens, or "ceiling" -> its metrics on the same items.
        missing: cause -> items.
        counts: what was special about scored items.
        left_out: reason -> records that the protocol leaves out.
        notes: of the annotations.
    """

    mode: Mode
    items: int
    scored: int
    metrics: dict[str, Estimate]
    beside: dict[str, dict[str, Estimate]]
    missing: dict[str, int]
    counts: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        """Share of the items that were scored."""
        return self.scored / self.items

    @property
    def partial(self) -> bool:
        """Whether an item is missing."""
        return self.scored < self.items

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON value."""
        whole = {"coverage": self.coverage, "partial": self.partial}
        return {**asdict(self), **whole, "notes": list(self.notes)}


def score_block(block: Block) -> dict[str, Scores]:
    """Score the system and the predictors beside it on the same items."""
    protocol, switches = block.protocol, block.protocol.switches(block.mode)
    found = {SYSTEM: _scored(block, {one.key: one for one in block.said})}
    for name, say in trivial.PREDICTORS.items():
        found[name] = _scored(block, Lazy(block.items, partial(_said, say, protocol)))
    ceiling = partial(trivial.ceiling, protocol=protocol, switches=switches)
    found[CEILING] = _scored(block, Lazy(block.items, ceiling))
    return found


def _said(say: Callable[[Item, Protocol], Maps], protocol: Protocol, item: Item) -> Maps:
    return say(item, protocol)


def _scored(block: Block, said: Mapping[str, Maps]) -> Scores:
    return protocol_scores.score_items(block.items, said, block.protocol, block.protocol.switches(block.mode))


class Lazy(Mapping[str, Maps]):
    """Predictions that are made when they are asked for: they are large."""

    def __init__(self, items: Iterable[Item], say: Callable[[Item], Maps]) -> None:
        self._items, self._say = {item.key: item for item in items}, say

    def __getitem__(self, key: str) -> Maps:
        return self._say(self._items[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def result(
    protocol: Protocol,
    mode: Mode,
    reading: Reading,
    scored: Iterable[dict[str, Scores]],
    lacks: Mapping[str, Lack],
    *,
    resamples: int,
) -> tuple[Result, list[Lack]]:
    """Put the blocks of a mode together.

    Args:
        protocol: the record.
        mode: of it.
        reading: its items.
        scored: of the blocks.
        lacks: item -> why it has no maps, where that is known.
        resamples: of the bootstrap.

    Returns:
        The result, and the items without a score.

    Raises:
        DataError: no item was scored.
    """
    blocks = list(scored)
    keys = {key for block in blocks for key in block[SYSTEM].keys}
    missing = [
        lacks.get(item.key) or Lack(item.key, item.pictures[0].name, NO_PREDICTION)
        for item in reading.items
        if item.key not in keys
    ]
    causes = Counter(one.cause for one in missing)
    if not keys:
        counted = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        raise DataError(
            f"none of the {len(reading.items)} items of {protocol.name} can be scored ({counted}); expected media or "
            "maps of at least one; check --data or --predictions"
        )
    order = {item.key: place for place, item in enumerate(reading.items)}
    merged = {name: _ordered(protocol_scores.merge([one[name] for one in blocks]), order) for name in blocks[0]}
    switches = protocol.switches(mode)
    metrics = {
        name: protocol_estimates.estimates(one, protocol, switches, resamples=resamples) for name, one in merged.items()
    }
    counts = {name: count for name, count in merged[SYSTEM].counts.items() if count}
    made = Result(
        mode,
        len(reading.items),
        len(keys),
        metrics.pop(SYSTEM),
        metrics,
        dict(causes.most_common()),
        counts,
        dict(reading.left_out),
        reading.notes,
    )
    return made, missing


def _ordered(scores: Scores, order: Mapping[str, int]) -> Scores:
    """Put items into the annotation's order, on which the bootstrap's draws depend."""
    places = sorted(range(len(scores.keys)), key=lambda place: order[scores.keys[place]])
    values = {name: column[places] for name, column in scores.values.items()}
    keys, groups = tuple(scores.keys[place] for place in places), tuple(scores.groups[place] for place in places)
    return Scores(keys, groups, values, scores.missing, scores.counts)


def write_missing(path: Path, lacks: Iterable[Lack]) -> int:
    """Write the items without a score, each once."""
    rows = {one.item: {"item": one.item, "medium": one.medium, "cause": one.cause} for one in lacks}
    return tables.write(path, "missing", rows.values())
