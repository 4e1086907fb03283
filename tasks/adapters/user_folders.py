"""Folders of the user's own, read as if they were an artifact."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from dsol_core.types import UsageError
from tasks.adapters import transport
from tasks.adapters.fingerprints import digest, sha256
from tasks.adapters.store import Artifact, StoreError, write_json


@dataclass(frozen=True)
class External(Artifact):
    """The user's folders as an artifact; `roots` maps the start of a path to a folder."""

    roots: Mapping[str, Path] = field(default_factory=dict, compare=False)
    odd: Mapping[str, Path] = field(default_factory=dict, compare=False)  # names that are not UTF-8, escaped -> path

    def file(self, name: str) -> Path:
        """Return the path of a file below one of the roots.

        Raises:
            StoreError: there is no such file.
        """
        if name in self.odd:
            return self.odd[name]
        for prefix, root in self.roots.items():
            inside = name[len(prefix) + 1 :] if prefix and name.startswith(prefix + "/") else None if prefix else name
            if inside is not None and (root / inside).exists():
                return root / inside
        places = ", ".join(str(root) for root in self.roots.values())
        raise StoreError(f"{name!r} is not below {places}; give the right folder with --data, --solo or --multi")

    def files(self) -> list[str]:
        """Return the relative paths of all files below the roots, sorted; hidden ones left out."""
        return sorted(name for name, _ in _walk(self.roots, leave_out=Path(self.record["store"])))


def check_folders(roots: Mapping[str, Path]) -> None:
    """Look at the user's folders without reading them.

    Raises:
        UsageError: one does not exist, or lies inside another.
    """
    for prefix, root in roots.items():
        if not root.is_dir():
            raise UsageError(f"{root} (--{prefix or 'data'}) is not a folder; expected a folder with video files")
    for (one, inner), (other, outer) in permutations(roots.items(), 2):
        if inner.resolve().is_relative_to(outer.resolve()):
            raise UsageError(
                f"--{one} {inner} and --{other} {outer} lie one in the other, so that videos of several sources would "
                "count as videos of one; give two folders that share nothing"
            )


def external(store: Path, roots: Mapping[str, Path]) -> External:
    """Describe the user's folders by their content, so that moving them reruns nothing and editing them does.

    Args:
        store: the store, which remembers checksums by path, size and time of change.
        roots: prefix -> folder; "" for one folder that holds everything.

    Raises:
        UsageError: see `check_folders`; or they are empty.
    """
    check_folders(roots)
    roots = {prefix: root.absolute() for prefix, root in roots.items()}
    sums = _Checksums(store / "checksums.json")
    found = list(_walk(roots, leave_out=store))
    with ThreadPoolExecutor() as pool:
        listing = list(zip([name for name, _ in found], pool.map(sums.of, [path for _, path in found]), strict=True))
    sums.save()
    if not listing:
        raise UsageError(f"no files below {', '.join(map(str, roots.values()))}; expected videos there")
    content = digest(sorted(listing))
    transport.outside += [str(root) for root in roots.values() if str(root) not in transport.outside]
    odd = {name: path for name, path in found if name != _inside(roots, path)}
    record = {"content": content, "store": str(store)}
    return External("external", next(iter(roots.values())), content, record=record, roots=roots, odd=odd)


def _inside(roots: Mapping[str, Path], path: Path) -> str:
    prefix, root = next((prefix, root) for prefix, root in roots.items() if path.is_relative_to(root))
    inside = path.relative_to(root).as_posix()
    return f"{prefix}/{inside}" if prefix else inside


def _walk(roots: Mapping[str, Path], leave_out: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below the folders; a store that lies among them is none of the user's data."""
    leave_out = leave_out.resolve()
    for prefix, root in roots.items():
        for folder, names, files in walk(root):
            names[:] = sorted(n for n in names if not _hidden(n) and Path(folder, n).resolve() != leave_out)
            for name in sorted(files):
                if not _hidden(name):
                    path = Path(folder) / name
                    inside = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
                    yield (f"{prefix}/{inside}" if prefix else inside), path


def _hidden(name: str) -> bool:
    """Tell whether a name is that of a hidden file: a dot, but no ellipsis, as titles have ("...Baby.mp4")."""
    return name.startswith(".") and not name.startswith("..")


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder as `os.walk` does, links followed, but none into a folder that it lies in.

    Raises:
        UsageError: a folder cannot be read; what is in it would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"the folder {error.filename} cannot be read ({error.strerror}); make it readable, or move it elsewhere"
        ) from error

    above: dict[str, frozenset[tuple[int, int]]] = {}
    for folder, names, files in os.walk(root, followlinks=True, onerror=refuse):
        stat = os.stat(folder)
        here, before = (stat.st_dev, stat.st_ino), above.pop(folder, frozenset())
        if here in before:
            names.clear()
            continue
        above |= {os.path.join(folder, name): before | {here} for name in names}
        yield folder, names, files


class _Checksums:
    """sha256 of outside files, remembered by size and time of change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.known: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):  # no memory yet, or a damaged one: every file is hashed again
            self.known = {}
        self.used: dict[str, Any] = {}

    def of(self, path: Path) -> str:
        try:
            return self._of(path)
        except OSError as error:  # a dangling link, no permission: the step that reads it says so in its table
            return f"unreadable: {error.strerror}"

    def _of(self, path: Path) -> str:
        stat = path.stat()
        key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        known = self.known.get(key)
        checksum = known[2] if known and known[:2] == stamp else sha256(path)
        self.used[key] = [*stamp, checksum]
        return str(checksum)

    def save(self) -> None:
        merged = {**self.known, **self.used}
        if merged != self.known:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, merged)
