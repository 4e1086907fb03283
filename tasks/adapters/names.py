"""Names that a user gives to the entries of a dictionary learnt without labels: `STORE/names/<fingerprint>.json`.

They lie beside the artifacts, not inside, because an artifact never changes; steps that show names take them as
configuration, so that naming reruns exactly those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dsol_core.types import UsageError
from tasks.adapters.store import RECORD, Artifact, write_json


def given_names(dictionary: Artifact) -> dict[str, str]:
    """Return the user's names by entry, for example {"cluster-03": "cello"}; empty when none are given."""
    if dictionary.state == "skipped":
        return {}
    path = _place(dictionary.folder)
    return dict(json.loads(path.read_text())) if path.exists() else {}


def give_names(dictionary: Path, names: Mapping[str, str]) -> dict[str, str]:
    """Add names to those given before and return all of them; an empty name takes one back.

    Args:
        dictionary: folder of a `build_dictionary` artifact, or its dictionary.safetensors.
        names: entry -> name.

    Raises:
        UsageError: the folder holds no dictionary, or it has no such entry.
    """
    from dsol_core.checkpoint import load_dictionary

    folder = dictionary if dictionary.is_dir() else dictionary.parent
    if not (folder / RECORD).exists() or not (folder / "dictionary.safetensors").exists():
        raise UsageError(
            f"{dictionary} is not a dictionary; expected STORE/build_dictionary/FINGERPRINT (`dsol steps`)"
        )
    entries = load_dictionary(folder / "dictionary.safetensors").names
    for entry in names:
        if entry not in entries:
            raise UsageError(f"there is no entry {entry!r}; expected one of {', '.join(entries)}")
    path = _place(folder)
    known = dict(json.loads(path.read_text())) if path.exists() else {}
    merged = {entry: name for entry, name in {**known, **names}.items() if name}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, merged)
    return merged


def _place(folder: Path) -> Path:
    return folder.resolve().parents[1] / "names" / f"{folder.resolve().name}.json"
