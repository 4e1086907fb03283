"""Finding and reading annotation files: JSON, CSV and lists, plain or gzipped, with complaints that name the place."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from dsol_core.types import DataError


def locate(annotations: Path, name: str) -> Path:
    """Return the file of that name below a folder, at any depth, plain or with ".gz" added.

    Args:
        annotations: a folder that contains the file, or the file itself.
        name: of the file; folders before it are a hint for the reader and not asked for.

    Raises:
        DataError: there is none, or several that differ.
    """
    found = candidates(annotations, (PurePosixPath(name).name,))
    if not found:
        raise DataError(
            f"{annotations} holds no {PurePosixPath(name).name} (or {PurePosixPath(name).name}.gz) at any depth; "
            "give the folder with the annotations; docs/benchmarks.md says where to obtain it"
        )
    first, *others = found
    for other in others:
        if read_bytes(other) != read_bytes(first):
            raise DataError(
                f"{first} and {other} have one name and differ; expected one version; give the folder of the one you "
                "mean, or remove the other"
            )
    return first


def candidates(annotations: Path, names: Iterable[str]) -> list[Path]:
    """Return the files below a folder (or the file itself) that bear one of the names, with or without ".gz"."""
    if not annotations.exists():
        raise DataError(f"{annotations} does not exist; expected a folder with annotation files")
    wanted = set(names) | {f"{name}.gz" for name in names}
    if annotations.is_file():
        return [annotations] if annotations.name in wanted else []
    return sorted(path for path in annotations.rglob("*") if path.name in wanted and path.is_file())


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes, decompressed where it ends in ".gz"."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error


def read_text(path: Path) -> str:
    """Return a text file's content; a byte order mark is taken off."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error}); download it again") from error


def read_json(path: Path, kind: type[dict] | type[list]) -> Any:
    """Return a JSON file's value; a key that an object holds twice is refused.

    Raises:
        DataError: not JSON, a repeated key, or another kind of value.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, one in pairs:
            if key in value:
                raise DataError(f"{path}: key {key!r} stands twice in one object; expected unique keys; remove one")
            value[key] = one
        return value

    try:
        value = json.loads(read_text(path), object_pairs_hook=unique)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list"}
        raise DataError(f"{path} holds {type(value).__name__} {str(value)[:40]!r}; expected {names[kind]}")
    return value


def read_rows(path: Path, *forms: str) -> list[tuple[str, ...]]:
    """Return the rows of a CSV file without header; blank lines are no rows.

    Args:
        path: of the file.
        forms: what a line may look like, "<id>,<class>": the commas are counted.

    Raises:
        DataError: a row has another number of values, or an empty one.
    """
    rows = [tuple(value.strip() for value in row) for row in csv.reader(read_text(path).splitlines()) if any(row)]
    lengths = {form.count(",") + 1 for form in forms}
    for number, row in enumerate(rows, start=1):
        if len(row) not in lengths or not row[0] or not all(row[: min(lengths)]):
            raise DataError(
                f"{path}, row {number}: {','.join(row)!r}; expected {' or '.join(forms)}; download it again or "
                "mend the row"
            )
    return rows


def refuse_duplicates(path: Path, keys: Iterable[str]) -> None:
    """Complain about the first key that stands twice.

    Raises:
        DataError: naming it.
    """
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise DataError(f"{path}: {key!r} stands twice; expected every key once; remove one of the two records")
        seen.add(key)
