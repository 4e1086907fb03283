"""Where a measurement was made, as one line of its page."""

from __future__ import annotations

from tasks.adapters.provenance import provenance


def line(accelerator: str = "no GPU") -> str:
    """Return commit, cores, memory, accelerator and Python."""
    made = provenance()
    commit = f"{(made['commit'] or 'unknown')[:12]}{' with uncommitted changes' if made['dirty'] else ''}"
    memory = made["memory_bytes"] / 2**30
    return f"Commit {commit}; {made['cores']} cores, {memory:.0f} GiB, {accelerator}, Python {made['python']}."
