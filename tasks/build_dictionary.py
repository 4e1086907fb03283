"""The object dictionary: shards + stage one -> dictionary.safetensors, clusters.parquet, summary.json."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsol_core.config import DictionaryConfig
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from dsol_core.dictionary import ObjectDictionary, PseudoLabels
    from dsol_core.stage_one_net import StageOneNet
    from tasks.adapters.trainer import TrainWorker

DICTIONARY, CLUSTERS, CLUSTERED_ON = "dictionary.safetensors", "clusters.parquet", "clustered-on.txt"


@step
def build_dictionary(
    run: Run, clips: Artifact, shards: Artifact, stage_one: Artifact, config: DictionaryConfig, seed: int
) -> Artifact:
    """Cluster the objects of the training clips; where labels exist, tell which category each entry stands for.

    Args:
        run: store and cluster; several workers, or GPUs, share the clips.
        clips: their categories, where there are any, name the entries and measure them; nothing is learnt from them.
        shards: of `write_shards`.
        stage_one: describes the objects.
        config: of the dictionary.
        seed: of the clustering.
    """

    def write(out: StepOutput) -> None:
        from dsol_core import checkpoint
        from dsol_core.dictionary import PseudoLabels
        from tasks.adapters import features, tables, trainer, training
        from tasks.adapters.inputs import Recipe
        from tasks.adapters.loader import Loader
        from tasks.adapters.store import write_json

        model = stage_one.file("model.safetensors")
        config_one = _network(model).config
        source = features.trunk_features(run, shards, config_one, "solos")
        several = run.compute.workers > 1 or run.compute.gpu  # alone, this process does it as well
        made_in = trainer.fit(
            _loop,
            {"model": model, "shards": source.folder, "config": config, "seed": seed},
            compute=run.compute if several else replace(run.compute, workers=0),
            name="dictionary",
            storage=out.work,
            on_message=training.listen(out),
        )
        clustering = (made_in / CLUSTERED_ON).read_text()
        made = checkpoint.load_dictionary(made_in / DICTIONARY)
        rows = list(tables.read(made_in / CLUSTERS))
        found = PseudoLabels(tuple(row["key"] for row in rows), [row["cluster"] for row in rows])
        known = {one.id: one.categories[0] for one in tables.clips(clips.file("clips.parquet")) if one.categories}
        made, summary = with_labels(made, found, known)
        if summary["labelled"]:
            out.metrics({name: summary[name] for name in ("nmi", "purity")})
        checkpoint.save_dictionary(out.folder / DICTIONARY, made)
        shutil.copy(made_in / CLUSTERS, out.folder / CLUSTERS)
        write_json(out.folder / "summary.json", {"clustering": clustering, **summary})
        out.note(clustering=clustering, entries=len(made.centers))
        expected = Loader(source.folder, ["solo"], Recipe.stage_one(config_one, seed)).reader.expected
        lost = expected - len(found.keys)
        out.rows(read=expected, written=len(found.keys), dropped={"damaged": lost} if lost else {})

    parents = {"clips": clips, "shards": shards, "stage_one": stage_one}
    return run.step("build_dictionary", config, parents, write, seed=seed)


def _loop(settings: dict[str, Any], worker: TrainWorker) -> None:
    """Describe one worker's part of the clips, and cluster those of all."""
    from dsol_core import checkpoint, pseudo_labels
    from tasks.adapters import tables, training
    from tasks.adapters.faiss_kmeans import FaissKMeans
    from tasks.adapters.inputs import Recipe
    from tasks.adapters.loader import Loader

    with worker.resume() as last:
        if last:
            return
    seed, kmeans = settings["seed"], FaissKMeans()
    net = _network(settings["model"]).to(worker.device)
    loader = Loader(settings["shards"], ["solo"], Recipe.stage_one(net.config, seed), worker)
    data = training.Watched(loader, worker, 1, loader.steps)
    made, found = pseudo_labels.fit_dictionary(net, data, settings["config"], kmeans, seed, worker)

    def save(folder: Path) -> None:
        checkpoint.save_dictionary(folder / DICTIONARY, made)
        (folder / CLUSTERED_ON).write_text(kmeans.device or f"{worker.world_size} workers")
        rows = ({"key": key, "cluster": int(one)} for key, one in zip(found.keys, found.clusters, strict=True))
        tables.write(folder / CLUSTERS, "clusters", rows)

    worker.report(0, {}, save)


def _network(path: Path) -> StageOneNet:
    from dsol_core import checkpoint
    from dsol_core.stage_one_net import StageOneNet

    net = checkpoint.load(path).network()
    assert isinstance(net, StageOneNet)
    return net


def with_labels(
    made: ObjectDictionary, found: PseudoLabels, known: Mapping[str, str]
) -> tuple[ObjectDictionary, dict[str, Any]]:
    """Compare the clusters with the labels of those clips that have one.

    Args:
        made: without categories.
        found: cluster of each clip.
        known: category of some of the clips.

    Returns:
        The dictionary, with categories where any clip has a label, and the summary: "labelled" is the share of the
        clips that "nmi", "purity" and "entries" are measured on; they are None without labels.
    """
    import numpy as np

    from dsol_core import agreement, dictionary

    labelled = [place for place, key in enumerate(found.keys) if key in known]
    summary: dict[str, Any] = {"labelled": len(labelled) / max(1, len(found.keys))}
    if not labelled:
        return made, {**summary, "nmi": None, "purity": None, "entries": None}
    labels, clusters = [known[found.keys[place]] for place in labelled], np.asarray(found.clusters)[labelled]
    made = replace(made, categories=dictionary.assign_categories(clusters, labels, len(made.centers)))
    summary |= {"nmi": agreement.nmi(clusters, labels), "purity": agreement.purity(clusters, labels)}
    return made, {**summary, "entries": _entries(made.names, made.categories, clusters, labels)}


def _entries(
    names: tuple[str, ...], categories: tuple[str, ...] | None, clusters: object, labels: list[str]
) -> list[dict[str, object]]:
    """Return category and, of each entry's labelled clips, number and purity."""
    import numpy as np

    of, labelled = np.asarray(clusters), np.asarray(labels)
    rows: list[dict[str, object]] = []
    for number, name in enumerate(names):
        inside = labelled[of == number]
        most = float((inside[:, None] == np.unique(inside)[None]).sum(0).max() / len(inside)) if len(inside) else None
        category = categories[number] if categories else None
        rows.append({"entry": name, "category": category, "samples": len(inside), "purity": most})
    return rows
