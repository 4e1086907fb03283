"""The clusterings of stage one with features that stay on their workers (`stage_one.kmeans: distributed`).

What `clustering` does with all features in one place, done with sums: the same features, units and clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsol_core import clustering, kmeans_parts, shared_space
from dsol_core.config import StageOneConfig
from dsol_core.kmeans_parts import Part, WorkerParts
from dsol_core.types import DataError, Worker

AT_ONCE = 1024  # units that travel together, each the sum of a few rows


class UnitPart(Part):
    """The units, videos or clips, that one worker owns, with their bare inputs where these are clustered."""

    def __init__(self, points: Any, ids: Any, views: Sequence[Any] = ()) -> None:
        """See `Part`; views are float [V, D] each."""
        super().__init__(points, ids)
        self.views = [np.asarray(view, np.float64) for view in views]

    def moments(self) -> shared_space.Moments:
        """Sum up the views."""
        return shared_space.moments(self.views)

    def project(self, axes: tuple[shared_space.Axis, shared_space.Axis]) -> None:
        """Let the points be what the views share."""
        self.points = shared_space.project(self.views, axes)


def distributed_clusters(
    rows: tuple[list[str], *tuple[Any, ...]],
    videos: Mapping[str, str],
    config: StageOneConfig,
    seed: int,
    worker: Worker,
    *,
    bare: bool,
) -> tuple[list[str], Any, Any]:
    """Cluster what each worker's own rows show; called on all workers alike.

    Args:
        rows: keys (n) and arrays [n, D] of this worker's rows, of `input_features` or `object_features`.
        videos: video of each of these keys.
        config: of the stage.
        seed: of the clustering.
        worker: joins the workers.
        bare: the arrays are two views of bare inputs, clustered by what they share; else one array of object features.

    Returns:
        On every worker: all keys, sorted; centers [K, D], None if bare; clusters int64 [N] of the keys.

    Raises:
        DataError: there are fewer units than clusters.
    """
    keys, *arrays = rows
    names = unit_names(keys, videos, config)
    prepared = arrays if bare else [clustering.unit_rows(arrays[0])]
    owned, means = own_units(names, prepared, worker)
    count = sum(worker.gather_objects(len(owned)))
    if count < config.clusters:
        raise DataError(clustering.too_few(count, config))
    ids = kmeans_parts.ids_of(owned)
    centers = None
    if bare:
        part = UnitPart(np.zeros((len(owned), 1)), ids, means)
        parts = WorkerParts(part, worker)
        known = shared_space.added(parts.ask("moments"))
        into = shared_space.axes(known, *shared_space.sizes(config.clusters))
        parts.ask("project", worker.share(lambda: into))  # another machine's signs may differ
        kmeans_parts.fit(parts, config.clusters, seed, spherical=True, restarts=config.restarts)
    else:
        part = UnitPart(clustering.unit_rows(means[0]), ids)
        parts = WorkerParts(part, worker)
        centers, _ = kmeans_parts.fit(
            parts, config.clusters, seed, spherical=config.spherical, restarts=config.restarts
        )
    mine = labels_of_rows(names, owned, part.labels, worker)
    if not bare and config.cluster_space == "trunk":
        centers = _means(arrays[0], mine, config.clusters, worker)
    everywhere, found = rows_of_all(keys, mine, worker)
    return everywhere, centers, found


def unit_names(keys: Sequence[str], videos: Mapping[str, str], config: StageOneConfig) -> list[str]:
    """Return what gets a label of its own for each key (n): its video, or itself with `cluster_unit` "clip"."""
    return [videos[key] for key in keys] if config.cluster_unit == "video" else list(keys)


def labels_of_rows(names: Sequence[str], owned: Sequence[str], labels: Any, worker: Worker) -> Any:
    """Hand labels on from units to rows.

    Args:
        names: unit of each of this worker's rows (n).
        owned: units that this worker owns (V).
        labels: theirs, int [V].
        worker: joins the workers.

    Returns:
        int64 [n].
    """
    of_unit: dict[str, int] = {}
    for others, theirs in worker.gather_objects((list(owned), np.asarray(labels).tolist())):
        of_unit.update(zip(others, theirs, strict=True))
    return np.array([of_unit[name] for name in names], np.int64)


def rows_of_all(keys: Sequence[str], labels: Any, worker: Worker) -> tuple[list[str], Any]:
    """Return the keys of all workers' rows, sorted, and their labels, int64 [N]."""
    told = worker.gather_objects((list(keys), labels.tolist()))
    pairs = sorted(pair for part in told for pair in zip(*part, strict=True))
    return [key for key, _ in pairs], np.array([label for _, label in pairs], np.int64)


def own_units(names: Sequence[str], arrays: Sequence[Any], worker: Worker) -> tuple[list[str], list[Any]]:
    """Average the rows [n, D] of each unit; a unit whose rows lie on several workers belongs to the first of them.

    Only the sums of such divided units travel, some at a time.

    Args:
        names: unit of each row of this worker (n).
        arrays: [n, D] each.
        worker: joins the workers.

    Returns:
        The units that this worker owns (V), sorted, and their means [V, D], one array for each given.
    """
    units, rows = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    counts = np.bincount(rows, minlength=len(units)).astype(np.float64)
    sums = []
    for array in arrays:
        total = np.zeros((len(units), array.shape[1]))
        np.add.at(total, rows, array)
        sums.append(total)
    place = {str(name): i for i, name in enumerate(units)}
    owner: dict[str, int] = {}
    for rank, theirs in enumerate(worker.gather_objects(list(place))):
        for name in theirs:
            owner.setdefault(name, rank)
    foreign = [name for name in place if owner[name] != worker.rank]
    rounds = max(worker.gather_objects(-(-len(foreign) // AT_ONCE)))
    for number in range(rounds):
        some = [place[name] for name in foreign[number * AT_ONCE : (number + 1) * AT_ONCE]]
        sent = ([str(units[i]) for i in some], counts[some], [total[some] for total in sums])
        for rank, (their, their_counts, their_sums) in enumerate(worker.gather_objects(sent)):
            own = [(i, place[name]) for i, name in enumerate(their) if owner[name] == worker.rank != rank]
            for i, here in own:
                counts[here] += their_counts[i]
                for total, added in zip(sums, their_sums, strict=True):
                    total[here] += added[i]
    kept = [i for name, i in place.items() if owner[name] == worker.rank]
    return [str(units[i]) for i in kept], [total[kept] / counts[kept, None] for total in sums]


def _means(features: Any, clusters: Any, k: int, worker: Worker) -> Any:
    """Average the features [n, D] of each cluster over all workers' rows; an empty one's center is zero."""
    total = np.zeros((k, features.shape[1]))
    np.add.at(total, clusters, features)
    told = worker.gather_objects((total, np.bincount(clusters, minlength=k)))
    counts = sum(one[1] for one in told)
    return (sum(one[0] for one in told) / np.maximum(counts, 1)[:, None]).astype(np.float32)
