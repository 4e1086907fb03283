"""A real Ray cluster of several nodes on this machine, each with a working folder and a cache of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil

from tests.flows.servers import BIN, ROOT, free_port, wait_for


class Nodes:
    """Nodes by name; the first one is the head. A context: all of them end with it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Prepare; `folder` holds the nodes' folders, `environment` is what all of them get."""
        self.folder, self._processes = folder, {}
        token = folder / "token"
        token.write_text("t" * 64)
        token.chmod(0o600)
        safe = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        self._environment = {**os.environ, **environment, **safe, "PYTHONPATH": _python_path(), "OMP_NUM_THREADS": "1"}
        self.address = f"127.0.0.1:{free_port()}"
        self._processes: dict[str, subprocess.Popen[bytes]]

    def environment(self, name: str) -> dict[str, str]:
        """What a node, or a driver on a machine of this name, has in its environment."""
        return {**self._environment, "DSOL_CACHE": str(self.folder / name / "cache")}

    def add(self, name: str, cpus: int) -> None:
        """Start a node."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        port = self.address.rpartition(":")[2]
        head = ["--head", "--port", port, "--include-dashboard", "false", "--ray-client-server-port", str(free_port())]
        words = head if not self._processes else ["--address", self.address]
        log = place / "log"
        self._processes[name] = subprocess.Popen(
            [BIN / "ray", "start", "--block", "--num-cpus", str(cpus), *words],
            cwd=place,
            env=self.environment(name),
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_for(lambda: "Ray runtime started" in log.read_text(), 120, describe=f"the start of the node {name}")

    def trainers(self, name: str) -> list[psutil.Process]:
        """Return the processes of a node that train."""
        return [one for one in self._below(name) if "RayTrainWorker" in " ".join(_words(one))]

    def kill(self, name: str) -> None:
        """End a node as a power cut does: every process of it, at once."""
        for one in [*self._below(name), psutil.Process(self._processes[name].pid)]:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        self._processes.pop(name).wait(30)

    def _below(self, name: str) -> list[psutil.Process]:
        return psutil.Process(self._processes[name].pid).children(recursive=True)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._processes)):
            process = self._processes[name]
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill(name)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
