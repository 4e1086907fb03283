"""Parquet files of maps, ours or another system's: written a part at a time, checked, read one item at a time.

A row is a map: `item` (the annotation's own key), `class` (null for a class-agnostic map), `height`, `width`, `map`
(row-major, in the network's own grid), `confidence` (or null). An item's rows stand one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dsol_core.protocols import Maps
from dsol_core.types import DataError
from tasks.adapters import tables

_COLUMNS = {
    "item": ("string", "large_string"),
    "class": ("string", "large_string", "null"),
    "height": ("int", "uint"),
    "width": ("int", "uint"),
    "map": ("list", "large_list", "fixed_size_list"),
    "confidence": ("float", "double", "halffloat", "null"),
}
_LARGEST = 4096  # cells a side


@dataclass
class PredictionFile:
    """A checked file of maps.

    Attributes:
        path: of the file.
        keys: of the items that it has maps of and that were asked for, in the file's order.
        unknown: items that the benchmark does not have -> their rows.
        classes: that its maps name.
        rows: of the whole file.
    """

    path: Path
    keys: list[str] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    rows: int = 0

    def read(self) -> Iterator[Maps]:
        """Yield the maps of the known items, one item after the other; one item's are in memory.

        Raises:
            DataError: a map does not have height x width numbers, or one of them is not finite.
        """
        names = ["item", "class", "height", "width", "confidence"]
        known = set(self.keys)
        numbered = enumerate(tables.read_numbers(self.path, "map", names))
        for key, rows in groupby(numbered, key=lambda one: one[1]["item"]):
            if key in known:
                yield self._maps(key, list(rows))

    def _maps(self, key: str, rows: list[tuple[int, dict[str, Any]]]) -> Maps:
        maps = np.stack([self._map(number, row) for number, row in rows])
        classes = tuple(row["class"] for _, row in rows)
        return Maps(key, maps, classes, tuple(row["confidence"] for _, row in rows))

    def _map(self, number: int, row: dict[str, Any]) -> Any:
        height, width, numbers = row["height"], row["width"], row["map"]
        where = f"{self.path}, row {number} (item {row['item']!r}, class {row['class']!r})"
        if len(numbers) != height * width:
            raise DataError(
                f"{where}: map has {len(numbers)} numbers; expected height x width = {height} x {width} = "
                f"{height * width}, row by row"
            )
        if not np.isfinite(numbers).all():
            place = int(np.argmax(~np.isfinite(numbers)))
            raise DataError(
                f"{where}: number {place} of the map is {numbers[place]}; expected finite numbers; leave a map out "
                "that could not be made: its item is then counted as missing"
            )
        return numbers.reshape(height, width)


def open_predictions(path: Path, known: Collection[str]) -> PredictionFile:
    """Check a file of maps, all but the maps themselves.

    Args:
        path: of the file.
        known: keys of the benchmark's items.

    Raises:
        DataError: no such file, a missing column, a null or senseless value, an (item, class) that stands twice, rows
            of one item apart from each other or of different sizes.
    """
    _check_columns(path)
    found, wanted = PredictionFile(path), set(known)
    seen: set[str] = set()
    numbered = enumerate(tables.read(path, ["item", "class", "height", "width", "confidence"]))
    for key, rows in groupby(numbered, key=lambda one: one[1]["item"]):
        group = list(rows)
        found.rows += len(group)
        _check_item(path, key, group, seen)
        seen.add(key)
        if key in wanted:
            found.keys.append(key)
            found.classes |= {row["class"] for _, row in group if row["class"] is not None}
        else:
            found.unknown[key] = len(group)
    return found


def write_predictions(path: Path, items: Iterable[Maps]) -> int:
    """Write maps as such a file and return its number of rows; the file appears whole or not at all."""
    rows = (
        {
            "item": one.key,
            "class": name,
            "height": values.shape[0],
            "width": values.shape[1],
            "map": np.ascontiguousarray(values, np.float32).ravel(),
            "confidence": confidence,
        }
        for one in items
        for values, name, confidence in zip(one.maps, one.classes, one.confidence, strict=True)
    )
    temporary = path.with_name(f".{path.name}.new")
    written = tables.write(temporary, "maps", rows, group=256)
    temporary.replace(path)
    return written


def _check_columns(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"there is no file {path}; give --predictions a Parquet file of maps")
    found = tables.columns(path)
    for name, kinds in _COLUMNS.items():
        if not found.get(name, "").startswith(kinds):
            raise DataError(
                f"{path}: column {name!r} is {found.get(name, 'missing')}; expected columns item and class (string), "
                "height and width (int), map (list<float32>), confidence (float)"
            )


def _check_item(path: Path, key: Any, rows: list[tuple[int, dict[str, Any]]], seen: set[str]) -> None:
    first = rows[0]
    if not key:
        raise DataError(f"{path}, row {first[0]}: item is {key!r}; expected the key of a benchmark item")
    classes: set[str | None] = set()
    for number, row in rows:
        where = f"{path}, row {number} (item {key!r}, class {row['class']!r})"
        if row["class"] in classes:
            raise DataError(f"{where}: this item and class stand twice; expected one map each; leave one of them out")
        classes.add(row["class"])
        sizes = row["height"], row["width"]
        if not all(isinstance(size, int) and 0 < size <= _LARGEST for size in sizes):
            raise DataError(f"{where}: height and width are {sizes}; expected 1 to {_LARGEST}")
        if sizes != (first[1]["height"], first[1]["width"]):
            raise DataError(
                f"{where}: the map is {sizes[0]} x {sizes[1]}, the item's first one "
                f"{first[1]['height']} x {first[1]['width']}; expected one size an item"
            )
        if row["confidence"] is not None and not np.isfinite(row["confidence"]):
            raise DataError(f"{where}: confidence is {row['confidence']}; expected a finite number or null")
    if key in seen:
        raise DataError(
            f"{path}, row {first[0]}: item {key!r} has rows further up too; expected them together: sort it"
        )
