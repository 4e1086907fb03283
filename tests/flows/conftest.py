"""Real servers on loopback, and one smoke run that several tests look at."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows.servers import BIN, answers, dsol, free_port, wait_for


@pytest.fixture(scope="session")
def quiet_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a Prefect home of its own and no servers."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PREFECT_API_URL", "MLFLOW_TRACKING_URI"}}
    return {**kept, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def prefect_server(quiet_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A real `prefect server start`; yields the environment of its clients."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    server = subprocess.Popen(
        [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=quiet_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(f"{api}/health"), 90, describe="the start of the Prefect server")
        yield {**quiet_environment, "PREFECT_API_URL": api}
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, quiet_environment: dict[str, str]) -> dict[str, Any]:
    """The summary of `dsol run smoke` on a new store, without servers."""
    store = tmp_path_factory.mktemp("smoke") / "store"
    return dsol("run", "smoke", "--store", str(store), env=quiet_environment)
