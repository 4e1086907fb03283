"""A store on S3-compatible storage: a cache folder on this machine, and the objects that every machine sees.

    <step>/<fingerprint>/artifact.json             written last: an artifact exists when this does and its files fit
    <step>/<fingerprint>/<content>/<file>          by the digest of the content: a replacement mixes with nothing
    shared/<token>/<step>/.work-<fingerprint>/...  what workers hand over to one machine, and its training's checkpoints
    outside/<digest>/<name>                        files of the user's that other machines needed
    runs/<time>-<process>-<token>.json             what each run did

The cache has the layout of a local store (`tasks/adapters/store.py`); files come to it when they are needed, and are
compared with their sha256. docs/decisions/0007-object-storage.md says what holds when two machines share a store.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dsol_core.types import UsageError
from tasks.adapters.fingerprints import digest
from tasks.adapters.objects import Objects, is_object_uri
from tasks.adapters.store import RECORD, Artifact, Store, StoreError, difference, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredArtifact(Artifact):
    """An artifact whose files come to this machine when they are asked for."""

    store: ObjectStore | None = field(default=None, compare=False, repr=False)

    def file(self, name: str) -> Path:
        """Return the path of one of its files, fetched where it is not here yet.

        Raises:
            StoreError: it has no such file, or the store holds other bytes than were published.
        """
        if self.store:
            self.store.fetch(self, name)
        return super().file(name)

    def files(self) -> list[str]:
        """Return the relative paths of its files, sorted, whether they are here or not."""
        return sorted(self.record["files"])


def open_store(place: str | Path) -> Store:
    """Open a folder, or `s3://bucket/prefix`; each address once a process.

    Raises:
        UsageError: it is an address of another kind.
    """
    if is_object_uri(place):
        return _opened(str(place))
    if "://" in str(place):
        raise UsageError(f"the store {str(place)!r} is of no known kind; expected --store FOLDER or s3://bucket/prefix")
    return Store(Path(place))


@lru_cache(maxsize=8)
def _opened(uri: str) -> ObjectStore:
    store = ObjectStore(uri)
    mounted.append(store)
    return store


mounted: list[ObjectStore] = []  # the object stores that this process has opened


def cache_folder(uri: str) -> Path:
    """Return this machine's folder for a store: below DSOL_CACHE, or else the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsol"
    parts = urlsplit(uri)
    name = f"{parts.netloc}{parts.path.rstrip('/')}".replace("/", "-").replace("%", "-")[:60]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return Path(os.environ.get("DSOL_CACHE") or home) / f"{name}-{digest([uri, endpoint])[:8]}"


def local_model(model: str) -> str:
    """Return a model as it is, or, of s3://bucket/prefix/train_stage_two/<fingerprint>, the folder it was brought to.

    Raises:
        StoreError: there is no such artifact.
    """
    if not is_object_uri(model):
        return model
    place, mark_of, options = model.partition("?")
    root, step, mark = place.rstrip("/").rsplit("/", 2)
    store = _opened(root + mark_of + options)
    folder = store.fetch_path(f"{step}/{mark}")
    for parent in _read(folder / RECORD).get("parents", {}).values():
        found = store.find(parent["step"], parent["fingerprint"])  # its record comes, which tells how clips were cut
        if found and found.step == "build_dictionary":
            store.bring([found])
    return str(folder)


class ObjectStore(Store):
    """Artifacts on S3-compatible storage.

    Attributes:
        objects: what every machine sees.
        root: this machine's cache.
        token: of the cache folder; processes with equal tokens see the same files.
        lent: names below `shared` that this process knows to be there.
    """

    def __init__(self, uri: str) -> None:
        self.objects = Objects(uri)
        super().__init__(cache_folder(uri))
        self.token = _token(self.root)
        self.lent: set[str] = set()

    @property
    def name(self) -> str:
        """The address."""
        return self.objects.uri

    def find(self, step: str, mark: str) -> Artifact | None:
        """Return a published artifact, its files where they are; None where there is none or some were lost."""
        if self._unsent(step, mark).exists():
            with self.lock(step, mark):
                self._send(step, mark)
        record = self._record(step, mark)
        if record is None:
            local = super().find(step, mark)
            if local:
                logger.warning("%s %s is here but not in the store, and is uploaded now", step, mark)
                self._upload(local)
            return local
        found = StoredArtifact(step, self.place(step, mark), mark, "reused", record, self)
        if problem := self._lost(found):
            local, _ = self._look(step, mark)
            here = local is not None and local.content == found.content
            mended = "uploaded again" if here else "made again"
            logger.warning("%s %s is damaged in the store (%s) and is %s", step, mark, problem, mended)
            if local is None or not here:
                return None
            self._upload(local)
        if _read(found.folder / RECORD) != found.record:
            with self.lock(step, mark):
                if self._record(step, mark) != record:
                    return self.find(step, mark)  # another process here published while this one waited
                self._adopt(found)
        return found

    def _unsent(self, step: str, mark: str) -> Path:
        """Return the file that exists as long as a publication of the cache is owed to the store.

        It holds the digests of the content that the store had before, and the cache.
        """
        return self.root / step / f".unsent-{mark}"

    def _send(self, step: str, mark: str) -> None:
        """Upload what was made again here and did not reach the store, unless another machine replaced it since."""
        if not self._unsent(step, mark).exists():
            return  # whoever was building it here has sent it
        local, _ = self._look(step, mark)
        stored, cached = self._unsent(step, mark).read_text().split("/")
        if local and local.content != cached and stored == (self._record(step, mark) or {}).get("content"):
            logger.warning("%s %s was made again here but not uploaded, and is uploaded now", step, mark)
            self._upload(local)
        self._unsent(step, mark).unlink(missing_ok=True)

    def _record(self, step: str, mark: str) -> dict[str, Any] | None:
        content = self.objects.read(f"{step}/{mark}/{RECORD}")
        try:
            return None if content is None else dict(json.loads(content))
        except ValueError:
            logger.warning("%s of %s %s in the store cannot be read: it is made again", RECORD, step, mark)
            return None

    def _lost(self, artifact: Artifact) -> str | None:
        base = _base(artifact)
        sizes = self.objects.sizes(base)
        for name, known in artifact.record["files"].items():
            size = sizes.get(f"{base}/{name}")
            if size != known["size"]:
                return f"{name} is missing" if size is None else f"{name} has {size} bytes, not {known['size']}"
        return None

    def _adopt(self, artifact: Artifact) -> None:
        """Let the cache folder be that of this artifact; files of another content are put aside."""
        if _read(artifact.folder / RECORD).get("content") != artifact.content:
            if artifact.folder.exists():
                aside = f".old-{artifact.fingerprint}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
                artifact.folder.rename(artifact.folder.with_name(aside))
            artifact.folder.mkdir(parents=True)
        write_json(artifact.folder / RECORD, artifact.record)

    def fetch(self, artifact: Artifact, name: str | None = None) -> None:
        """Bring a file of an artifact here, or all of them; those that are here already stay.

        Raises:
            StoreError: the store holds other bytes than were published.
        """
        wanted = {n: k for n, k in artifact.record["files"].items() if name is None or f"{n}/".startswith(f"{name}/")}
        if not any(difference(artifact.folder / one, known) for one, known in wanted.items()):
            return
        with self.lock(artifact.step, artifact.fingerprint):
            for one, known in wanted.items():
                path = artifact.folder / one
                if difference(path, known):
                    self.objects.download(f"{_base(artifact)}/{one}", path)
                    if problem := difference(path, known):
                        path.unlink(missing_ok=True)
                        now = self._record(artifact.step, artifact.fingerprint)
                        if now is not None and now.get("content") != artifact.content:
                            raise StoreError(
                                f"{artifact.step} {artifact.fingerprint} was replaced by another run while this one "
                                "read it; start this one again"
                            )
                        raise StoreError(
                            f"{one} of {artifact.step} {artifact.fingerprint} in {self.name.partition('?')[0]} "
                            f"{problem}; run --force {artifact.step}"
                        )
                    os.utime(path, ns=(known["mtime_ns"], known["mtime_ns"]))

    def bring(self, artifacts: Iterable[Artifact]) -> None:
        """Bring all files of artifacts here."""
        for one in artifacts:
            if isinstance(one, StoredArtifact):
                self.fetch(one)

    def fetch_path(self, relative: str, content: str = "") -> Path:
        """Bring what lies at a path of this store here, a whole artifact or a file of one, and return where it is.

        Args:
            relative: <step>/<fingerprint>, and a file's name behind it.
            content: digest of the content that it must be.

        Raises:
            StoreError: there is no such artifact, or one of another content.
        """
        step, mark, *rest = relative.split("/", 2)
        found = self._cached(step, mark) or self.find(step, mark)
        if found is None:
            raise StoreError(f"{step} {mark} is not in {self.name.partition('?')[0]}; run --from {step}")
        if content and found.content != content:
            raise StoreError(f"{step} {mark} was replaced by another run meanwhile; start this one again")
        self.fetch(found, rest[0] if rest else None)
        return self.root / relative

    def _cached(self, step: str, mark: str) -> Artifact | None:
        """Return an artifact by the record in the cache, if the store's is the same."""
        folder, record = self.place(step, mark), self._record(step, mark)
        same = record is not None and _read(folder / RECORD) == record
        return Artifact(step, folder, mark, "reused", record or {}) if same else None

    def _publish(self, step: str, mark: str, write: Any) -> Artifact:
        before = ""

        def noted(new: Path) -> dict[str, Any]:
            nonlocal before
            record: dict[str, Any] = write(new)
            before = str((self._record(step, mark) or {}).get("content", ""))
            local, _ = self._look(step, mark)
            self._unsent(step, mark).write_text(f"{before}/{local.content if local else ''}")
            return record

        built = super()._publish(step, mark, noted)
        self._upload(built, whole=built.content == before)  # made again with equal bytes: perhaps to mend the objects
        self._unsent(step, mark).unlink(missing_ok=True)
        for folder in [one for one in self.objects.folders(self.shared(step)) if mark in one]:
            self.objects.delete(self.shared(f"{step}/{folder}"))
        self.lent = {one for one in self.lent if mark not in one}
        return built

    def shared(self, name: str) -> str:
        """Return the name of what this machine and its workers hand to each other; other machines have their own."""
        return f"shared/{self.token}/{name}"

    def _upload(self, artifact: Artifact, *, whole: bool = False) -> None:
        """Make an artifact of the cache exist in the store: its files first, its record last.

        Objects that have the size of their file stay, unless the whole artifact is to be sent.
        """
        base, before = _base(artifact), self._record(artifact.step, artifact.fingerprint)
        there = {} if whole else self.objects.sizes(base)
        for name, known in artifact.record["files"].items():
            if there.get(f"{base}/{name}") != known["size"]:
                self.objects.upload(f"{base}/{name}", artifact.folder / name)
        record = json.dumps(artifact.record, indent=1, sort_keys=True, default=str).encode()
        self.objects.write(f"{artifact.step}/{artifact.fingerprint}/{RECORD}", record)
        if before and before.get("content") != artifact.content:  # nobody finds the replaced files any more
            self.objects.delete(f"{artifact.step}/{artifact.fingerprint}/{before['content']}")

    def marks(self, step: str) -> list[str]:
        """Return the fingerprints of a step's artifacts."""
        return [mark for mark in self.objects.folders(step) if self._record(step, mark)]

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every published artifact, newest first; the cache counts only by what the store has too."""
        steps = [one for one in self.objects.folders() if one not in ("shared", "outside", "runs")]
        records = [r for step in steps for mark in self.objects.folders(step) if (r := self._record(step, mark))]
        for one in sorted(records, key=lambda record: float(record.get("started", 0)), reverse=True):
            place = self.place(one["step"], one["fingerprint"])
            yield StoredArtifact(one["step"], place, one["fingerprint"], "reused", one, self)

    def write_summary(self, name: str, summary: dict[str, Any]) -> None:
        """Keep what a run did."""
        super().write_summary(name, summary)
        unique = f"{name.removesuffix('.json')}-{self.token[:8]}.json"  # machines may share second and process id
        self.objects.write(f"runs/{unique}", json.dumps(summary, indent=1, sort_keys=True, default=str).encode())

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yield what the runs of all machines did, oldest first."""
        for name in sorted(self.objects.sizes("runs")):
            if content := self.objects.read(name):
                yield json.loads(content)

    def lend_outside(self, path: Path) -> str:
        """Make a file of the user's readable on other machines and return its name there."""
        stat = path.stat()
        name = f"outside/{digest([self.token, str(path), stat.st_size, stat.st_mtime_ns])}/{path.name}"
        if self.objects.sizes(name).get(name) != stat.st_size:
            self.objects.upload(name, path)
        return name


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _base(artifact: Artifact) -> str:
    return f"{artifact.step}/{artifact.fingerprint}/{artifact.content}"


def _token(root: Path) -> str:
    """Return what tells this cache folder from those of other machines."""
    path = root / ".identity"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f".identity.{os.getpid()}")
        mine.write_text(uuid.uuid4().hex)
        try:
            os.link(mine, path)  # of two processes that start at once, the first one names the folder
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return path.read_text()
