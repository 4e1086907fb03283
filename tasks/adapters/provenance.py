"""How an artifact came about: which code, on which machine, how long, with how much memory."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dsol_core import __version__


class Peak:
    """Seconds and the largest private memory of this process and its children, sampled twice a second.

    Attributes:
        began: seconds since the epoch.
        seconds: of the block, once it has ended.
        bytes: largest memory seen.
    """

    def __enter__(self) -> Peak:
        self.began, self._clock, self.bytes = time.time(), time.perf_counter(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._clock

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while True:
            total = shared = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    memory = process.memory_info()
                except psutil.Error:  # it ended between the two calls
                    continue
                total += memory.rss - memory.shared
                shared = max(shared, memory.shared)
            self.bytes = max(self.bytes, total + shared)
            if self._stop.wait(0.5):
                return


@cache
def provenance() -> dict[str, Any]:
    """Return which code on which machine: version, commit, constraints, Python, cores, memory."""
    import psutil

    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        except OSError:  # no git on this machine
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    constraints = root / "constraints.txt"
    ours = git("rev-parse", "--show-toplevel") == str(root)  # not a repository that merely holds our environment
    changed = git("status", "--porcelain", "--untracked-files=no") if ours else None
    return {
        "version": __version__,
        "commit": git("rev-parse", "HEAD") if ours else None,
        "dirty": bool(changed) if changed is not None else None,
        "constraints": hashlib.sha256(constraints.read_bytes()).hexdigest()[:16] if constraints.is_file() else None,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
    }


def told(made: Mapping[str, Any], accelerator: str | None = None) -> str:
    """Return what a page says of a `provenance`: commit, cores, memory, accelerator where given, and Python."""
    commit = f"{(made['commit'] or 'unknown')[:12]}{' with uncommitted changes' if made['dirty'] else ''}"
    cores = "1 core" if made["cores"] == 1 else f"{made['cores']} cores"
    machine = [cores, f"{made['memory_bytes'] / 2**30:.0f} GiB", *([accelerator] if accelerator else [])]
    return f"Commit {commit}; {', '.join(machine)}, Python {made['python']}."
