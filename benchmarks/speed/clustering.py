"""Clustering: FAISS over all points against scikit-learn's default; exact assignment against the random search."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from speed import Ratio, Size, Stage, Value

CLUSTERS, RANK = 20, 40
SEPARATION = 8.0  # distance of two cluster centers, in deviations of a direction of the variation within one


def clustered(count: int, width: int, seed: int) -> Any:
    """Return float32 points [N, D] of `CLUSTERS` overlapping Gaussians of uneven size.

    Within a cluster they vary along `RANK` random directions that all share, plus 0.3 of white noise.
    """
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(CLUSTERS, width)) * SEPARATION / np.sqrt(2 * width)
    truth = generator.choice(CLUSTERS, count, p=generator.dirichlet(np.full(CLUSTERS, 3.0)))
    directions = (generator.normal(size=(RANK, width)) / np.sqrt(width)).astype(np.float32)
    points = centers.astype(np.float32)[truth]
    points += generator.normal(size=(count, RANK)).astype(np.float32) @ directions
    points += 0.3 / np.sqrt(width) * generator.standard_normal((count, width), dtype=np.float32)
    return points


def stages(size: Size) -> Iterator[Stage]:
    """Measure k-means, then the assignment of clusters to classes."""
    yield _kmeans(size)
    yield _assignment(size)


def _kmeans(size: Size) -> Stage:
    import faiss
    from sklearn.cluster import KMeans

    from tasks.adapters.faiss_kmeans import FaissKMeans

    count, width = size.of((100_000, 512), (20_000, 32))
    points = clustered(count, width, size.seed)
    faiss.omp_set_num_threads(size.threads)
    ours = FaissKMeans()
    seeds = {"ours": 0, "plain": 0}
    centers: dict[str, list[Any]] = {"ours": [], "plain": []}

    def fit(way: str) -> float:
        seed = seeds[way] = seeds[way] + 1
        if way == "ours":
            centers[way].append(ours.fit(points, CLUSTERS, seed)[0])
        else:
            centers[way].append(KMeans(CLUSTERS, random_state=seed).fit(points).cluster_centers_)
        return 1.0

    @cache
    def inertia(way: str) -> float:
        index = faiss.IndexFlatL2(width)
        found = []
        for one in centers[way]:
            index.reset()
            index.add(np.ascontiguousarray(one, np.float32))
            found.append(float(index.search(points, 1)[0].astype(np.float64).sum()))
        return float(np.mean(found))

    return Stage(
        title=f"Clustering {count:,} x {width}, K = {CLUSTERS}",
        unit="fits/s",
        about=f"{CLUSTERS} overlapping Gaussians of uneven size, {SEPARATION:g} deviations apart, with {RANK} shared "
        "directions of variation. Ours: `FaissKMeans` (starts found on a sample, then all points until the inertia "
        "settles). Plain: `sklearn.cluster.KMeans(20)` as it comes: one k-means++ start, at most 300 steps. One "
        "restart each, a new seed every turn, the same seeds and threads for both.",
        ways={"ours": lambda: fit("ours"), "plain": lambda: fit("plain")},
        ratios=[Ratio("k-means / scikit-learn's default", of="ours", to="plain", target=6.0)],
        values=[
            Value("k-means: mean inertia / scikit-learn's", lambda: inertia("ours") / inertia("plain"), target=1.0)
        ],
        warm_up=0,
    )


def _assignment(size: Size) -> Stage:
    from dsol_core import dictionary

    generator = np.random.default_rng(size.seed)
    classes, samples = 11, 3300
    labels = np.arange(samples) % classes
    clusters = np.where(
        generator.random(samples) < 0.8, (3 * labels + 1) % classes, generator.integers(classes, size=samples)
    )
    names = [f"class-{one:02d}" for one in labels]
    share = np.zeros((classes, classes))
    np.add.at(share, (labels, clusters), 1)
    share /= share.sum(1, keepdims=True)
    wanted, tried = 1_000_000, size.of(1_000_000, 5_000)
    best: dict[str, float] = {}

    def score(of: Any) -> float:
        return float(share[of, np.arange(classes)].sum())

    def exact() -> tuple[float, float]:
        began = time.perf_counter()
        for _ in range(100):
            found = dictionary.assign_categories(clusters, names, classes)
        seconds = (time.perf_counter() - began) / 100
        best["ours"] = score(np.array([int(one[-2:]) for one in found]))
        return 1.0, seconds

    def searched() -> float:
        draws = np.random.default_rng(size.seed + 1)
        best["plain"] = max(score(draws.permutation(classes)) for _ in range(tried))
        return tried / wanted

    return Stage(
        title="Cluster -> class, 11 clusters and classes",
        unit="assignments/s",
        about=f"Ours: Hungarian assignment, the table of {samples:,} labels included, mean of 100 calls. Plain: the "
        f"best of {wanted:,} random permutations by the same score, the table not included; {tried:,} were run"
        f"{'' if tried == wanted else ' and the time is extrapolated, in proportion'}.",
        ways={"ours": exact, "plain": searched},
        ratios=[Ratio("cluster -> class / a million random permutations", of="ours", to="plain", target=1000.0)],
        values=[
            Value("cluster -> class: score of the search / exact", lambda: best["plain"] / best["ours"], target=1.0)
        ],
        repeats=3 if not size.quick else None,
        warm_up=0,
    )
