"""Artifacts of a store, and what they were made of."""

from __future__ import annotations

import json

from tasks.adapters.store import Artifact, Store


def found(store: Store, step: str, mark: str) -> Artifact:
    """Return an artifact of the store."""
    one = store.find(step, mark)
    if one is None:
        raise SystemExit(f"{store.root} has no {step} {mark}; `dsol steps --store {store.root}` lists what it has")
    return one


def parent(store: Store, child: Artifact, step: str) -> Artifact:
    """Return the artifact of a step that another one was made of."""
    for one in child.record["parents"].values():
        if one["step"] == step:
            return found(store, step, one["fingerprint"])
    raise SystemExit(f"{child.folder} has no parent {step}: {json.dumps(child.record['parents'])}")
