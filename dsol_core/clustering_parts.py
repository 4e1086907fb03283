"""The clusterings of stage one with features that stay on their workers (`stage_one.kmeans: distributed`).

What `clustering` does with all features in one place, done with sums: the same features, units, votes and clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsol_core import clustering, kmeans_parts
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
        self._votes: list[Any] = []

    def moments(self) -> list[tuple[int, Any, Any]]:
        """Return of each view its number of rows, their sum [D] and the sum of their outer products [D, D]."""
        return [(len(view), view.sum(0), view.T @ view) for view in self.views]

    def project(self, axes: Sequence[tuple[Any, Any]]) -> None:
        """Let the points be the views after (mean [D], matrix [D, d]), each as unit vectors, side by side."""
        parts = [
            clustering.unit_rows((view - mean) @ matrix) for view, (mean, matrix) in zip(self.views, axes, strict=True)
        ]
        self.points = np.concatenate(parts, 1).astype(np.float32)

    def vote(self, many: int) -> None:
        """Remember the clusters just found."""
        self._votes.append(np.eye(many, dtype=np.float32)[self.labels])

    def use_votes(self) -> None:
        """Let the points be all votes, side by side."""
        self.points = np.concatenate(self._votes, 1)


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
        bare: the arrays are bare inputs and clustered by consensus; else one array of object features.

    Returns:
        On every worker: all keys, sorted; centers [K, D], None if bare; clusters int64 [N] of the keys.

    Raises:
        DataError: there are fewer units than clusters.
    """
    keys, *arrays = rows
    names = [videos[key] for key in keys] if config.cluster_unit == "video" else list(keys)
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
        consensus(parts, count, config.clusters, seed)
        kmeans_parts.fit(parts, config.clusters, seed, spherical=True, restarts=config.restarts)
    else:
        part = UnitPart(clustering.unit_rows(means[0]), ids)
        parts = WorkerParts(part, worker)
        centers, _ = kmeans_parts.fit(
            parts, config.clusters, seed, spherical=config.spherical, restarts=config.restarts
        )
    of_unit: dict[str, int] = {}
    for others, labels in worker.gather_objects((owned, part.labels.tolist())):
        of_unit.update(zip(others, labels, strict=True))
    mine = np.array([of_unit[name] for name in names], np.int64)
    if not bare and config.cluster_space == "trunk":
        centers = _means(arrays[0], mine, config.clusters, worker)
    pairs = sorted(pair for part in worker.gather_objects((keys, mine.tolist())) for pair in zip(*part, strict=True))
    return [key for key, _ in pairs], centers, np.array([label for _, label in pairs], np.int64)


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


def consensus(parts: kmeans_parts.Parts, count: int, k: int, seed: int) -> None:
    """Let the points of all parts be the votes of many clusterings of their views; see `clustering.consensus`.

    Args:
        parts: `UnitPart`s with views.
        count: units of all parts.
        k: number of clusters wanted in the end.
        seed: of the differences between the clusterings.
    """
    told = parts.ask("moments")
    moments = [
        (sum(one[i][0] for one in told), sum(one[i][1] for one in told), sum(one[i][2] for one in told))
        for i in range(len(told[0]))
    ]
    generator = np.random.default_rng(seed)
    for _ in range(clustering.VOTES):
        power = generator.uniform(0, clustering.WHITE_POWER)
        axes = [whitening(*one, int(generator.integers(*clustering.WHITE_DIRECTIONS)), power) for one in moments]
        many = min(int(generator.integers(k, 2 * k)), count)
        parts.ask("project", axes)
        kmeans_parts.fit(parts, many, int(generator.integers(2**31)), spherical=True)
        parts.ask("vote", many)
    parts.ask("use_votes")


def whitening(count: int, total: Any, square: Any, directions: int, power: float) -> tuple[Any, Any]:
    """Return mean [D] and matrix [D, d] of `clustering.whitened` from the sums of `UnitPart.moments`."""
    mean = total / count
    covariance = square / count - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0)) + 1e-6
    strength, axes = np.linalg.eigh(covariance * count / max(1, count - 1) / np.outer(deviation, deviation))
    keep = np.argsort(strength)[::-1][:directions]
    keep = keep[strength[keep] > 1e-9 * strength.max()]
    return mean, axes[:, keep] * strength[keep] ** (power / 2 - 0.5) / deviation[:, None]


def _means(features: Any, clusters: Any, k: int, worker: Worker) -> Any:
    """Average the features [n, D] of each cluster over all workers' rows; an empty one's center is zero."""
    total = np.zeros((k, features.shape[1]))
    np.add.at(total, clusters, features)
    told = worker.gather_objects((total, np.bincount(clusters, minlength=k)))
    counts = sum(one[1] for one in told)
    return (sum(one[0] for one in told) / np.maximum(counts, 1)[:, None]).astype(np.float32)
