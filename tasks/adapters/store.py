"""Artifacts on disk: fingerprints, atomic publication, provenance. Owner of the files of a run.

A store is a folder:

    <step>/<fingerprint>/artifact.json + files      published artifacts, read-only from then on
    <step>/.work-<fingerprint>/                     what survives a kill: checkpoints, finished pieces
    <step>/.new-<fingerprint>-<pid>/                being written; never read by anyone else
    runs/<time>.json                                what each run did
    checksums.json                                  sha256 by (path, size, mtime) of outside files

A fingerprint hashes the step's name, its configuration and seed, the fingerprint and content of each parent, and the
code of the step (docs/decisions/0002-fingerprints.md). A folder is renamed into place as the last act, so that a kill
at any moment leaves nothing that a later run would trust.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dsol_core.types import DsolError, UsageError

logger = logging.getLogger(__name__)

RECORD = "artifact.json"
_ROOT = Path(__file__).resolve().parents[2]
# Modules that move bytes without shaping them, or whose values are hashed as configuration: an edit reruns nothing.
_NEUTRAL = {
    "dsol_core",
    "dsol_core.config",
    "tasks",
    "tasks.adapters",
    "tasks.adapters.store",
    "tasks.adapters.steps",
    "tasks.adapters.tracking",
}


class StoreError(DsolError):
    """An artifact that is missing, damaged or in use."""


@dataclass(frozen=True)
class Artifact:
    """A published folder of one step.

    Attributes:
        step: name of the step that made it.
        folder: where its files lie.
        fingerprint: what it was made from, 16 hexadecimal digits.
        state: "ran", "reused" or "skipped" (outside the scope of this run; it then has no files).
        record: the content of artifact.json.
    """

    step: str
    folder: Path
    fingerprint: str
    state: str = "reused"
    record: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def file(self, name: str) -> Path:
        """Return the path of one of its files.

        Raises:
            StoreError: it has no such file.
        """
        path = self.folder / name
        if not path.exists():
            raise StoreError(
                f"{self.step} {self.fingerprint} has no file {name!r} in {self.folder}; run --force {self.step}"
            )
        return path

    def files(self) -> list[str]:
        """Return the relative paths of its files, sorted."""
        found = (p for p in self.folder.rglob("*") if p.is_file() and p.name != RECORD)
        return sorted(p.relative_to(self.folder).as_posix() for p in found)

    @property
    def content(self) -> str:
        """A digest of the content of its files."""
        return str(self.record.get("content", self.fingerprint))


@dataclass(frozen=True)
class External(Artifact):
    """Folders of the user's own, read as if they were an artifact; `roots` maps the start of a path to a folder."""

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


def external(store: Path, roots: Mapping[str, Path]) -> External:
    """Describe the user's folders by their content, so that moving them reruns nothing and editing them does.

    Args:
        store: the store, which remembers checksums by path, size and time of change.
        roots: prefix -> folder; "" for one folder that holds everything.

    Raises:
        UsageError: a folder does not exist or is empty.
    """
    roots = {prefix: root.absolute() for prefix, root in roots.items()}
    for prefix, root in roots.items():
        if not root.is_dir():
            raise UsageError(f"{root} (--{prefix or 'data'}) is not a folder; expected a folder with video files")
    sums = _Checksums(store / "checksums.json")
    found = list(_walk(roots, leave_out=store))
    listing = [(name, sums.of(path)) for name, path in found]
    sums.save()
    if not listing:
        raise UsageError(f"no files below {', '.join(map(str, roots.values()))}; expected videos there")
    digest = _digest(sorted(listing))
    odd = {name: path for name, path in found if name != _inside(roots, path)}
    record = {"content": digest, "store": str(store)}
    return External("external", next(iter(roots.values())), digest, record=record, roots=roots, odd=odd)


def _inside(roots: Mapping[str, Path], path: Path) -> str:
    prefix, root = next((prefix, root) for prefix, root in roots.items() if path.is_relative_to(root))
    inside = path.relative_to(root).as_posix()
    return f"{prefix}/{inside}" if prefix else inside


def _walk(roots: Mapping[str, Path], leave_out: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below the folders; a store that lies among them is none of the user's data."""
    for prefix, root in roots.items():
        for folder, names, files in os.walk(root, followlinks=True):
            names[:] = sorted(n for n in names if not n.startswith(".") and Path(folder, n).absolute() != leave_out)
            for name in sorted(files):
                if not name.startswith("."):
                    path = Path(folder) / name
                    inside = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
                    yield (f"{prefix}/{inside}" if prefix else inside), path


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
        digest = known[2] if known and known[:2] == stamp else sha256(path)
        self.used[key] = [*stamp, digest]
        return str(digest)

    def save(self) -> None:
        merged = {**self.known, **self.used}
        if merged != self.known:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, merged)


def sha256(path: Path) -> str:
    """Return a file's sha256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True, default=str)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def plain(value: Any) -> Any:
    """Turn dataclasses, tuples and paths into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_digest(module: str) -> str:
    """Hash a module and the core and adapter modules that it imports, transitively; comments and docstrings excepted.

    Imports inside functions count, since steps import lazily. Modules in `_NEUTRAL` do not: they move results without
    shaping them.
    """
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _module_file(name)
        if name in seen or path is None:
            continue
        tree = ast.parse(path.read_text())
        seen[name] = hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest()
        todo += [one for one in _imports(tree) if one not in _NEUTRAL and not one.startswith("flows")]
    return _digest(sorted(seen.items()))


def _module_file(name: str) -> Path | None:
    stem = _ROOT.joinpath(*name.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"dsol_core", "tasks"}}


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = node.body[1:]
    return tree


def fingerprint(
    step: str, config: Any, parents: Mapping[str, Artifact], seed: int | None = None, module: str | None = None
) -> str:
    """Return what an artifact is made from as 16 hexadecimal digits.

    Args:
        step: name of the step; its code is `tasks/<step>.py` unless `module` names another.
        config: dataclass or JSON value; every field counts.
        parents: artifacts by role; their fingerprints and contents count, their paths do not.
        seed: of the step.
        module: dotted name of the module whose code counts.
    """
    return _digest(
        {
            "step": step,
            "config": plain(config),
            "seed": seed,
            "parents": {role: [one.fingerprint, one.content] for role, one in parents.items()},
            "code": code_digest(module or f"tasks.{step}"),
        }
    )


class Store:
    """A folder of artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # workers have folders of their own
        self._held: set[tuple[str, str]] = set()

    def place(self, step: str, mark: str) -> Path:
        """Return the folder in which an artifact lies once it is published."""
        return self.root / step / mark

    def find(self, step: str, mark: str) -> Artifact | None:
        """Return a published artifact whose files are as they were published, or None.

        Files are compared by size and time of change, and by checksum where those differ; a damaged artifact is moved
        aside (`.damaged-...`), said so, and not returned.
        """
        folder = self.place(step, mark)
        found, problem = self._look(step, mark)
        if problem or (found is None and any(folder.parent.glob(f".old-{mark}-*"))):
            with self.lock(step, mark):
                self._restore(step, mark)
                found, problem = self._look(step, mark)  # another process may have mended it
                if problem:
                    logger.warning("%s %s is damaged (%s): it is moved aside and made again", step, mark, problem)
                    folder.rename(folder.with_name(f".damaged-{mark}-{time.time_ns()}"))
        return found

    def _look(self, step: str, mark: str) -> tuple[Artifact | None, str | None]:
        """Return the artifact, or what is wrong with it, or neither where there is none."""
        folder = self.place(step, mark)
        try:
            record = json.loads((folder / RECORD).read_text())
        except FileNotFoundError:
            return None, None
        except ValueError:
            return None, f"{RECORD} cannot be read"
        for name, known in record["files"].items():
            if problem := _difference(folder / name, known):
                return None, f"{name} {problem}"
        return Artifact(step, folder, mark, "reused", record), None

    def _restore(self, step: str, mark: str) -> None:
        """Put back an artifact whose replacement was killed half-way."""
        folder = self.place(step, mark)
        for old in sorted(folder.parent.glob(f".old-{mark}-*")):
            if not folder.exists():
                old.rename(folder)

    @contextmanager
    def lock(self, step: str, mark: str) -> Iterator[None]:
        """Keep other processes from building the same artifact; a killed process frees its lock by dying."""
        if (step, mark) in self._held:
            yield
            return
        folder = self.root / step
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".lock-{mark}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("%s %s is being built by another process; waiting for it", step, mark)
                fcntl.flock(file, fcntl.LOCK_EX)
            self._held.add((step, mark))
            try:
                yield
            finally:
                self._held.remove((step, mark))

    def work(self, step: str, mark: str) -> Path:
        """Return the folder whose content survives a kill, for the artifact's next try."""
        folder = self.root / step / f".work-{mark}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, step: str, mark: str, write: Callable[[Path], dict[str, Any]]) -> Artifact:
        """Write an artifact in a temporary folder and rename it into place as the last act.

        Args:
            step: name of the step.
            mark: fingerprint.
            write: fills the folder and returns the record to store beside its files.
        """
        with self.lock(step, mark):
            return self._publish(step, mark, write)

    def _publish(self, step: str, mark: str, write: Callable[[Path], dict[str, Any]]) -> Artifact:
        self._sweep(step)
        new = self.root / step / f".new-{mark}-{os.getpid()}"
        new.mkdir(parents=True)
        record = write(new)
        files = {str(p.relative_to(new)): _describe(p) for p in sorted(new.rglob("*")) if p.is_file()}
        content = _digest({name: known["sha256"] for name, known in files.items()})
        record = {**plain(record), "step": step, "fingerprint": mark, "files": files, "content": content}
        folder = self.place(step, mark)
        known, _ = self._look(step, mark)
        if known and known.content == content:  # made again with equal bytes: whoever reads the old ones goes on
            record["files"] = known.record["files"]
            write_json(folder / RECORD, record)
            shutil.rmtree(new)
        else:
            write_json(new / RECORD, record)
            if folder.exists():
                folder.rename(folder.with_name(f".old-{mark}-{os.getpid()}"))  # swept by the next run
            new.rename(folder)
        shutil.rmtree(self.root / step / f".work-{mark}", ignore_errors=True)
        return Artifact(step, folder, mark, "ran", record)

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every published artifact, newest first."""
        records = sorted(self.root.glob(f"*/[0-9a-f]*/{RECORD}"), key=lambda p: p.stat().st_mtime, reverse=True)
        for path in records:
            record = json.loads(path.read_text())
            yield Artifact(record["step"], path.parent, record["fingerprint"], "reused", record)

    def _sweep(self, step: str) -> None:
        """Remove what killed processes left half-made; who builds holds a lock, also on another machine."""
        for folder in [*(self.root / step).glob(".new-*"), *(self.root / step).glob(".old-*")]:
            mark = folder.name.split("-")[1]
            if (step, mark) in self._held or _unlocked(self.root / step / f".lock-{mark}"):
                shutil.rmtree(folder, ignore_errors=True)


def _unlocked(path: Path) -> bool:
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(path)}


def _difference(path: Path, known: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return "is missing"
    stat = path.stat()
    if stat.st_size != known["size"]:
        return f"has {stat.st_size} bytes, not {known['size']}"
    if stat.st_mtime_ns != known["mtime_ns"] and sha256(path) != known["sha256"]:
        return "has another checksum"
    return None
