"""Where a measurement was made, as one line of its page."""

from __future__ import annotations

import torch

from tasks.adapters.provenance import provenance, told


def line(accelerator: str | None = None) -> str:
    """Return commit, cores, memory, accelerator (default: what torch finds) and Python."""
    return told(provenance(), accelerator or (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"))


def cores() -> int:
    """Return how many cores this process may use."""
    return int(provenance()["cores"])


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return int(provenance()["memory_bytes"])
