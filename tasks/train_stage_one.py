"""Stage one: shards -> model.safetensors, history.parquet."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dsol_core.config import StageOneConfig
from tasks.adapters.fingerprints import sha256
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact
from tasks.adapters.weights import weights_file

if TYPE_CHECKING:
    from tasks.adapters.trainer import TrainWorker

logger = logging.getLogger(__name__)


@step
def train_stage_one(run: Run, shards: Artifact, config: StageOneConfig, seed: int) -> Artifact:
    """Learn audio-visual matching on single-source clips, alternated with clustering, in Ray Train.

    Args:
        run: store and cluster.
        shards: of `write_shards`; their solo training clips are used, no labels.
        config: of the stage.
        seed: of weights, order, augmentation and clustering.
    """
    weights = None if shards.state == "skipped" else weights_file(config.backbone)

    def write(out: StepOutput) -> None:
        from tasks.adapters import features, trainer, training
        from tasks.adapters.inputs import Recipe
        from tasks.adapters.loader import Loader

        source = features.trunk_features(run, shards, config, "solos")
        if weights is None:
            logger.warning(
                "the picture trunk %s trains from random weights (stage_one.backbone.visual_weights is null); to start "
                "from ImageNet's, give their file: --set stage_one.backbone.visual_weights=FILE",
                config.backbone.visual,
            )
        recipe = Recipe.stage_one(config, seed)
        samples = Loader(source.folder, ["solo"], recipe).reader.expected
        last = trainer.fit(
            _loop,
            {"config": config, "recipe": recipe, "shards": source.folder, "weights": weights, "seed": seed},
            compute=run.compute,
            name="stage-one",
            storage=out.work,
            on_message=training.listen(out),
        )
        training.adopt(out, last)
        training.count(out, [source], out.record["notes"].get("damaged", 0), samples)

    named = replace(config, backbone=replace(config.backbone, visual_weights=None))  # weights count by their content
    settings = {"stage_one": named, "weights": sha256(weights) if weights else None}
    return run.step("train_stage_one", settings, {"shards": shards}, write, seed=seed)


def _loop(settings: dict[str, Any], worker: TrainWorker) -> None:
    """Train on one worker."""
    from dsol_core import checkpoint, stage_one
    from tasks.adapters import training
    from tasks.adapters.faiss_kmeans import FaissKMeans
    from tasks.adapters.loader import Loader

    config: StageOneConfig = settings["config"]
    loader = Loader(settings["shards"], ["solo"], settings["recipe"], worker)
    late = max(0, config.epochs - config.first_clustering) * config.classification_passes
    steps = loader.steps * (config.epochs + late)
    state = stage_one.start(config, steps, settings["seed"], worker, settings["weights"])
    data = training.Watched(loader, worker, config.epochs, loader.steps)
    kmeans = FaissKMeans()
    training.run_epochs(
        state,
        config.epochs,
        worker,
        lambda: stage_one.train_epoch(state, data, kmeans, worker),
        lambda path: checkpoint.save(path, state.net, config),
    )
    worker.tell({"note": {"damaged": loader.reader.damaged}})
