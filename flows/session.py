"""Opens and closes a run for a flow: store, scope, tracking, the user's folders, Prefect's artifacts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsol_core.config import Compute, ExperimentConfig
from dsol_core.types import DsolError, UsageError
from flows import environment
from tasks.adapters import cluster
from tasks.adapters.fingerprints import plain
from tasks.adapters.object_store import ObjectStore, open_store
from tasks.adapters.objects import Objects, is_object_uri
from tasks.adapters.steps import Run, Scope
from tasks.adapters.store import Artifact
from tasks.adapters.user_folders import External, check_folders, external
from tasks.adapters.weights import weights_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folders:
    """The folders that the user gave.

    Attributes:
        data: of a data set, for presets that read one.
        solo: of single-source videos, for the preset folders.
        multi: of multi-source videos, for the preset folders.
    """

    data: str | None
    solo: str | None
    multi: str | None

    def roots(self, source: str) -> dict[str, Path]:
        """Return prefix -> folder; nothing where the videos are generated.

        Args:
            source: data.videos.source of the preset.

        Raises:
            UsageError: folders that the preset needs are not given, others are, or one is no folder or inside another.
        """
        if source == "orchestra" and (given := self.data or self.solo or self.multi):
            raise UsageError(
                f"this preset generates its videos, and {given!r} is given; "
                "use the preset folders, real_av or your own YAML with data.videos.source"
            )
        if source == "folders" and (self.data or not self.solo):
            raise UsageError("data.videos.source is folders; give --solo FOLDER, and --multi FOLDER where you have one")
        if source not in ("orchestra", "folders") and (not self.data or self.solo or self.multi):
            raise UsageError(f"data.videos.source is {source}; give --data FOLDER, without --solo and --multi")
        named = {"": self.data, "solo": self.solo, "multi": self.multi}
        found = {prefix: Path(folder) for prefix, folder in named.items() if folder}
        check_folders(found)
        return found

    def media(self, store: Path, source: str) -> External | None:
        """Return the folders as an artifact, or None where the videos are generated.

        Args:
            store: folder that remembers the files' checksums.
            source: data.videos.source of the preset.

        Raises:
            UsageError: see `roots`; or the folders are empty.
        """
        found = self.roots(source)
        return external(store, found) if found else None


def refuse_early(
    experiment: ExperimentConfig, store: str, folders: Folders, compute: Compute, scope: Scope | None = None
) -> None:
    """Raise what a run would raise of its arguments, before Prefect starts and without a trace in the store.

    Raises:
        UsageError: a store, a number of workers or folders that cannot be used.
        DataError: ImageNet weights that are not there.
    """
    _checked_store(store)
    _check_workers(experiment, compute)
    folders.roots(experiment.data.videos.source)
    if (scope or Scope()).verdict("train_stage_one") == "build":
        weights_file(experiment.stage_one.backbone)


@contextmanager
def opened(
    name: str,
    experiment: ExperimentConfig,
    store: str,
    folders: Folders,
    compute: Compute,
    scope: Scope | None = None,
    *,
    tags: Mapping[str, str],
) -> Iterator[tuple[Run, External | None]]:
    """Open a run and close it whatever happens: Ray ends, MLflow's run ends, the summary is written.

    Yields the run, and the user's folders as an artifact or None where the videos are generated.

    Args:
        name: of the flow.
        experiment: logged to MLflow.
        store: folder of the artifacts, or s3://bucket/prefix.
        folders: of the user.
        compute: cluster and workers.
        scope: which steps may build; default all.
        tags: facts for MLflow.

    Raises:
        UsageError: a store, a number of workers or folders that cannot be used.
    """
    opened_store = open_store(_checked_store(store))
    if isinstance(opened_store, ObjectStore):
        opened_store.objects.check()
    _check_workers(experiment, compute)
    environment.prepare()

    def tracking() -> Any:
        from tasks.adapters.tracking import Tracker, tracking_uri

        tracker = Tracker(tracking_uri(opened_store.root), experiment="dsol")
        tracker.start(f"{experiment.data.name}-seed{experiment.seed}", {"flow": name, **tags}, plain(experiment))
        return tracker

    run = Run(opened_store, compute=compute, scope=scope, tracking=tracking, name=name, began=called_at or None)
    run.startup["prefect"] = time.time() - called_at if called_at else 0.0
    try:
        yield run, folders.media(opened_store.root, experiment.data.videos.source)
    except BaseException as error:
        try:
            error.dsol_summary = run.finish(failure=f"{type(error).__name__}: {error}")  # type: ignore[attr-defined]
        except (OSError, DsolError) as second:  # a full disk, a lost store: the first error is the one to hear of
            logger.warning("the run's summary could not be written: %s", second)
        raise
    finally:
        cluster.stop()


def show_in_prefect(summary: dict[str, Any], report: Artifact) -> None:
    """Store the metrics as a table and the links as markdown among the flow run's artifacts in Prefect's UI."""
    try:
        _create_artifacts(summary, report)
    except Exception as error:  # everything is computed and published; a server lost now costs its two artifacts
        logger.warning("Prefect could not store the run's artifacts: %s", error)


def _create_artifacts(summary: dict[str, Any], report: Artifact) -> None:
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    rows = [
        {"metric": name, "value": one["value"], "95 % from": one["low"], "to": one["high"], "n": one["n"]}
        for name, one in sorted(summary.get("metrics", {}).items())
    ]
    if rows:
        create_table_artifact(table=rows, key="dsol-metrics", description=f"Metrics of {summary['preset']}")
    steps = "\n".join(
        f"| {s['name']} | {s['state']} | {s['seconds']:.1f} | {s['fingerprint']} |" for s in summary["steps"]
    )
    create_markdown_artifact(
        key="dsol-run",
        description="Steps, report and model of this run",
        markdown=(
            f"# {summary['preset']}, seed {summary['seed']}\n\n- report: `{summary['report']}`\n"
            f"- model: `{summary['model']}`\n- MLflow: `{summary['tracking']}`\n\n"
            f"| step | state | seconds | fingerprint |\n|---|---|---|---|\n{steps}\n\n"
            + (report.folder / "report.md").read_text()
        ),
    )


def _checked_store(store: str) -> str:
    if is_object_uri(store):
        Objects(store)  # or it says what is wrong with the address
        return store
    if "://" in store:
        open_store(store)  # says so
    if not store.strip():
        raise UsageError("the store has no name; give --store FOLDER, or set DSOL_STORE before `prefect deploy`")
    folder = Path(store).absolute()
    if any(sign in str(folder) for sign in "%?"):
        raise UsageError(f"the store {folder} has % or ? in its name, which MLflow takes for an address; rename it")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the store {folder} is a file; expected a folder, new or made by dsol")
    return str(folder)


def _check_workers(experiment: ExperimentConfig, compute: Compute) -> None:
    for name, batch in (("stage_one", experiment.stage_one.batch), ("stage_two", experiment.stage_two.batch)):
        if compute.workers and batch % compute.workers:
            raise UsageError(
                f"{name}.batch is {batch}, which {compute.workers} workers cannot share evenly; "
                f"give --workers a divisor of it, or --set {name}.batch=N"
            )


called_at = 0.0  # set by the command line when it starts: a run's seconds count from there
