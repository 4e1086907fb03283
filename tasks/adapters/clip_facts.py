"""How the clips were cut that a model was trained on: its record leads to the one of `write_shards`."""

from __future__ import annotations

import json
from typing import Any

from tasks.adapters.store import RECORD, Artifact

UNKNOWN: dict[str, Any] = {"clip_seconds": 1.0, "square": "resize"}  # defaults of ClipsConfig


def clip_facts(stage_two: Artifact) -> dict[str, Any]:
    """Return {"clip_seconds": length of a clip, "square": "resize" or "crop"}, how its pictures became squares.

    Where the shards are no longer in the store, or the folder is a copy outside one, they are those of the defaults.

    Args:
        stage_two: of train_stage_two; without its record where that is unknown.
    """
    parents = stage_two.record.get("parents", {}).values()
    shards = next((one["fingerprint"] for one in parents if one["step"] == "write_shards"), None)
    record = stage_two.folder.parent.parent / "write_shards" / str(shards) / RECORD
    if shards is None or not record.is_file():
        return dict(UNKNOWN)
    config = json.loads(record.read_text()).get("config") or {}
    return {
        "clip_seconds": float(config.get("duration", UNKNOWN["clip_seconds"])),
        "square": str(config.get("square", UNKNOWN["square"])),
    }
