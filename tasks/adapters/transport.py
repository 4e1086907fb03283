"""Work for machines that share nothing with this one but the store: paths travel as names of objects.

A path below an object store's cache is pickled as its name in the store. On the other machine a published artifact, or
one file of it, is fetched to that machine's cache; a folder that is written to becomes a desk, an empty folder whose
new files are handed over through the store when the task ends. Files of the user's travel by copies in the store. Where
both machines see one cache folder, paths stay what they are and nothing is copied.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from dsol_core.types import UsageError
from tasks.adapters.object_store import ObjectStore, mounted, open_store
from tasks.adapters.store import RECORD, StoreError

SMALL = 64 * 1024  # bytes up to which the files of a written folder come along: records of what is done
_PUBLISHED = re.compile(r"[a-z_]+/[0-9a-f]{16}(/.*)?")


class Away(NamedTuple):
    """What a path is on the way.

    Attributes:
        kind: "published", "folder", "file", "absent" (below what is being written), or "outside".
        store: its address.
        token: of the sender's cache; who has the same one sees the same files.
        name: below the store; of "outside", in the store.
        here: the sender's path.
        text: it is a str, not a Path.
        content: of "published", the digest of the artifact's content as the sender knows it.
    """

    kind: str
    store: str
    token: str
    name: str
    here: str
    text: bool
    content: str = ""


outside: list[str] = []  # folders of the user's whose files may travel, also where their paths are plain text


def active() -> bool:
    """Tell whether this process works on a store of objects."""
    return bool(mounted)


def store_of(folder: Path) -> ObjectStore | None:
    """Return the object store whose cache a folder lies in."""
    return next((one for one in mounted if folder.is_relative_to(one.root)), None)


def pack(value: Any) -> bytes:
    """Pickle a value for another machine, after what its paths need is in the store."""
    buffer = io.BytesIO()
    _Packer(buffer).dump(value)
    return buffer.getvalue()


class _Packer(pickle.Pickler):
    def persistent_id(self, value: Any) -> bytes | None:
        away = _away(value) if isinstance(value, str | PurePath) else None
        return json.dumps(away).encode() if away else None  # bytes, because this method is asked about the answer too


def _away(value: str | PurePath) -> Away | None:
    text = str(value)
    for store in mounted:
        if text.startswith(f"{store.root}/"):
            return _lent(store, text, isinstance(value, str))
    if mounted and _travels(value, text):
        store = mounted[-1]
        name = store.lend_outside(Path(text))
        return Away("outside", store.name, store.token, name, text, isinstance(value, str))
    return None


def _travels(value: str | PurePath, text: str) -> bool:
    known = (isinstance(value, PurePath) and value.is_absolute()) or any(text.startswith(f"{one}/") for one in outside)
    return known and Path(text).is_file()


def _lent(store: ObjectStore, text: str, is_text: bool) -> Away:
    path, name = Path(text), text[len(str(store.root)) + 1 :]
    kind = "published" if _PUBLISHED.fullmatch(name) else "folder" if path.is_dir() else "file"
    if kind != "published" and not path.exists():
        kind = "absent"
    if kind == "folder" and name not in store.lent:
        _lend_folder(store, name, path)
    elif kind == "file" and name not in store.lent:
        store.lent.add(name)
        store.objects.upload(store.shared(name), path)
    content = ""
    if kind == "published":
        record = store.root.joinpath(*name.split("/")[:2], RECORD)
        content = _content(record, record.stat().st_mtime_ns) if record.exists() else ""
    return Away(kind, store.name, store.token, name, text, is_text, content)


@lru_cache(maxsize=64)
def _content(record: Path, _changed_ns: int) -> str:
    """Return the digest that a record names; one of thousands of files is read once, not for each of them."""
    return str(json.loads(record.read_text()).get("content", ""))


def _lend_folder(store: ObjectStore, name: str, path: Path) -> None:
    """Bring here what tasks handed over to an earlier process that was killed, and lend the small files."""
    store.lent.add(name)
    base = store.shared(name)
    there = store.objects.sizes(base)
    for one in there:
        if not (path / one.removeprefix(f"{base}/")).exists():
            _download(store, one, path / one.removeprefix(f"{base}/"))
    for file in path.rglob("*"):
        one = f"{base}/{file.relative_to(path).as_posix()}"
        if file.is_file() and file.stat().st_size <= SMALL and not file.name.startswith(".") and one not in there:
            store.objects.upload(one, file)


class Desk:
    """The files of one task on the machine that it runs on."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[ObjectStore, Path]] = {}  # the object name of a folder -> desk folder
        self._own = f".desks/{os.getpid()}-{id(self):x}"
        self._came: dict[Path, tuple[int, int]] = {}

    def unpack(self, packed: bytes) -> Any:
        """Return the value with its paths on this machine."""
        unpickler = _Unpacker(io.BytesIO(packed))
        unpickler.desk = self
        return unpickler.load()

    def place(self, away: Away) -> str | Path:
        """Return where a path is on this machine, its files brought here."""
        path = self._place(away)
        return str(path) if away.text else path

    def _place(self, away: Away) -> Path:
        store = open_store(away.store)
        if not isinstance(store, ObjectStore):
            raise UsageError(f"{away.store!r} is no object store; expected s3://bucket/prefix")
        if store.token == away.token:
            return Path(away.here)
        if away.kind == "published":
            return store.fetch_path(away.name, away.content)
        if away.kind == "outside":
            path = store.root / away.name
            if not path.exists():
                _download(store, away.name, path)
            return path
        shared = f"shared/{away.token}/{away.name}"  # the sender's
        if away.kind == "file":
            path, name = store.root / shared, shared
            size = store.objects.sizes(name).get(name)
            if not path.exists() or path.stat().st_size != size:
                _download(store, name, path)
            return path
        if away.kind == "absent":
            folder, _, last = shared.rpartition("/")
            return self._desk(store, folder) / last
        return self._desk(store, shared)

    def _desk(self, store: ObjectStore, name: str) -> Path:
        """Return an empty folder of this task for a folder that is written to, with the small files it has already."""
        if name not in self._written:
            folder = store.root / self._own / name
            folder.mkdir(parents=True, exist_ok=True)
            self._written[name] = store, folder
            for one, size in store.objects.sizes(name).items():
                if size <= SMALL:
                    path = folder / one.removeprefix(f"{name}/")
                    _download(store, one, path)
                    self._came[path] = _stamp(path)
        return self._written[name][1]

    def deliver(self) -> list[tuple[str, str]]:
        """Put what was written into the store and return (store, name) of each file."""
        sent = []
        for name, (store, folder) in self._written.items():
            files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
            for path in sorted(files, key=_stamp, reverse=True):  # small files last: they are the records of the others
                if self._came.get(path) != _stamp(path):
                    one = f"{name}/{path.relative_to(folder).as_posix()}"
                    store.objects.upload(one, path)
                    sent.append((store.name, one))
        return sent

    def clear(self) -> None:
        """Remove what was written; it is in the store."""
        for store, _ in self._written.values():
            shutil.rmtree(store.root / self._own, ignore_errors=True)


class _Unpacker(pickle.Unpickler):
    desk: Desk

    def persistent_load(self, away: Any) -> str | Path:
        return self.desk.place(Away(*json.loads(away)))


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def call(function: Callable[[Any], Any], packed: bytes) -> tuple[Any, list[tuple[str, str]]]:
    """Call a function where its task runs, and return its result with the names of the files that it wrote."""
    desk = Desk()
    try:
        return function(desk.unpack(packed)), desk.deliver()
    finally:
        desk.clear()


def receive(answer: tuple[Any, list[tuple[str, str]]]) -> Any:
    """Bring the files that a task wrote to where it was told to write them, and return its result."""
    result, written = answer
    for address, name in written:
        store = open_store(address)
        if isinstance(store, ObjectStore):
            here = name.removeprefix(store.shared(""))
            _download(store, name, store.root / here)
            store.lent.add(here)
    return result


def _download(store: ObjectStore, name: str, path: Path) -> None:
    if not store.objects.download(name, path):
        raise StoreError(
            f"{name} is gone from {store.name.partition('?')[0]}; another run may have removed it: start this one again"
        )
