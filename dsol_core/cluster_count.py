"""How many classes a data set has, before any training and without labels.

What a picture and its sound have in common is what sounds. So the units are put into the space that both views share
(canonical correlation), clustered there with each number of clusters, and that number is chosen under which units that
a clustering has not seen fall into the most separate clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsol_core.dictionary import KMeans
from dsol_core.types import DataError

SPLITS = 10  # into halves, each of which tests the clusters of the other
RESTARTS = 5  # of a k-means
UNITS_A_CLASS = 20  # with fewer, estimates tend to be too low (second table of docs/results/cluster_count.md)
UNITS_A_CLUSTER = 4  # a candidate is left out where its clusters would have fewer units on average


@dataclass(frozen=True)
class ClassCount:
    """An estimate with the curve that it was read from.

    Attributes:
        best: the candidate with the largest separation.
        plausible: candidates whose separation is within one standard error (over the splits) of the largest.
        candidates: numbers of clusters that were tried (C).
        separation: mean silhouette of held-out units under each candidate, -1 to 1 (C).
        error: standard error of its difference from the largest (C).
        agreement: adjusted Rand index of the two halves' clusterings of all units (C); shown, not used.
        units: how many were clustered.
    """

    best: int
    plausible: tuple[int, ...]
    candidates: tuple[int, ...]
    separation: tuple[float, ...]
    error: tuple[float, ...]
    agreement: tuple[float, ...]
    units: int


def estimate(points: Any, candidates: Sequence[int], kmeans: KMeans, seed: int, *, splits: int = SPLITS) -> ClassCount:
    """Choose the number of clusters of points by the separation of points that were not clustered.

    Args:
        points: unit vectors [V, d].
        candidates: numbers to try; those too large for the number of points are left out.
        kmeans: clusters.
        seed: of splits and starts.
        splits: into two halves; each half's centers cluster the other.

    Raises:
        DataError: no candidate is left.
    """
    points = np.asarray(points, np.float32)
    fitting = [k for k in sorted(set(candidates)) if 2 <= k <= len(points) // UNITS_A_CLUSTER]
    if not fitting:
        raise DataError(
            f"{len(points)} units are too few to tell {min(candidates, default=2)} or more classes apart; expected at "
            f"least {UNITS_A_CLUSTER} a class; give more videos, or set stage_one.clusters to a number"
        )
    generator = np.random.default_rng(seed)
    separation, agreement = np.zeros((len(fitting), splits)), np.zeros((len(fitting), splits))
    for split in range(splits):
        order = generator.permutation(len(points))
        halves = order[: len(points) // 2], order[len(points) // 2 :]
        for row, k in enumerate(fitting):
            starts = generator.integers(2**31, size=2)
            found = [
                kmeans.fit(points[half], k, int(start), spherical=True, restarts=RESTARTS)[0]
                for half, start in zip(halves, starts, strict=True)
            ]
            labels = [(points @ centers.T).argmax(1) for centers in found]
            tested = [
                silhouette(points[other], mine[other], k) for mine, other in zip(labels, halves[::-1], strict=True)
            ]
            separation[row, split] = np.mean(tested)
            agreement[row, split] = rand_index(labels[0], labels[1])
    means = separation.mean(1)
    best = int(means.argmax())
    gaps = separation[best] - separation
    error = gaps.std(1, ddof=1) / np.sqrt(splits) if splits > 1 else np.zeros(len(fitting))
    near = [k for k, gap, its in zip(fitting, gaps.mean(1), error, strict=True) if gap <= its]
    return ClassCount(
        fitting[best],
        tuple(near),
        tuple(fitting),
        tuple(means.tolist()),
        tuple(error.tolist()),
        tuple(agreement.mean(1).tolist()),
        len(points),
    )


def silhouette(points: Any, labels: Any, k: int) -> float:
    """Return the mean silhouette (Rousseeuw 1987) of unit vectors [V, d] under 1 - cosine, exactly, in O(V k d).

    A point alone in its cluster counts 0, and so do all where there is one cluster only.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=k)
    if (counts > 0).sum() < 2:
        return 0.0
    totals = np.zeros((k, points.shape[1]))
    np.add.at(totals, labels, points)
    distance = counts - points @ totals.T  # summed over each cluster [V, k]
    rows = np.arange(len(points))
    within = distance[rows, labels] / np.maximum(counts[labels] - 1, 1)
    others = np.where(counts > 0, distance / np.maximum(counts, 1), np.inf)
    others[rows, labels] = np.inf
    nearest = others.min(1)
    widths = (nearest - within) / np.maximum(np.maximum(within, nearest), 1e-12)
    return float(np.where(counts[labels] > 1, widths, 0.0).mean())


def rand_index(first: Any, second: Any) -> float:
    """Return the adjusted Rand index of two clusterings of the same points [V] (Hubert and Arabie 1985)."""
    table = np.zeros((int(np.max(first)) + 1, int(np.max(second)) + 1))
    np.add.at(table, (first, second), 1)

    def pairs(counts: Any) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, one, other, every = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), pairs(table.sum()[None])
    expected = one * other / every
    largest = (one + other) / 2
    return (both - expected) / (largest - expected) if largest > expected else 1.0
