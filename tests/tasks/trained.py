"""A store with a tiny, untrained model, published as the training steps would have."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsol_core import checkpoint
from dsol_core.config import AudioConfig, BackboneConfig, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import StageTwoNet, build_stage_two
from tasks.adapters.store import Artifact, Store

CATEGORIES = ("cello", "flute", "cello")
ENTRIES = ("cello", "flute", "cello 2")


@dataclass(frozen=True)
class Trained:
    """The artifacts that register_model and localize read."""

    store: Path
    stage_two: Artifact
    dictionary: Artifact
    metrics: Artifact


def network(seed: int = 0, *, sizes: int = 3) -> tuple[StageTwoNet, ObjectDictionary]:
    """Return stage two with random weights, 32 pixels a side, and its dictionary of `sizes` entries."""
    torch.manual_seed(seed)
    trunk = BackboneConfig(visual="resnet18", visual_weights=None, adapter=8, embedding=16)
    config = StageOneConfig(clusters=sizes, backbone=trunk, image=ImageConfig(side=32), audio=AudioConfig())
    centers = np.random.default_rng(seed).standard_normal((sizes, 16)).astype(np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    names = tuple(f"cluster-{number:02d}" for number in range(sizes))
    made = ObjectDictionary(centers, np.full(sizes, 5), names, CATEGORIES if sizes == 3 else None)
    return build_stage_two(StageTwoConfig(), build_stage_one(config), torch.from_numpy(centers)), made


def publish(
    store: Path,
    *,
    seed: int = 0,
    value: float | None = 0.5,
    test: float | None = 0.5,
    data: str = "data-1",
    clips: dict[str, Any] | None = None,
) -> Trained:
    """Publish stage two, dictionary and metrics of one training.

    Args:
        store: folder.
        seed: another one is another model.
        value: of demo-grid/ciou@0.3 on validation frames; None: not measured.
        test: the same on test frames.
        data: digest of the shards it was trained on.
        clips: configuration in the record of write_shards; None: the shards are not in the store.
    """
    net, made = network(seed)
    step = Store(store).publish

    def write(fill: Callable[[Path], None], parents: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
        def inside(folder: Path) -> dict[str, Any]:
            fill(folder)
            return {"parents": parents, "rows": {}, "metrics": {}, "notes": {}}

        return inside

    def save_metrics(folder: Path) -> None:
        for name, found in (("metrics", test), ("validation", value)):
            known = {"demo-grid/ciou@0.3": {"value": found, "low": 0.4, "high": 0.6, "n": 9}}
            known["demo-grid/auc"] = {"value": 0.3, "low": 0.2, "high": 0.4, "n": 9}
            (folder / f"{name}.json").write_text(json.dumps(known))

    if clips is not None:
        record = store / "write_shards" / ("f" * 16) / "artifact.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"config": clips}))
    mark = f"{seed:016x}"
    dictionary = step(
        "build_dictionary", mark, write(lambda f: checkpoint.save_dictionary(f / "dictionary.safetensors", made), {})
    )
    parents = {
        "shards": {"step": "write_shards", "fingerprint": "f" * 16, "content": data},
        "dictionary": {"step": "build_dictionary", "fingerprint": mark, "content": dictionary.content},
    }
    stage_two = step(
        "train_stage_two",
        mark,
        write(lambda f: checkpoint.save(f / "model.safetensors", net, net.config), parents),
    )
    return Trained(store, stage_two, dictionary, step("evaluate", mark, write(save_metrics, {})))
