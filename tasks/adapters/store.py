"""Artifacts on disk: fingerprints, atomic publication, provenance. Owner of the files of a run.

A store is a folder:

    <step>/<fingerprint>/artifact.json + files      published artifacts, read-only from then on
    <step>/.work-<fingerprint>/                     what survives a kill: checkpoints, finished pieces
    <step>/.new-<fingerprint>-<pid>/                being written; never read by anyone else
    <step>/.untracked-<fingerprint>                 its record has not reached MLflow yet
    runs/<time>.json                                what each run did
    checksums.json                                  sha256 by (path, size, mtime) of outside files

A fingerprint hashes the step's name, its configuration and seed, the fingerprint and content of each parent, and the
code of the step (docs/decisions/0002-fingerprints.md). A folder is renamed into place as the last act, so that a kill
at any moment leaves nothing that a later run would trust.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsol_core.types import DsolError
from tasks.adapters.fingerprints import digest, plain, sha256

logger = logging.getLogger(__name__)

RECORD = "artifact.json"


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


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True, default=str)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Store:
    """A folder of artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # workers have folders of their own
        self._held: set[tuple[str, str]] = set()

    @property
    def name(self) -> str:
        """What the user calls it: the folder."""
        return str(self.root)

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
            if problem := difference(folder / name, known):
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

    def debt(self, step: str, mark: str) -> Path:
        """Return the file that exists as long as an artifact's record is owed to MLflow."""
        return self.root / step / f".untracked-{mark}"

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
        paths = [path for path in sorted(new.rglob("*")) if path.is_file()]
        with ThreadPoolExecutor() as pool:  # checksums of large files; hashing leaves the interpreter to the others
            described = dict(zip(paths, pool.map(_describe, paths), strict=True))
        files = {str(path.relative_to(new)): known for path, known in described.items()}
        content = digest({name: known["sha256"] for name, known in files.items()})
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

    def replaced(self, artifact: Artifact) -> bool:
        """Tell whether other content lies on this machine where an artifact lay when it was found."""
        try:
            record = json.loads((artifact.folder / RECORD).read_text())
        except (OSError, ValueError):  # a folder of the user's; or gone, which its reader has noticed
            return False
        return bool(record.get("content") != artifact.content)

    def bring(self, artifacts: Iterable[Artifact]) -> None:
        """Make sure that the artifacts' files are on this machine; they are."""

    def marks(self, step: str) -> list[str]:
        """Return the fingerprints of a step's artifacts."""
        return sorted(path.name for path in (self.root / step).glob("[0-9a-f]*"))

    def write_summary(self, name: str, summary: dict[str, Any]) -> None:
        """Keep what a run did."""
        (self.root / "runs").mkdir(parents=True, exist_ok=True)
        write_json(self.root / "runs" / name, summary)

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yield what the runs did, oldest first."""
        for path in sorted((self.root / "runs").glob("*.json")):
            if summary := _read(path):
                yield summary

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every published artifact, newest first."""
        records = sorted(self.root.glob(f"*/[0-9a-f]*/{RECORD}"), key=lambda p: p.stat().st_mtime, reverse=True)
        for path in records:
            if record := _read(path):
                yield Artifact(record["step"], path.parent, record["fingerprint"], "reused", record)

    def leftovers(self) -> Iterator[tuple[str, str, str]]:
        """Yield (step, "unfinished" or "damaged", fingerprint) of folders that wait for another try, or for the user.

        An unfinished one is continued by the next run of the same settings; a damaged one is kept for a look. Both may
        be deleted.
        """
        for kind, pattern in (("unfinished", ".work-"), ("damaged", ".damaged-")):
            for folder in sorted(self.root.glob(f"*/{pattern}*")):
                if folder.is_dir() and any(folder.iterdir()):
                    yield folder.parent.name, kind, folder.name.removeprefix(pattern)

    def _sweep(self, step: str) -> None:
        """Remove what killed processes left half-made; who builds holds a lock, also on another machine.

        What was to be replaced comes back where its replacement was killed half-way.
        """
        for folder in [*(self.root / step).glob(".new-*"), *(self.root / step).glob(".old-*")]:
            mark = folder.name.split("-")[1]
            if (step, mark) in self._held or _unlocked(self.root / step / f".lock-{mark}"):
                self._restore(step, mark)
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    """Read a record or summary; None where it is damaged, which the log tells."""
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        logger.warning("%s is damaged (%s); it is passed over; the next run makes an artifact anew", path, error)
        return None


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


def difference(path: Path, known: Mapping[str, Any]) -> str | None:
    """Return how a file differs from what the record says of it, or None; a checksum is taken only where it must be."""
    if not path.is_file():
        return "is missing"
    stat = path.stat()
    if stat.st_size != known["size"]:
        return f"has {stat.st_size} bytes, not {known['size']}"
    if stat.st_mtime_ns != known["mtime_ns"] and sha256(path) != known["sha256"]:
        return "has another checksum"
    return None
