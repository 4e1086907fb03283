"""Questions about an MLflow store without mlflow."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tasks.adapters.tracking_store import reachable, tracking_uri, version_state, without_password

RUN = "a" * 32


@pytest.fixture
def server() -> Iterator[str]:
    """A registry that holds version 1 of dsol, wants no password for /health and one for "secret"."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "secret" in self.path:
                self.send_error(401)
            elif "version=1" in self.path:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"model_version": {"run_id": RUN}}).encode())
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_the_embedded_store_lies_in_the_store_unless_a_server_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert tracking_uri(tmp_path) == "http://there"


def test_passwords_are_left_out() -> None:
    assert without_password("https://me:word@host:5000/x") == "https://host:5000/x"
    assert without_password("https://host/x@y") == "https://host/x@y"
    assert without_password("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


def test_a_server_that_answers_anything_is_reachable(server: str) -> None:
    assert reachable(server) is None
    assert "expected sqlite:///FILE" in str(reachable("mlruns"))
    assert "expected sqlite:///FILE" in str(reachable("file:///tmp/mlruns"))
    assert "does not answer" in str(reachable("http://me:word@127.0.0.1:9", 1.0))
    assert "word" not in str(reachable("http://me:word@127.0.0.1:9", 1.0))


def test_versions_of_a_server(server: str) -> None:
    assert version_state(server, "dsol", "1", RUN) is True
    assert version_state(server, "dsol", "1", "b" * 32) is False
    assert version_state(server, "dsol", "2", RUN) is False
    assert version_state(server, "secret", "1", RUN) is None
    assert version_state("http://127.0.0.1:9", "dsol", "1", RUN) is None
    assert version_state("databricks", "dsol", "1", RUN) is None


def test_versions_of_a_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert version_state(uri, "dsol", "1", RUN) is False
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert version_state(uri, "dsol", "1", RUN) is None
        database.execute("CREATE TABLE model_versions (name, version INTEGER, run_id, current_stage, source)")
        rows = [(1, RUN, "None", str(tmp_path)), (2, RUN, "Deleted_Internal", str(tmp_path)), (3, RUN, "None", "/no")]
        database.executemany("INSERT INTO model_versions VALUES ('dsol', ?, ?, ?, ?)", rows)
    database.close()
    assert [version_state(uri, "dsol", version, RUN) for version in "1234"] == [True, False, False, False]
    assert version_state(uri, "dsol", "1", "b" * 32) is False
