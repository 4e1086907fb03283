"""How tests talk to real servers and to the command line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(what: Callable[[], Any], seconds: float, *, every: float = 0.5, describe: str) -> Any:
    """Return the first true answer of `what`, or fail after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(every)
    pytest.fail(f"{describe} did not happen within {seconds:.0f} s")


def get(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or "null")


def answers(url: str) -> bool:
    try:
        get(url)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def dsol(*words: str, env: dict[str, str], timeout: float = 800) -> dict[str, Any]:
    """Run the command line in a process of its own and return its JSON."""
    command = [BIN / "dsol", *words, "--json"]
    answer = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return dict(json.loads(answer.stdout))
