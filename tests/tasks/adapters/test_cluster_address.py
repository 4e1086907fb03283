"""Joining a real cluster, started with `ray start` in a folder of its own: auto, host:port and ray://."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.servers import BIN, ROOT, free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]

DRIVER = """
import json, sys
from pathlib import Path
from dsol_core.config import Compute
from tasks.adapters import cluster, trainer
from tests.tasks.adapters import test_cluster
compute = Compute(workers=1, address=sys.argv[1])
squares = list(cluster.map_tasks(test_cluster.square, range(4), compute=compute))
last = trainer.fit(
    test_cluster.count_epochs, {"trace": sys.argv[2] + "/trace", "epochs": 2}, compute=compute, name="joined",
    storage=Path(sys.argv[2]) / "work", on_message=lambda message: None,
)
print(json.dumps([squares, json.loads((last / "total.json").read_text())]))
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int, dict[str, str]]]:
    """A head node; yields its port, its client port and the environment of drivers (code on every node: PYTHONPATH)."""
    folder = tmp_path_factory.mktemp("head")
    port, client = free_port(), free_port()
    if 10002 <= client <= 19999:
        client = 9931  # Ray keeps that range for its workers
    token = folder / "token"
    token.write_text("t" * 64)
    token.chmod(0o600)
    safe = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **safe}
    command = [BIN / "ray", "start", "--head", "--block", "--port", str(port), "--ray-client-server-port", str(client)]
    node = subprocess.Popen(
        [*command, "--num-cpus", "2", "--include-dashboard", "false"],
        cwd=folder,
        env=env,
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: "Ray runtime started" in (folder / "log").read_text(), 120, describe="the start of the head")
        yield port, client, env
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(60)


@pytest.mark.parametrize("kind", ["ray://127.0.0.1:{client}", "127.0.0.1:{port}", "auto"])
def test_tasks_and_trainings_run_on_a_joined_cluster(
    head: tuple[int, int, dict[str, str]], tmp_path: Path, kind: str
) -> None:
    port, client, env = head
    address = kind.format(port=port, client=client)
    answer = subprocess.run(
        [sys.executable, "-c", DRIVER, address, str(tmp_path)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert json.loads(answer.stdout.splitlines()[-1]) == [[0, 1, 4, 9], 2]
