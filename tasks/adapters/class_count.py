"""The number of classes of a store's single-source training videos, estimated once without labels and kept."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import Any

from dsol_core.cluster_count import UNITS_A_CLASS
from dsol_core.config import StageOneConfig
from tasks.adapters.fingerprints import sha256
from tasks.adapters.steps import Run, StepOutput
from tasks.adapters.store import Artifact
from tasks.adapters.weights import weights_file

FILE = "class_count.json"

logger = logging.getLogger(__name__)


def class_count(run: Run, shards: Artifact, config: StageOneConfig, seed: int) -> Artifact:
    """Return the artifact that holds the estimate, made where it does not exist yet.

    Args:
        run: store and cluster.
        shards: of `write_shards`; their solo training clips are used, no labels.
        config: front ends, trunk and `cluster_range`.
        seed: of the splits, and of a trunk without weights.
    """
    weights = weights_file(config.backbone)
    built = replace(config, clusters=2)

    def write(out: StepOutput) -> None:
        import torch

        from dsol_core import cluster_count, clustering, shared_space
        from dsol_core.stage_one_net import build_stage_one
        from tasks.adapters import features
        from tasks.adapters.faiss_kmeans import FaissKMeans
        from tasks.adapters.inputs import Recipe
        from tasks.adapters.loader import Loader
        from tasks.adapters.store import write_json

        source = features.trunk_features(run, shards, built, "solos")
        loader = Loader(source.folder, ["solo"], Recipe.stage_one(built, seed))
        out.progress(0, 1, "what is seen and heard")
        videos: dict[str, str] = {}
        rows = clustering.noting_videos(loader.sequential(), videos)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of a trunk without weights
            net = build_stage_one(built, weights)
        keys, *views = clustering.input_features(net, rows)
        units = clustering.places([videos[key] for key in keys], built)
        points = shared_space.shared_space([clustering.averaged(view, units) for view in views])
        low, high = config.cluster_range
        found = cluster_count.estimate(points, range(low, high + 1), FaissKMeans(), seed)
        write_json(out.folder / FILE, asdict(found))
        out.metrics({"classes": found.best, "units": found.units})
        lost = loader.reader.expected - len(keys)
        out.rows(read=loader.reader.expected, written=len(keys), dropped={"damaged": lost} if lost else {})

    relevant = {
        "visual": [config.backbone.visual, config.backbone.visual_stride, config.backbone.visual_stage],
        "weights": sha256(weights) if weights else None,
        "image": config.image,
        "audio": config.audio,
        "unit": config.cluster_unit,
        "range": config.cluster_range,
        "seed": seed,
    }
    return run.cache("class_count", relevant, {"shards": shards}, write, module=__name__)


def resolved(run: Run, shards: Artifact, config: StageOneConfig, seed: int) -> StageOneConfig:
    """Return the configuration with a number of clusters, estimated where it says "auto" (0)."""
    if config.clusters:
        return config
    if shards.state == "skipped" or run.scope.verdict("train_stage_one") == "skip":
        return replace(config, clusters=config.cluster_range[0])  # nothing that follows runs
    found = read(class_count(run, shards, config, seed))
    if found["units"] < UNITS_A_CLASS * config.cluster_range[1]:
        logger.warning("%s", advice(found))
    return replace(config, clusters=found["best"])


def read(artifact: Artifact) -> dict[str, Any]:
    """Return the estimate as a dict of `ClassCount`'s fields."""
    return dict(json.loads(artifact.file(FILE).read_text()))


def advice(found: dict[str, Any]) -> str:
    """Return an estimate in words: the number, what else would do, how far it can be trusted."""
    others = [str(k) for k in found["plausible"] if k != found["best"]]
    also = f" ({', '.join(others)} would do)" if others else ""
    units = found["units"]
    return (
        f"{found['best']} classes{also}, estimated from {units} training units; with fewer than {UNITS_A_CLASS} of "
        f"each class the estimate tends to be too low: with more than {units // UNITS_A_CLASS} classes, give their "
        "number with --set stage_one.clusters=N"
    )
