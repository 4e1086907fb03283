"""Seconds of a run that has nothing to do, without a Prefect server and against a running one.

    python benchmarks/rerun.py demo --store runs --out docs/results/rerun.md

The store must hold a finished run of the preset. Each is measured three times; wall time of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"no server": 20.0, "running server": 6.0}  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "flows.cli", "run", arguments.preset, "--store", str(arguments.store), "--json"]
    alone = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    measured = {"no server": [seconds(command, alone) for _ in range(3)]}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    server = subprocess.Popen(prefect, env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not answers(f"{api}/health"):
            time.sleep(0.5)
        measured["running server"] = [seconds(command, {**alone, "PREFECT_API_URL": api}) for _ in range(3)]
    finally:
        server.terminate()
        server.wait()
    lines = ["# A run that has nothing to do", "", f"    python benchmarks/rerun.py {arguments.preset}", ""]
    lines += [machine.line(), ""]
    lines += ["| Prefect | median, s | single runs, s | target, s |", "| --- | --- | --- | --- |"]
    for name, values in measured.items():
        single = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {statistics.median(values):.1f} | {single} | <= {TARGETS[name]:.0f} |")
    text = "\n".join([*lines, ""])
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    print(text)


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Run the command and return its wall time; it must reuse every step."""
    began = time.perf_counter()
    answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    took = time.perf_counter() - began
    built = [one["name"] for one in json.loads(answer.stdout)["steps"] if one["state"] != "reused"]
    if built:
        sys.exit(f"{', '.join(built)} were not reused; run the preset first")
    return took


def answers(url: str) -> bool:
    """Tell whether a server answers."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


if __name__ == "__main__":
    main()
