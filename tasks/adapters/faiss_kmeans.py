"""K-means through FAISS, on a GPU where there is one. Owner of faiss."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsol_core.dictionary import checked_points
from dsol_core.types import DsolError

log = logging.getLogger(__name__)

ITERATIONS = 25  # Lloyd steps of a run (the FAISS default)
LARGE = 2048  # points a cluster from which the starts are found on a sample
SAMPLE = 256  # points a cluster in that sample
TRIES = 4  # starts tried on it for each restart asked for
SAMPLE_ITERATIONS = 10  # Lloyd steps of a try
SETTLED = 1e-4  # relative gain of a Lloyd step below which the steps over all points end
FEW = 64  # clusters up to which FAISS is faster pair by pair than with a matrix product (20 below 64 dimensions)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise DsolError(
            "clustering needs FAISS and no faiss package is installed; pip install faiss-cpu or, on a machine with an "
            "NVIDIA GPU, faiss-gpu, never both"
        ) from error
    if not hasattr(faiss, "Kmeans"):
        raise DsolError(
            "the faiss package is empty, as it is left when faiss-cpu and faiss-gpu were both installed and one was "
            "removed; uninstall both and install one again"
        )
    return faiss


class FaissKMeans:
    """Satisfies `dsol_core.dictionary.KMeans`; all points are used, not FAISS's sample of 256 a cluster.

    Every run starts by k-means++: from FAISS's random points, even 20 runs may all leave two clear clusters in one.
    With more than `LARGE` points a cluster the restarts are made on a sample and the best of them is refined with all
    points until the inertia settles; with fewer every restart runs over all points.

    Attributes:
        device: "cpu" or "gpu", where the last `fit` really ran; None before the first.
    """

    def __init__(self, iterations: int = ITERATIONS) -> None:
        self.iterations = iterations
        self.device: str | None = None

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

        Raises:
            DataError: fewer points than clusters, or values that are not finite.
            DsolError: no faiss package is installed.
        """
        points = checked_points(x, k, spherical=spherical)
        faiss = _faiss()
        # gpu=True without a GPU would run on the CPU without a word.
        gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
        settings = {"spherical": spherical, "gpu": gpu, "min_points_per_centroid": 1, "seed": seed % 2**31}
        settings |= {"niter": self.iterations, "nredo": restarts}
        settings |= {"init_method": faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS}
        starts, large = None, len(points) > LARGE * k
        with _pair_by_pair(faiss, large and k <= FEW):
            if large:
                starts = _starts(faiss, points, k, {**settings, "nredo": TRIES * restarts, "niter": SAMPLE_ITERATIONS})
                settings |= {"nredo": 1, "early_stop_threshold": SETTLED}
            kmeans = faiss.Kmeans(points.shape[1], k, max_points_per_centroid=len(points), **settings)
            kmeans.train(points, init_centroids=starts)
            _, labels = kmeans.index.search(points, 1)
        self.device = "gpu" if gpu else "cpu"
        log.info("k-means of %d points into %d clusters on the %s", len(points), k, self.device)
        return np.asarray(kmeans.centroids, np.float32), labels[:, 0].astype(np.int64)


@contextmanager
def _pair_by_pair(faiss: Any, wanted: bool) -> Iterator[None]:
    """Let FAISS take distances one pair at a time: a product of very many points and few centers is a slow one."""
    usual = faiss.cvar.distance_compute_blas_threshold
    if wanted:
        faiss.cvar.distance_compute_blas_threshold = 2**31 - 1
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = usual


def _starts(faiss: Any, points: Any, k: int, settings: dict[str, Any]) -> Any:
    """Return the best centers [K, D] of a sample: many tries there cost less than one pass over all points."""
    chosen = np.random.default_rng(settings["seed"]).choice(len(points), SAMPLE * k, replace=False)
    sample = np.ascontiguousarray(points[np.sort(chosen)])
    kmeans = faiss.Kmeans(points.shape[1], k, max_points_per_centroid=len(sample), **settings)
    kmeans.train(sample)
    return kmeans.centroids
