"""How a step runs: reuse or build, measure, record, track. The only adapter that knows Prefect."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dsol_core.config import Compute
from dsol_core.types import DsolError, UsageError
from tasks.adapters import cluster, fingerprints
from tasks.adapters.provenance import Peak, provenance
from tasks.adapters.store import Artifact, Store, StoreError

if TYPE_CHECKING:
    from tasks.adapters.tracking import StepTrack, Tracker

logger = logging.getLogger(__name__)

# The pipeline in order; `tasks/__init__.py` tells what each reads and writes.
STEPS = (
    "make_videos",
    "ingest_videos",
    "index_clips",
    "mix_scenes",
    "write_shards",
    "train_stage_one",
    "build_dictionary",
    "train_stage_two",
    "predict_maps",
    "evaluate",
    "register_model",
)

# What steps share and keep in the store (`Run.cache`); made when a step first asks for it.
CACHES = ("class_count", "trunk_features")


class StepRefusedError(DsolError):
    """The scope of a run leaves out a step whose artifact does not exist yet."""


class Listener(Protocol):
    """Whoever wants to see a run's progress: the command line, a log."""

    def started(self, step: str) -> None:
        """Hear that a step starts to build."""

    def progress(self, step: str, done: float, total: float, text: str) -> None:
        """Hear how far it is; called a few times a second at most."""

    def finished(self, step: str, state: str, seconds: float, artifact: Artifact | None) -> None:
        """Hear how it ended: "ran", "reused", "skipped" or "failed"."""


class LogListener:
    """Writes progress to the log every few seconds, for runs that nobody watches."""

    def __init__(self, every: float = 15.0) -> None:
        self.every = every
        self._last = 0.0

    def started(self, step: str) -> None:
        """Log the start."""
        logger.info("%s: started", step)

    def progress(self, step: str, done: float, total: float, text: str) -> None:
        """Log a line when the last is old enough."""
        if time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            logger.info("%s: %s %.0f of %.0f", step, text, done, total)

    def finished(self, step: str, state: str, seconds: float, artifact: Artifact | None) -> None:
        """Log the end."""
        logger.info("%s: %s after %.1f s", step, state, seconds)


@dataclass(frozen=True)
class Scope:
    """Which steps of a run may build.

    Attributes:
        only: this step alone; those before it must exist, those after it are skipped.
        start: this step and those after it; those before it must exist.
        force: steps that are built again although they exist; caches too, when a step asks for them.
    """

    only: str | None = None
    start: str | None = None
    force: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        forced = [name for name in self.force if name not in CACHES]
        for name in filter(None, (self.only, self.start, *forced)):
            if name not in STEPS:
                caches = f"; --force also takes {', '.join(CACHES)}" if name in forced else ""
                raise UsageError(f"there is no step {name!r}; expected one of {', '.join(STEPS)}{caches}")
        outside = [name for name in forced if self.verdict(name) != "build"]
        if outside and not (self.only and self.start):
            scope = f"--only {self.only}" if self.only else f"--from {self.start}"
            raise UsageError(f"--force {outside[0]} lies outside {scope}; leave one of them out")
        if self.only and self.start:
            raise UsageError(f"--only {self.only} and --from {self.start} exclude each other; give one of them")

    def verdict(self, step: str) -> str:
        """Return "build", "must exist" or "skip"."""
        place = STEPS.index(step)
        if self.only and place > STEPS.index(self.only):
            return "skip"
        first = self.only or self.start
        return "must exist" if first and place < STEPS.index(first) else "build"


class StepOutput:
    """What a step's `write` function fills.

    Attributes:
        folder: the artifact's files go here.
        work: scratch that survives a kill and is there again on the next try.
        run: the run, for its `compute`.
        track: the MLflow child run, or None.
    """

    def __init__(self, run: Run, step: str, folder: Path, work: Path, track: StepTrack | None) -> None:
        self.run, self.step, self.folder, self.work, self.track = run, step, folder, work, track
        self.record: dict[str, Any] = {"rows": {}, "metrics": {}, "notes": {}}
        self._last = 0.0

    def rows(self, *, read: int, written: int, dropped: Mapping[str, int] | None = None) -> None:
        """Record how many rows came in, went out and were dropped for which reason."""
        self.record["rows"] = {"read": read, "written": written, "dropped": dict(dropped or {})}

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record figures that belong to the artifact."""
        self.record["metrics"].update({name: float(value) for name, value in values.items()})

    def note(self, **values: Any) -> None:
        """Record facts about how it was made, such as the device that really ran."""
        self.record["notes"].update(values)

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Tell how far the step is; cheap, so call it often."""
        now = time.monotonic()
        if now - self._last >= 0.2 or done >= total:
            self._last = now
            self.run.listener.progress(self.step, done, total, text)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send an epoch's figures to MLflow while the step still runs."""
        if self.track:
            self.track.log_metrics(epoch, dict(values))


_listener: Listener = LogListener()


def set_listener(listener: Listener) -> None:
    """Let the runs that this process starts from now on report to `listener`."""
    global _listener
    _listener = listener


class Run:
    """One walk through the pipeline over one store."""

    def __init__(
        self,
        store: Path | Store,
        *,
        compute: Compute | None = None,
        scope: Scope | None = None,
        tracking: Callable[[], Tracker] | None = None,
        name: str = "dsol",
        began: float | None = None,
    ) -> None:
        self.store = store if isinstance(store, Store) else Store(store)
        self.compute = compute or Compute()
        self.scope = scope or Scope()
        self.name = name
        self.listener = _listener
        self.steps: list[dict[str, Any]] = []
        self.began = began or time.time()
        self.startup: dict[str, float] = {}
        self._remade: set[tuple[str, str]] = set()
        self._open_tracker = tracking
        self._tracker: Tracker | None = None

    @classmethod
    def local(cls, store: Path) -> Run:
        """Return a run in this process alone: no Ray, no Prefect, no MLflow. For tests and notebooks."""
        return cls(store, compute=Compute(workers=0))

    def step(
        self,
        name: str,
        config: Any,
        parents: Mapping[str, Artifact],
        write: Callable[[StepOutput], None],
        *,
        seed: int | None = None,
        still_valid: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Artifact:
        """Return the step's artifact: the published one where it is up to date, else a new one.

        Args:
            name: of the step.
            config: what it is made by; each value is part of the fingerprint.
            parents: what it is made from, by role.
            write: makes the files.
            seed: of its randomness.
            still_valid: asked with the record of a published artifact whether what it points to outside the store
                still exists; False builds again.

        Raises:
            StepRefusedError: the scope excludes the step and its artifact does not exist.
        """
        began = time.perf_counter()
        verdict = self.scope.verdict(name)
        if verdict == "skip" or any(parent.state == "skipped" for parent in parents.values()):
            return self._ended(name, "skipped", began, Artifact(name, self.store.root, "", "skipped"))
        try:
            mark = fingerprints.fingerprint(name, config, parents, seed)
            known = self.store.find(name, mark)
            if verdict == "must exist":
                if known is None:
                    raise StepRefusedError(self._missing(name, mark))
                return self._ended(name, "reused", began, known)
            if known and name not in self.scope.force and (still_valid is None or still_valid(known.record)):
                self._track_late(known)
                return self._ended(name, "reused", began, known)
            self.listener.started(name)
            built = self._build(name, mark, config, parents, write, seed, known)
        except BaseException:
            self._ended(name, "failed", began, None)
            raise
        return self._ended(name, built.state, began, built)

    def cache(
        self,
        name: str,
        config: Any,
        parents: Mapping[str, Artifact],
        write: Callable[[StepOutput], None],
        *,
        module: str,
    ) -> Artifact:
        """Return something that several steps share and that is worth keeping, made when first needed.

        Args:
            name: of its folder in the store.
            config: what it is made by.
            parents: what it is made from.
            write: makes the files.
            module: dotted name of the module whose code belongs to its fingerprint.
        """
        mark = fingerprints.fingerprint(name, config, parents, None, module)
        known = self.store.find(name, mark)
        if known is None or (name in self.scope.force and (name, mark) not in self._remade):
            self._remade.add((name, mark))
            known = self._build(name, mark, config, parents, write, None, known)
        else:
            self._track_late(known)
        self.store.bring([known])
        return known

    def _missing(self, name: str, mark: str) -> str:
        wanted = f"--only {self.scope.only}" if self.scope.only else f"--from {self.scope.start}"
        others = self.store.marks(name)
        hint = f"; for other settings there are {', '.join(others)}" if others else ""
        return (
            f"{wanted} needs {name} {mark}, which is not in {self.store.name}{hint}. "
            f"Run without {wanted.split()[0]}, or with --from {name}, and it is made"
        )

    def _build(
        self,
        name: str,
        mark: str,
        config: Any,
        parents: Mapping[str, Artifact],
        write: Callable[[StepOutput], None],
        seed: int | None,
        known: Artifact | None,
    ) -> Artifact:
        with self.store.lock(name, mark):
            waited = self.store.find(name, mark)
            if waited and not known:
                return waited  # another process built it while this one waited
            self.store.bring(parents.values())
            track = self._track(name)
            code = provenance()

            def fill(folder: Path) -> dict[str, Any]:
                out = StepOutput(self, name, folder, self.store.work(name, mark), track)
                with Peak() as peak:
                    write(out)
                for role, one in parents.items():
                    if self.store.replaced(one):
                        raise StoreError(
                            f"{name} read {one.step} {one.fingerprint} ({role}), which another run replaced meanwhile; "
                            "what was made of both is not kept: start this run again"
                        )
                return {
                    **out.record,
                    "config": config,
                    "seed": seed,
                    "parents": {
                        role: {"step": one.step, "fingerprint": one.fingerprint, "content": one.content}
                        for role, one in parents.items()
                    },
                    "compute": asdict(self.compute),
                    "provenance": code,
                    "started": peak.began,
                    "seconds": round(peak.seconds, 3),
                    "peak_memory_bytes": peak.bytes,
                }

            debt = self.store.debt(name, mark)
            try:
                if track:
                    debt.touch()  # paid once the record is in MLflow; a kill or a dead server leaves it to a later run
                built = self.store.publish(name, mark, fill)
            except BaseException as error:
                if track:
                    track.fail(f"{type(error).__name__}: {error}")
                raise
            if track and track.log_record(built.record, built.folder):
                debt.unlink(missing_ok=True)
            return built

    def _track_late(self, known: Artifact) -> None:
        """Log a reused artifact whose record never reached MLflow: the server was down, or the process was killed."""
        debt = self.store.debt(known.step, known.fingerprint)
        if not debt.exists():
            return
        self.store.bring([known])
        if (track := self._track(known.step)) and track.log_record(known.record, known.folder):
            debt.unlink(missing_ok=True)
            logger.info("%s %s is now in MLflow, which it had not reached before", known.step, known.fingerprint)

    def _ended(self, name: str, state: str, began: float, artifact: Artifact | None) -> Artifact:
        seconds = time.perf_counter() - began
        mark = artifact.fingerprint if artifact else None
        self.steps.append({"name": name, "state": state, "seconds": round(seconds, 3), "fingerprint": mark})
        self.listener.finished(name, state, seconds, artifact)
        return artifact or Artifact(name, self.store.root, "", state)

    def _track(self, name: str) -> StepTrack | None:
        if self._open_tracker is None:
            return None
        if self._tracker is None:
            began = time.perf_counter()
            self._tracker = self._open_tracker()
            self.startup["mlflow"] = time.perf_counter() - began
        return self._tracker.step(name)

    @property
    def tracker(self) -> Tracker | None:
        """The MLflow side of this run, once a step has built something."""
        return self._tracker

    def finish(self, failure: str | None = None, **facts: Any) -> dict[str, Any]:
        """Write down what this run did in `runs/`, close its MLflow run and return the summary."""
        self.startup.update(cluster.startup)
        summary = {
            "store": self.store.name,
            "name": self.name,
            "began": self.began,
            "seconds": round(time.time() - self.began, 3),
            "startup_seconds": {name: round(value, 2) for name, value in self.startup.items()},
            "steps": self.steps,
            "untracked": self._tracker.untracked if self._tracker else [],
            **facts,
        }
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.began))
        self.store.write_summary(f"{stamp}-{os.getpid()}.json", summary)
        if self._tracker:
            self._tracker.finish(summary, failure)
        return summary


def step(function: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """Make a step a Prefect task wherever a flow is running, and a plain function (`.fn`) everywhere else.

    A step that only reuses its artifact ends in Prefect's UI as "Reused", one outside the scope as "Skipped". Prefect's
    own cache is off: docs/decisions/0002-fingerprints.md says why.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Artifact:
        if not _inside_flow():
            return function(*args, **kwargs)
        state = _prefect_task(function)(*args, return_state=True, **kwargs)
        return state.result()  # type: ignore[no-any-return]

    call.fn = function  # type: ignore[attr-defined]
    return call


def _inside_flow() -> bool:
    import sys

    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


@cache
def _prefect_task(function: Callable[..., Artifact]) -> Any:
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Completed

    @functools.wraps(function)
    def body(*args: Any, **kwargs: Any) -> Any:
        artifact = function(*args, **kwargs)
        if artifact.state == "ran":
            return artifact
        return Completed(name=artifact.state.capitalize(), message=artifact.fingerprint, data=artifact)

    return task(name=function.__name__, cache_policy=NO_CACHE, persist_result=False)(body)
