"""The object dictionary: clustering, aligning labels, cluster -> category."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from dsol_core.types import DataError, ShapeError

ITERATIONS = 50  # of k-means at most

logger = logging.getLogger(__name__)


class KMeans(Protocol):
    """Anything that clusters."""

    def fit(self, x: Any, k: int, seed: int, *, spherical: bool = False, restarts: int = 1) -> tuple[Any, Any]:
        """Cluster points.

        Args:
            x: float32 [N, D].
            k: number of clusters.
            seed: of the starts.
            spherical: centers are unit vectors and points go to the largest inner product.
            restarts: runs from other starts; the best is kept.

        Returns:
            Centers float32 [K, D] and labels int64 [N].
        """
        ...


@dataclass(frozen=True)
class PseudoLabels:
    """Cluster of each sample, joined by key and never by order."""

    keys: tuple[str, ...]
    clusters: Any  # int64 [N]


@dataclass(frozen=True)
class ObjectDictionary:
    """Centers of the clusters with what is known about them.

    Attributes:
        centers: float32 [K, D].
        counts: int64 [K] samples behind each.
        names: of the entries, "cluster-00" and so on until somebody names them.
        categories: category of each entry where labels exist, else None.
    """

    centers: Any
    counts: Any
    names: tuple[str, ...]
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        size = len(self.centers)
        if not len(self.counts) == len(self.names) == size or len(self.categories or self.names) != size:
            raise ShapeError(f"dictionary has {size} centers but {len(self.counts)} counts, {len(self.names)} names")

    def named(self, names: Mapping[str, str]) -> ObjectDictionary:
        """Return the dictionary with some entries renamed, {"cluster-03": "cello"}.

        Raises:
            DataError: an entry does not exist.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise DataError(f"there are no entries {', '.join(unknown)}; expected some of {', '.join(self.names)}")
        return replace(self, names=tuple(names.get(name, name) for name in self.names))


class NumpyKMeans:
    """Lloyd's algorithm with k-means++ starts; a few thousand points in a second."""

    def fit(self, x: Any, k: int, seed: int, *, spherical: bool = False, restarts: int = 1) -> tuple[Any, Any]:
        """See `KMeans.fit`.

        Raises:
            DataError: fewer points than clusters, or values that are not finite.
        """
        points = checked_points(x, k, spherical=spherical)
        generator = np.random.default_rng(seed)
        runs = [_lloyd(points, k, generator, spherical) for _ in range(restarts)]
        _, centers, labels = min(runs, key=lambda run: run[0])
        return centers.astype(np.float32), labels


def checked_points(x: Any, k: int, *, spherical: bool) -> Any:
    """Return the points as float32 [N, D] (unit vectors if spherical) or raise DataError."""
    points = np.ascontiguousarray(x, dtype=np.float32)
    if points.ndim != 2 or len(points) < k:
        raise DataError(f"{points.shape} cannot be cut into {k} clusters; expected at least {k} points [N, D]")
    if not np.isfinite(points).all():
        raise DataError(f"{int((~np.isfinite(points).all(1)).sum())} of {len(points)} points are not finite")
    if spherical:
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return points


def _distances(points: Any, centers: Any) -> Any:
    """Squared Euclidean distances [N, K]; on the sphere they order like cosines."""
    return (points**2).sum(1)[:, None] - 2 * points @ centers.T + (centers**2).sum(1)


def _starts(points: Any, k: int, generator: np.random.Generator) -> Any:
    """k-means++: each further start is drawn with probability proportional to the squared distance to the nearest."""
    chosen = [int(generator.integers(len(points)))]
    for _ in range(k - 1):
        nearest = np.maximum(_distances(points, points[chosen]).min(1), 0).astype(np.float64)
        total = nearest.sum()
        probability = nearest / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(generator.choice(len(points), p=probability)))
    return points[chosen].copy()


def _lloyd(points: Any, k: int, generator: np.random.Generator, spherical: bool) -> tuple[float, Any, Any]:
    centers, labels = _starts(points, k, generator), np.full(len(points), -1)
    for _ in range(ITERATIONS):
        distance = _distances(points, centers)
        new = distance.argmin(1)
        if (new == labels).all():
            break
        labels = new
        for cluster in range(k):
            inside = labels == cluster
            # An empty cluster restarts at the point that fits its own center least.
            centers[cluster] = points[inside].mean(0) if inside.any() else points[distance.min(1).argmax()]
        if spherical:
            centers /= np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), 1e-12)
    distance = _distances(points, centers)
    return float(distance.min(1).sum()), centers, distance.argmin(1).astype(np.int64)


def build(features: Any, clusters: Any, k: int) -> ObjectDictionary:
    """Average the features of each cluster (paper section 3.2).

    Args:
        features: [N, D].
        clusters: int [N], 0 to k - 1.
        k: number of entries.

    Returns:
        The dictionary; the center of an empty cluster is zero.

    Raises:
        ShapeError: features and clusters differ in N, or a cluster is outside 0 to k - 1.
    """
    features, clusters = np.asarray(features, np.float32), np.asarray(clusters)
    if len(features) != len(clusters) or (len(clusters) and not 0 <= clusters.min() <= clusters.max() < k):
        raise ShapeError(f"features {features.shape} and clusters {clusters.shape} do not fit {k} entries")
    counts = np.bincount(clusters, minlength=k)
    centers = np.zeros((k, features.shape[1]), np.float32)
    np.add.at(centers, clusters, features)
    centers /= np.maximum(counts, 1)[:, None]
    return ObjectDictionary(centers, counts, tuple(f"cluster-{i:02d}" for i in range(k)))


def align(new: Any, old: Any, k: int) -> Any:
    """Return for each new cluster the old number that it takes over, so that most samples keep theirs.

    Args:
        new: int [N], clusters now.
        old: int [N], clusters of the same samples before.
        k: number of clusters.

    Returns:
        int64 [K], a permutation.
    """
    table = np.zeros((k, k))
    np.add.at(table, (np.asarray(new), np.asarray(old)), 1)
    return linear_sum_assignment(-table)[1].astype(np.int64)


def assign_categories(clusters: Any, labels: Sequence[str], k: int) -> tuple[str, ...]:
    """Give each cluster a category, exactly optimal for the authors' score (they search at random).

    R[i, j] is the share of category i's samples in cluster j. One cluster a category by Hungarian assignment on the
    regret max_i R[i, j] - R[i, j]; each further cluster goes to its own best category. With more categories than
    clusters each cluster goes to its best category and some categories have no cluster, which is logged.

    Args:
        clusters: int [N].
        labels: category of each sample (N).
        k: number of clusters.

    Returns:
        Category of each cluster (K).

    Raises:
        DataError: no labels.
    """
    names = sorted(set(labels))
    if not names:
        raise DataError(f"no labels for {k} clusters; expected the category of each sample, or leave categories out")
    share = np.zeros((len(names), k))
    rows_of = np.array([names.index(label) for label in labels])
    np.add.at(share, (rows_of, np.asarray(clusters)), 1)
    share /= share.sum(1, keepdims=True)
    chosen = share.argmax(0)
    if len(names) <= k:
        rows, columns = linear_sum_assignment(share.max(0) - share)
        chosen[columns] = rows
    else:
        lost = ", ".join(name for i, name in enumerate(names) if i not in chosen)
        logger.warning("%d categories, %d clusters: none stands for %s; raise stage_one.clusters", len(names), k, lost)
    return tuple(names[i] for i in chosen)
