"""MLflow: one run per pipeline, one child run per step. Owner of mlflow; `registry.py` keeps the models.

MLflow is imported on the first use, because its import takes seconds and a run that builds nothing needs none of it
(`tracking_store.py` answers questions about a store without it).
Everything goes through a client with explicit run ids; MLflow's global state is not touched except to read a model.

A tracking server that is down, or dies, costs a warning and never an artifact: what fails to be logged is left out,
`Tracker.untracked` names the steps, and the next step tries again. Each try is bounded (`_DEFAULTS`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.adapters.tracking_store import TrackingError, database, reachable, without_password
from tasks.adapters.tracking_store import tracking_uri as tracking_uri

logger = logging.getLogger(__name__)

_DEFAULTS = {  # set before mlflow is imported, unless the user has set them
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}
UPLOAD_LIMIT = 50 * 2**20  # bytes; larger files are known by path and sha256 in artifact.json
_UPLOADED = {".json", ".md", ".html", ".png", ".parquet", ".safetensors", ".txt"}
_DATA_STEPS = {"external", "make_videos", "ingest_videos", "index_clips", "mix_scenes", "write_shards", "predict_maps"}
_PARAM_LENGTH, _TAG_LENGTH, _KEY_LENGTH = 6000, 5000, 250  # characters, MLflow's limits
_PARAMS_A_CALL, _METRICS_A_CALL = 100, 1000
_PARENT, _PROCESS = "mlflow.parentRunId", "dsol.process"


def load_mlflow() -> Any:
    """Import mlflow: quiet, offline, refusing pickles."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "ERROR"))
    logging.getLogger("alembic").setLevel("WARNING")
    import mlflow

    return mlflow


class Tracker:
    """The runs of one pipeline in one MLflow store.

    Attributes:
        uri: tracking URI.
        run_id: the pipeline's run, or None until `start` succeeds.
        experiment_id: its experiment, "" until then.
        untracked: steps of which something could not be logged.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment
        self.run_id: str | None = None
        self.untracked: list[str] = []
        self.experiment_id = ""
        self._start: tuple[str, dict[str, str], dict[str, Any]] = ("dsol", {}, {})
        self._client: Any = None
        self._warned = False

    @property
    def client(self) -> Any:
        """The MlflowClient, made at first use.

        Raises:
            TrackingError: the server does not answer.
        """
        if self._client is None:
            if problem := reachable(self.uri):
                raise TrackingError(f"MLflow: {problem}; start the server or unset MLFLOW_TRACKING_URI")
            if self.uri.startswith("sqlite:///"):
                database(self.uri).parent.mkdir(parents=True, exist_ok=True)
            self._client = load_mlflow().MlflowClient(self.uri)
        return self._client

    def start(
        self, name: str, tags: Mapping[str, str] | None = None, params: Mapping[str, Any] | None = None
    ) -> str | None:
        """Open the pipeline's run and return its id, or None where MLflow cannot be reached.

        Args:
            name: shown in MLflow's list of runs.
            tags: facts to search by.
            params: nested configuration, logged flat (`stage_one.audio.hop`).
        """
        self._start = (name, dict(tags or {}), dict(params or {}))
        with self.guarded("the pipeline"):
            self._begin()
        return self.run_id

    def _begin(self) -> None:
        name, tags, params = self._start
        self.experiment_id = self._open_experiment()
        self._close_dead_runs()
        process = {_PROCESS: f"{socket.gethostname()}:{os.getpid()}", "mlflow.source.name": "dsol"}
        run = self.client.create_run(self.experiment_id, run_name=name, tags=process | _cut_tags(tags))
        self.run_id = str(run.info.run_id)
        self.log_params(self.run_id, params)

    def _open_experiment(self) -> str:
        """Return the experiment's id; an embedded one keeps its files beside the database, also after a move."""
        name, place = self.experiment, None
        if self.uri.startswith("sqlite:///"):
            place = str(database(self.uri).parent.resolve() / "mlflow-artifacts")
        known = self.client.get_experiment_by_name(name)
        if known and place and known.artifact_location != place:
            name = f"{name} in {place}"
            known = self.client.get_experiment_by_name(name)
        if known and known.lifecycle_stage == "deleted":
            self.client.restore_experiment(known.experiment_id)
        return str(known.experiment_id if known else self.client.create_experiment(name, artifact_location=place))

    def _close_dead_runs(self) -> None:
        """Mark runs of killed processes of this machine as killed; they would seem to run for ever."""
        host = socket.gethostname()
        ours = f"attributes.status = 'RUNNING' AND tags.`{_PROCESS}` LIKE '{host}:%'"
        for run in self.client.search_runs([self.experiment_id], ours):
            if not Path(f"/proc/{run.data.tags[_PROCESS].rpartition(':')[2]}").exists():
                self.client.set_terminated(run.info.run_id, "KILLED")

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turn any failure inside into one warning, and remember what was not tracked."""
        try:
            yield
        except Exception as error:  # whatever the tracking store does wrong must not cost a computed artifact
            if what not in self.untracked:
                self.untracked.append(what)
            level = logging.DEBUG if self._warned else logging.WARNING
            self._warned = True
            text = f"{type(error).__name__}: {str(error)[:300]}".splitlines()[0]
            place = without_password(self.uri)
            logger.log(level, "%s is not tracked in MLflow at %s (%s); the run goes on", what, place, text)

    def step(self, name: str) -> StepTrack:
        """Open a child run for a step; it may be untracked, but never raises."""
        track = StepTrack(self, name)
        with self.guarded(name):
            if problem := reachable(self.uri):
                raise TrackingError(problem)
            if self.run_id is None:
                self._begin()
            tags = {_PARENT: str(self.run_id), "dsol.step": name, "mlflow.source.name": "dsol"}
            tags[_PROCESS] = f"{socket.gethostname()}:{os.getpid()}"
            track.run_id = str(self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id)
        return track

    def finish(self, summary: Mapping[str, Any], failure: str | None = None) -> None:
        """Log the run's summary and close the pipeline's run.

        Args:
            summary: JSON value; figures below "metrics" and "startup_seconds" also become metrics.
            failure: why the run failed, or None.
        """
        if self.run_id is None:
            return
        with self.guarded("the pipeline"):
            if problem := reachable(self.uri):
                raise TrackingError(problem)
            metrics = _estimates(summary.get("metrics") or {})
            startup = summary.get("startup_seconds") or {}
            metrics |= {f"startup_seconds/{name}": value for name, value in startup.items()}
            self.log_metrics(self.run_id, metrics)
            self.client.log_dict(self.run_id, json.loads(json.dumps(summary, default=str)), "run.json")
            if failure:
                self.client.set_tag(self.run_id, "dsol.error", failure[:_TAG_LENGTH])
            self.client.set_terminated(self.run_id, "FAILED" if failure else "FINISHED")

    def log_params(self, run_id: str, values: Mapping[str, Any]) -> int:
        """Log nested values as flat parameters and return how many had to be cut to MLflow's length."""
        from mlflow.entities import Param

        flat = flatten(values)
        params = [Param(mlflow_name(key), text[:_PARAM_LENGTH]) for key, text in flat.items()]
        for start in range(0, len(params), _PARAMS_A_CALL):
            self.client.log_batch(run_id, params=params[start : start + _PARAMS_A_CALL])
        cut = sum(len(text) > _PARAM_LENGTH for text in flat.values())
        if cut:
            self.client.set_tag(run_id, "dsol.params_cut", str(cut))
        return cut

    def log_tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Log tags in one call; an embedded MLflow writes each call to the disk."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, text) for key, text in _cut_tags(values).items()])

    def log_metrics(self, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
        """Log figures at one step."""
        self.log_points(run_id, [(name, step, value) for name, value in values.items()])

    def log_points(self, run_id: str, points: list[tuple[str, int, float]]) -> None:
        """Log (name, step, value) triples, a thousand a call; characters that MLflow refuses are spelt out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(mlflow_name(name), float(value), now, step) for name, step, value in points]
        for start in range(0, len(metrics), _METRICS_A_CALL):
            self.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_CALL])


class StepTrack:
    """The MLflow run of one step.

    Attributes:
        run_id: of the child run, or None where it could not be opened.
        tracked: whether everything so far has been logged.
    """

    def __init__(self, tracker: Tracker, step: str) -> None:
        self.tracker, self.step = tracker, step
        self.run_id: str | None = None
        self._live: set[tuple[str, int]] = set()

    @property
    def tracked(self) -> bool:
        """Whether everything so far has been logged."""
        return self.run_id is not None and self.step not in self.tracker.untracked

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log an epoch's figures while the step runs; after a failure, no more until the end of the step."""
        if self.tracked:
            with self.tracker.guarded(self.step):
                self.tracker.log_metrics(str(self.run_id), values, step)
                self._live |= {(name, step) for name in values}

    def log_record(self, record: Mapping[str, Any], folder: Path) -> bool:
        """Log a published artifact and close the run; return whether all of it is in MLflow.

        Args:
            record: content of its artifact.json.
            folder: where its files lie. Those of the usual kinds up to 50 MB are uploaded, the others are known by path
                and checksum; `history.parquet` becomes curves and `metrics.json` figures.
        """
        if self.run_id is None:
            return False
        with self.tracker.guarded(self.step):
            if problem := reachable(self.tracker.uri):
                raise TrackingError(problem)
            self._log_facts(self.run_id, record, folder)
            self._log_inputs(self.run_id, record, folder)
            self._log_history(self.run_id, folder / "history.parquet")
            left_out = self._log_files(self.run_id, folder)
            self.tracker.client.set_tag(self.run_id, "dsol.files_not_uploaded", str(left_out))
            self.tracker.client.set_terminated(self.run_id, "FINISHED")
        return self.tracked

    def fail(self, message: str) -> None:
        """Close the run as failed, with the reason."""
        if self.run_id is not None:
            with self.tracker.guarded(self.step):
                self.tracker.client.set_tag(self.run_id, "dsol.error", message[:_TAG_LENGTH])
                self.tracker.client.set_terminated(self.run_id, "FAILED")

    def _log_facts(self, run_id: str, record: Mapping[str, Any], folder: Path) -> None:
        tags = {"dsol.fingerprint": str(record.get("fingerprint")), "dsol.folder": str(folder)}
        provenance = record.get("provenance") or {}
        if provenance.get("commit"):
            tags |= {"mlflow.source.git.commit": str(provenance["commit"]), "dsol.dirty": str(provenance.get("dirty"))}
        tags |= {f"dsol.{name}": str(value) for name, value in (record.get("notes") or {}).items()}
        self.tracker.log_tags(run_id, tags)
        known = {"seed": record.get("seed"), "compute": record.get("compute") or {}}
        self.tracker.log_params(run_id, {**(record.get("config") or {}), **known})
        rows = record.get("rows") or {}
        figures = {f"rows_{name}": rows[name] for name in ("read", "written") if name in rows}
        figures |= {f"rows_dropped/{reason}": count for reason, count in (rows.get("dropped") or {}).items()}
        figures |= {name: record[name] for name in ("seconds", "peak_memory_bytes") if name in record}
        if (folder / "metrics.json").is_file():
            figures |= _estimates(json.loads((folder / "metrics.json").read_text()))
        self.tracker.log_metrics(run_id, figures | dict(record.get("metrics") or {}))

    def _log_inputs(self, run_id: str, record: Mapping[str, Any], folder: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for role, parent in (record.get("parents") or {}).items():
            if parent["step"] in _DATA_STEPS:
                place = folder.parent.parent / parent["step"] / parent["fingerprint"]
                source, profile = json.dumps({"uri": str(place)}), json.dumps({"content": parent.get("content")})
                data = Dataset(parent["step"], parent["fingerprint"], "local", source, None, profile)
                inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", role)]))
        if inputs:
            self.tracker.client.log_inputs(run_id, inputs)

    def _log_history(self, run_id: str, path: Path) -> None:
        if path.is_file():
            from tasks.adapters import tables

            rows = [(row["name"], row["epoch"], row["value"]) for row in tables.read(path)]
            self.tracker.log_points(run_id, [row for row in rows if row[:2] not in self._live])

    def _log_files(self, run_id: str, folder: Path) -> int:
        """Upload the artifact's smaller files and return how many were left out."""
        left_out = 0
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            if path.suffix in _UPLOADED and path.stat().st_size <= UPLOAD_LIMIT:
                inside = path.relative_to(folder).parent
                self.tracker.client.log_artifact(run_id, str(path), None if inside == Path() else str(inside))
            else:
                left_out += 1
        return left_out


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested values into `{"stage_one.audio.hop": "160"}`; what is no mapping becomes JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _estimates(values: Mapping[str, Any]) -> dict[str, float]:
    """Turn `{"name": {"value", "low", "high"}}` into figures `name`, `name.low`, `name.high`; others are left out."""
    figures: dict[str, float] = {}
    for name, estimate in values.items():
        if isinstance(estimate, int | float):
            figures[name] = estimate
        elif isinstance(estimate, Mapping) and estimate.get("value") is not None:
            figures[name] = estimate["value"]
            figures |= {f"{name}.{end}": estimate[end] for end in ("low", "high") if estimate.get(end) is not None}
    return figures


def mlflow_name(text: str) -> str:
    """Return a name that MLflow accepts: `ciou@0.3` becomes `ciou_at_0.3`, other signs an underscore."""
    return re.sub(r"[^\w\-./ ]", "_", text.replace("@", "_at_"))[:_KEY_LENGTH]


def _cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {mlflow_name(key): str(text)[:_TAG_LENGTH] for key, text in tags.items()}
