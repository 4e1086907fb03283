"""Stage two: shards + stage one + dictionary -> model.safetensors, history.parquet."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from dsol_core.config import StageTwoConfig
from tasks.adapters.fingerprints import fingerprint
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from tasks.adapters.trainer import TrainWorker

STEP = "train_stage_two"


@step
def train_stage_two(
    run: Run, shards: Artifact, stage_one: Artifact, dictionary: Artifact, config: StageTwoConfig, seed: int
) -> Artifact:
    """Match the audio's and the image's category distributions in cocktail-party scenes, in Ray Train.

    Args:
        run: store and cluster.
        shards: of `write_shards`; their solo training clips and grid and multi training scenes are used, no labels.
        stage_one: gives the first weights and the frozen teacher.
        dictionary: of objects; stays fixed. Its entry of each solo clip is what the practice in hearing learns.
        config: of the stage. Settings that only read the network (`stage_two.trained`) train nothing anew where the
            store has weights that were trained alike.
        seed: of order and augmentation.
    """
    parents = {"shards": shards, "stage_one": stage_one, "dictionary": dictionary}

    def write(out: StepOutput) -> None:
        from dsol_core import checkpoint, stage_two
        from tasks.adapters import features, trainer, training
        from tasks.adapters.inputs import Recipe
        from tasks.adapters.loader import Loader

        weights = fingerprint(STEP, stage_two.trained(config), parents, seed)
        out.note(weights=weights)
        if twin := trained_alike(run, weights):
            _read_anew(out, twin, config)
            return
        first = checkpoint.load(stage_one.file("model.safetensors")).stage_one
        recipe = Recipe.stage_two(config, first, seed)
        solos = None
        if config.hearing_passes:  # features come with log-mels only
            waves = config.hearing_mixing == "waveform"
            solos = shards if waves else features.trunk_features(run, shards, first, "solos")
        scenes = features.trunk_features(run, shards, first, "scenes") if config.epochs else None
        read: list[tuple[Artifact | None, list[str]]] = [(solos, ["solo"]), (scenes, list(config.subsets))]
        used = [(source, subsets) for source, subsets in read if source is not None]
        last = trainer.fit(
            _loop,
            {
                "config": config,
                "recipe": recipe,
                "solos": solos and solos.folder,
                "scenes": scenes and scenes.folder,
                "stage_one": stage_one.file("model.safetensors"),
                "dictionary": dictionary.file("dictionary.safetensors"),
                "clusters": dictionary.file("clusters.parquet"),
                "seed": seed,
            },
            compute=run.compute,
            name="stage-two",
            storage=out.work,
            on_message=training.listen(out),
        )
        training.adopt(out, last)
        samples = sum(Loader(source.folder, subsets, recipe).reader.expected for source, subsets in used)
        training.count(out, [source for source, _ in used], out.record["notes"].get("damaged", 0), samples)

    return run.step(STEP, config, parents, write, seed=seed)


def trained_alike(run: Run, weights: str) -> Artifact | None:
    """Return an artifact whose note `weights` is this one, unless the user asked for the training itself (--force).

    One that was trained goes before one that took its weights from another: the other may have been trained again.

    Args:
        run: its store is looked through.
        weights: fingerprint of all that the weights depend on.
    """
    if STEP in run.scope.force:
        return None
    found = [run.store.find(STEP, mark) for mark in run.store.marks(STEP)]
    alike = [one for one in found if one and one.record.get("notes", {}).get("weights") == weights]
    return min(alike, key=lambda one: "trained_as" in one.record["notes"], default=None)


def _read_anew(out: StepOutput, twin: Artifact, config: StageTwoConfig) -> None:
    """Fill a step's artifact with the weights, history and figures of another, under another config."""
    from dsol_core import checkpoint
    from tasks.adapters.training import MODEL

    net = checkpoint.load(twin.file(MODEL)).network()
    net.config = config
    checkpoint.save(out.folder / MODEL, net, config)
    shutil.copy(twin.file("history.parquet"), out.folder / "history.parquet")
    for key in ("rows", "metrics", "notes"):
        out.record[key] = dict(twin.record[key])
    if "trained_as" not in out.record["notes"]:
        made = {"compute": twin.record["compute"], "seconds": twin.record["seconds"]}
        out.note(trained_as=twin.fingerprint, trained_content=twin.content, trained_with=made)


def _loop(settings: dict[str, Any], worker: TrainWorker) -> None:
    """Train on one worker."""
    from dsol_core import checkpoint, stage_two
    from dsol_core.stage_one_net import StageOneNet
    from tasks.adapters import tables, training
    from tasks.adapters.inputs import Recipe
    from tasks.adapters.loader import Loader

    config: StageTwoConfig = settings["config"]
    recipe: Recipe = settings["recipe"]
    scenes = Loader(settings["scenes"], list(config.subsets), recipe, worker) if settings["scenes"] else None
    solos = Loader(settings["solos"], ["solo"], recipe.hearing(config), worker) if settings["solos"] else None
    net = checkpoint.load(settings["stage_one"]).network()
    assert isinstance(net, StageOneNet)
    known = checkpoint.load_dictionary(settings["dictionary"])
    epochs = config.hearing_passes + config.epochs
    steps = scenes.steps * config.epochs if scenes else 0
    state = stage_two.start(config, net, known, steps, settings["seed"], worker)
    data = training.Watched(scenes, worker, epochs, scenes.steps) if scenes else None
    practice = None
    if solos:
        entries = {row["key"]: row["cluster"] for row in tables.read(settings["clusters"])}
        practice = stage_two.Practice(training.Watched(solos, worker, epochs, solos.steps), entries, solos.steps)
    training.run_epochs(
        state,
        epochs,
        worker,
        lambda: stage_two.train_epoch(state, data, worker, practice),
        lambda path: checkpoint.save(path, state.net, config),
    )
    worker.tell({"note": {"damaged": sum(loader.reader.damaged for loader in (scenes, solos) if loader)}})
