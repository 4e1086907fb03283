"""Where a measurement was made, as one line of its page."""

from __future__ import annotations

import torch

from tasks.adapters.provenance import provenance


def line(accelerator: str | None = None) -> str:
    """Return commit, cores, memory, accelerator (default: what torch finds) and Python."""
    made = provenance()
    commit = f"{(made['commit'] or 'unknown')[:12]}{' with uncommitted changes' if made['dirty'] else ''}"
    memory = made["memory_bytes"] / 2**30
    accelerator = accelerator or (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    cores = "1 core" if made["cores"] == 1 else f"{made['cores']} cores"
    return f"Commit {commit}; {cores}, {memory:.0f} GiB, {accelerator}, Python {made['python']}."


def cores() -> int:
    """Return how many cores this process may use."""
    return int(provenance()["cores"])


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return int(provenance()["memory_bytes"])
