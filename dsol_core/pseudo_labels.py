"""Pseudo-labels of stage one and the object dictionary, wherever the features lie (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dsol_core import clustering, clustering_parts, dictionary
from dsol_core.config import DictionaryConfig, StageOneConfig
from dsol_core.dictionary import KMeans, ObjectDictionary, PseudoLabels
from dsol_core.stage_one_net import StageOneNet
from dsol_core.types import DataError, Worker

Rows = tuple[list[str], *tuple[Any, ...]]


def cluster_rows(
    rows: Rows,
    videos: dict[str, str],
    config: StageOneConfig,
    seed: int,
    worker: Worker,
    kmeans: KMeans,
    *,
    bare: bool = False,
) -> tuple[list[str], Any, Any]:
    """Cluster the rows of all workers, gathered on one or where they are, as `config.kmeans` says.

    Called on all workers alike; see `clustering_parts.distributed_clusters` for arguments and result.
    """
    if config.kmeans == "distributed":
        return clustering_parts.distributed_clusters(rows, videos, config, seed, worker, bare=bare)
    return clustering.gathered_clusters(rows, videos, config, seed, worker, kmeans, bare=bare)


def nearest(
    centers: Any, rows: Rows, videos: Mapping[str, str], config: StageOneConfig, worker: Worker
) -> tuple[list[str], Any]:
    """Find for what gets one label (a video, or a clip) the center at the smallest angle; called on all workers alike.

    Args:
        centers: [K, D].
        rows: keys (n) and object features [n, D] of this worker's rows.
        videos: video of each of these keys.
        config: of the stage.
        worker: joins the workers.

    Returns:
        On every worker: all keys, sorted, and their centers, int64 [N].
    """
    keys, features = rows
    names = clustering_parts.unit_names(keys, videos, config)
    owned, (means,) = clustering_parts.own_units(names, [clustering.unit_rows(features)], worker)
    found = (clustering.unit_rows(means) @ clustering.unit_rows(centers).T).argmax(1)
    mine = clustering_parts.labels_of_rows(names, owned, found, worker)
    return clustering_parts.rows_of_all(keys, mine, worker)


def fit_dictionary(
    net: StageOneNet,
    data: clustering.TrainingData,
    config: DictionaryConfig,
    kmeans: KMeans,
    seed: int,
    worker: Worker,
) -> tuple[ObjectDictionary, PseudoLabels]:
    """Build the object dictionary of a trained stage one and tell each training sample's entry.

    Args:
        net: the trained network; its `kmeans` says whether the features leave their workers.
        data: this worker's part of the training set.
        config: which space; final weights (`recompute`) or the centers of the last clustering (code), which with the
            matching "tokens" are the tokens.
        kmeans: clusters.
        seed: of the clustering.
        worker: joins the workers; all of them call this alike and get the same.

    Raises:
        DataError: `recompute` is off and the last clustering was done in the other space, or there was none.
    """
    space = config.space
    own = space == net.config.cluster_space
    stage = replace(net.config, cluster_space=space)
    if not config.recompute and not own:
        raise DataError(f"the last clustering was not done in dictionary.space {space!r}; set recompute: true")
    learnt = net.prototypes.detach() if net.config.matching == "tokens" else net.centers
    clustered = bool(learnt.any())
    if not clustered and (net.config.first_labels == "none" or not config.recompute):
        raise DataError(
            "stage one never clustered what it learnt (its centers are all zero); train it for more epochs than "
            f"stage_one.first_clustering = {net.config.first_clustering}, or lower that"
        )
    videos: dict[str, str] = {}
    rows = clustering.object_features(net, clustering.noting_videos(data.sequential(), videos), stage)
    if not config.recompute:
        centers = learnt.cpu().numpy()
        keys, clusters = nearest(centers, rows, videos, stage, worker)
        centers = clustering.unit_rows(centers) if space == "joint" else centers
    else:
        keys, centers, clusters = cluster_rows(rows, videos, stage, seed, worker, kmeans)
        prototypes = space == "joint" and net.prototypes.requires_grad  # first labels alone train them too
        if own and (clustered or prototypes):  # keep the numbers that the heads have learnt
            known = learnt if clustered else net.prototypes.detach()
            _, old = nearest(known.cpu().numpy(), rows, videos, stage, worker)
            moved = dictionary.align(clusters, old, stage.clusters)
            centers, clusters = centers[np.argsort(moved)], moved[clusters]
    names = tuple(f"cluster-{i:02d}" for i in range(len(centers)))
    counts = np.bincount(clusters, minlength=len(centers))
    return ObjectDictionary(centers, counts, names), PseudoLabels(tuple(keys), clusters.astype(np.int64))
