"""The object dictionary: shards + stage one -> dictionary.safetensors, clusters.parquet, summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dsol_core.config import DictionaryConfig
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from dsol_core.dictionary import ObjectDictionary, PseudoLabels


@step
def build_dictionary(
    run: Run, clips: Artifact, shards: Artifact, stage_one: Artifact, config: DictionaryConfig, seed: int
) -> Artifact:
    """Cluster the objects of the training clips; where labels exist, tell which category each entry stands for.

    Args:
        run: store and cluster.
        clips: their categories, where there are any, name the entries and measure them; nothing is learnt from them.
        shards: of `write_shards`.
        stage_one: describes the objects.
        config: of the dictionary.
        seed: of the clustering.
    """

    def write(out: StepOutput) -> None:
        from dsol_core import checkpoint
        from dsol_core import clustering as method
        from dsol_core.stage_one_net import StageOneNet
        from tasks.adapters import features, tables
        from tasks.adapters.faiss_kmeans import FaissKMeans
        from tasks.adapters.inputs import Recipe
        from tasks.adapters.loader import Loader
        from tasks.adapters.store import write_json

        net = checkpoint.load(stage_one.file("model.safetensors")).network()
        assert isinstance(net, StageOneNet)
        source = features.trunk_features(run, shards, net.config, "solos")
        loader = Loader(source.folder, ["solo"], Recipe.stage_one(net.config, seed))
        kmeans = FaissKMeans()
        made, found = method.fit_dictionary(net, loader, config, kmeans, seed)
        known = {one.id: one.categories[0] for one in tables.clips(clips.file("clips.parquet")) if one.categories}
        made, summary = with_labels(made, found, known)
        if summary["labelled"]:
            out.metrics({name: summary[name] for name in ("nmi", "purity")})
        checkpoint.save_dictionary(out.folder / "dictionary.safetensors", made)
        rows = ({"key": key, "cluster": int(one)} for key, one in zip(found.keys, found.clusters, strict=True))
        tables.write(out.folder / "clusters.parquet", "clusters", rows)
        write_json(out.folder / "summary.json", {"clustering": kmeans.device, **summary})
        out.note(clustering=kmeans.device, entries=len(made.centers))
        lost = loader.reader.expected - len(found.keys)
        out.rows(read=loader.reader.expected, written=len(found.keys), dropped={"damaged": lost} if lost else {})

    parents = {"clips": clips, "shards": shards, "stage_one": stage_one}
    return run.step("build_dictionary", config, parents, write, seed=seed)


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
