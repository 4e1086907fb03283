"""Questions about an MLflow store that need no import of mlflow: where it is, whether it answers, what it holds."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from dsol_core.types import DsolError

logger = logging.getLogger(__name__)


class TrackingError(DsolError):
    """MLflow is needed and cannot be reached, or holds something else than expected."""


def tracking_uri(store: Path) -> str:
    """Return where MLflow keeps its runs: `MLFLOW_TRACKING_URI`, or else a database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.resolve() / 'mlflow.db'}"


def without_password(uri: str) -> str:
    """Return the address without the name and password that it may hold."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def reachable(uri: str, timeout: float = 5.0) -> str | None:
    """Return why the store at `uri` cannot be used, or None; imports nothing and takes at most `timeout` seconds."""
    if uri.startswith("sqlite:///"):
        folder = database(uri).parent
        while not folder.exists():
            folder = folder.parent
        return None if os.access(folder, os.W_OK) else f"{folder} cannot be written to"
    if "://" not in uri or uri.startswith("file:"):
        return f"{uri!r} is a folder, which MLflow no longer tracks in; expected sqlite:///FILE or a server's address"
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(f"{without_password(uri).rstrip('/')}/health", timeout=timeout):
            return None
    except urllib.error.HTTPError:  # it answers; whether it lets us in shows later
        return None
    except (OSError, ValueError) as error:
        return f"{without_password(uri)} does not answer ({error})"


def version_state(uri: str, model: str, version: str, run_id: str) -> bool | None:
    """Tell whether a model version is still in the registry, without importing mlflow.

    Args:
        uri: of the tracking store.
        model: registered model.
        version: of it.
        run_id: run that registered it; another run's version of the same number is another model.

    Returns:
        True or False; None where the registry does not say (a server that is down, a store of another kind).
    """
    if uri.startswith("sqlite:///"):
        return _version_in_database(database(uri), model, version, run_id)
    if not uri.startswith(("http://", "https://")):
        return None
    name = urlencode({"name": model, "version": version})
    request = urllib.request.Request(f"{without_password(uri).rstrip('/')}/api/2.0/mlflow/model-versions/get?{name}")
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            return bool(json.load(answer)["model_version"].get("run_id") == run_id)
    except urllib.error.HTTPError as error:
        return False if error.code == 404 else None
    except (OSError, ValueError, KeyError):
        return None


def _version_in_database(path: Path, model: str, version: str, run_id: str) -> bool | None:
    if not path.is_file():
        return False
    query = "SELECT run_id, current_stage, source FROM model_versions WHERE name = ? AND version = ?"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as database:
            row = database.execute(query, (model, int(version))).fetchone()
    except sqlite3.Error as error:
        logger.warning("%s cannot be asked for %s version %s: %s", path, model, version, error)
        return None
    return row is not None and row[0] == run_id and row[1] != "Deleted_Internal" and Path(row[2]).is_dir()


def database(uri: str) -> Path:
    """Return the file behind a `sqlite:///` address."""
    return Path(uri.removeprefix("sqlite:///"))
