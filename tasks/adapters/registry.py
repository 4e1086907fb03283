"""Registered models in MLflow: register a version, find out who holds an alias, load one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.adapters.tracking import Tracker, load_mlflow
from tasks.adapters.tracking_store import TrackingError, reachable, without_password


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        model: registered model.
        number: of the version.
        run_id: run that registered it.
        source: where its files lie.
        tags: its tags.
    """

    model: str
    number: str
    run_id: str
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The address under which MLflow loads it."""
        return f"models:/{self.model}/{self.number}"


class Registry:
    """The model registry of a tracker's store."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.client = tracker, tracker.client

    def register(self, run_id: str, model: str, write: Callable[[Path, Any], None], tags: Mapping[str, str]) -> Version:
        """Log a model's folder and register it as a new version of `model`.

        Args:
            run_id: run it belongs to.
            model: registered model; created if new.
            write: fills the folder; takes it and the `mlflow.models.Model` that describes it.
            tags: of the version.

        Raises:
            TrackingError: the store cannot be reached, or refuses.
        """
        with self._explained(f"did not register {model}"):
            logged = self.client.create_logged_model(self.tracker.experiment_id, name=model, source_run_id=run_id)
            place = logged.artifact_location
            described = load_mlflow().models.Model(
                artifact_path=place, run_id=run_id, model_uuid=logged.model_id, model_id=logged.model_id
            )
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "model"
                write(folder, described)
                for cache in list(folder.rglob("__pycache__")):
                    shutil.rmtree(cache)
                self.client.log_model_artifacts(logged.model_id, str(folder))
            self.client.finalize_logged_model(logged.model_id, "READY")
            if not self._exists(model):
                self.client.create_registered_model(model, description="Class-aware sounding-object localiser")
            made = self.client.create_model_version(model, place, run_id, tags=dict(tags), model_id=logged.model_id)
        return Version(model, str(made.version), run_id, place, dict(tags))

    def holder(self, model: str, alias: str) -> Version | None:
        """Return the version that an alias points to, or None.

        Raises:
            TrackingError: the store cannot be reached.
        """
        with self._explained(f"does not tell who holds {model}@{alias}"):
            if not self._exists(model) or alias not in self.client.get_registered_model(model).aliases:
                return None
            found = self.client.get_model_version_by_alias(model, alias)
            return Version(model, str(found.version), found.run_id, found.source, dict(found.tags))

    def point(self, alias: str, version: Version) -> None:
        """Let an alias point to a version.

        Raises:
            TrackingError: the store cannot be reached.
        """
        with self._explained(f"did not move {version.model}@{alias}"):
            self.client.set_registered_model_alias(version.model, alias, version.number)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Add tags to a version.

        Raises:
            TrackingError: the store cannot be reached.
        """
        with self._explained(f"did not tag {version.uri}"):
            for key, text in tags.items():
                self.client.set_model_version_tag(version.model, version.number, key, text)

    def _exists(self, model: str) -> bool:
        return any(one.name == model for one in self.client.search_registered_models(f"name = '{model}'"))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (load_mlflow().exceptions.MlflowException, OSError) as error:
            place = without_password(self.tracker.uri)
            hint = "the artifacts are safe: run the same command again when it is back"
            raise TrackingError(f"MLflow at {place} {what} ({error}); {hint}") from error


def load_model(uri: str, model: str) -> Any:
    """Load a registered model as an `mlflow.pyfunc.PyFuncModel`; it executes the Python code stored with the model.

    Args:
        uri: tracking URI.
        model: "models:/<name>@<alias>" or "models:/<name>/<version>".

    Raises:
        TrackingError: there is no such model, or no such store.
    """
    if problem := reachable(uri):
        raise TrackingError(f"MLflow: {problem}; start the server or correct MLFLOW_TRACKING_URI")
    mlflow = load_mlflow()
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # the only way to load by "models:/"; it also sets the environment variable
    try:
        return mlflow.pyfunc.load_model(model)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        place = without_password(uri)
        raise TrackingError(f"{model} cannot be loaded from MLflow at {place} ({error}); see its registry") from error
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def write_pyfunc(
    folder: Path,
    described: Any,
    *,
    code: Path,
    files: Mapping[str, Path],
    packages: list[Path],
    requirements: list[str],
    example: Mapping[str, Any],
    outputs: Mapping[str, tuple[str, tuple[int, ...]]],
    metadata: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Write an MLflow model as code and data files: nothing in it is pickled.

    Args:
        folder: to fill.
        described: the `mlflow.models.Model` to complete.
        code: Python file that ends with `set_model(...)`.
        files: data files by the name under which the code finds them.
        packages: folders of Python packages to store beside the code.
        requirements: names of the libraries it needs.
        example: input arrays by name; their first axis is N, every axis but the last of a picture is free.
        outputs: name -> (dtype, shape with -1 for free axes).
        metadata: JSON values that a user of the model can read.
        settings: JSON values that the code can read, as `context.model_config`.
    """
    mlflow = load_mlflow()
    tensor, schema = mlflow.types.TensorSpec, mlflow.types.Schema
    taken = [tensor(array.dtype, _free(array.shape), name) for name, array in example.items()]
    given = [tensor(np.dtype(kind), shape, name) for name, (kind, shape) in outputs.items()]
    mlflow.pyfunc.save_model(
        str(folder),
        mlflow_model=described,
        python_model=str(code),
        artifacts={name: str(path) for name, path in files.items()},
        code_paths=[str(package) for package in packages],
        pip_requirements=requirements,
        signature=mlflow.models.ModelSignature(inputs=schema(taken), outputs=schema(given)),
        input_example=dict(example),
        metadata=dict(metadata),
        model_config=dict(settings),
    )


def _free(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a signature's shape: all axes free but the 3 colours of a picture."""
    return (*([-1] * (len(shape) - 1)), 3 if len(shape) == 4 else -1)
