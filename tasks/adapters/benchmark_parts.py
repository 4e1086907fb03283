"""Maps of a model in parts that survive a kill: a Parquet file a block of items, and beside it what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsol_core.protocols import Maps
from dsol_core.types import DataError
from tasks.adapters import tables
from tasks.adapters.benchmark_maps import Lack
from tasks.adapters.prediction_files import write_predictions
from tasks.adapters.store import write_json

HEAVY = 32 * 2**20  # bytes of maps in a block at most, but for a single item


def write_part(part: Path, made_from: Mapping[str, str], said: Iterable[Maps | Lack]) -> None:
    """Write a part; the Parquet file appears last, and a block is done once it is there.

    Args:
        part: *.parquet; a JSON file of the same name stands beside it.
        made_from: item -> what its maps are made from.
        said: what the model said about each item, or why it could not be read.
    """
    found = list(said)
    lacks = [asdict(one) for one in found if isinstance(one, Lack)]
    write_json(part.with_suffix(".json"), {"made_from": dict(made_from), "lacks": lacks})
    write_predictions(part, (one for one in found if isinstance(one, Maps)))


def finished_parts(place: Path, wanted: Mapping[str, str]) -> dict[str, Path | Lack]:
    """Return where the maps of items lie that were made before, or why they could not be; damaged parts are removed.

    Args:
        place: folder of the parts.
        wanted: item -> what its maps must have been made from.
    """
    found: dict[str, Path | Lack] = {}
    for part in sorted(place.glob("[0-9a-f]*.parquet")):
        try:
            beside = json.loads(part.with_suffix(".json").read_text())
            maps, lacks = {row["item"] for row in tables.read(part, ["item"])}, [Lack(**one) for one in beside["lacks"]]
        except (DataError, OSError, ValueError):
            part.unlink()
            continue
        same = {key for key, mark in beside["made_from"].items() if wanted.get(key) == mark} - set(found)
        found |= {key: part for key in maps & same} | {one.item: one for one in lacks if one.item in same}
    return found


def digest(value: Any) -> str:
    """Return a JSON value's sha256, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def chunks(items: Iterable[Any], size: int, weight: Callable[[Any], int] = lambda one: 0) -> Iterator[list[Any]]:
    """Cut into lists of at most `size` items, fewer where they are heavy."""
    some: list[Any] = []
    total = 0
    for one in items:
        some.append(one)
        total += weight(one)
        if len(some) >= size or total >= HEAVY:
            yield some
            some, total = [], 0
    if some:
        yield some


def bytes_of(said: Maps) -> int:
    """Return how heavy an item's maps are."""
    return int(said.maps.nbytes)
