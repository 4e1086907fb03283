"""FAISS k-means against the numpy one of the core."""

import builtins
import sys

import numpy as np
import pytest

from dsol_core import agreement
from dsol_core.dictionary import NumpyKMeans, align
from dsol_core.types import DataError, DsolError
from tasks.adapters import faiss_kmeans
from tasks.adapters.faiss_kmeans import FaissKMeans


def blobs(count=60, k=4, size=6, seed=0):
    generator = np.random.default_rng(seed)
    centers = 5 * generator.normal(size=(k, size))
    truth = np.repeat(np.arange(k), count)
    points = centers[truth] + generator.normal(size=(len(truth), size))
    return points.astype(np.float32), truth


@pytest.mark.parametrize("spherical", [False, True])
def test_agrees_with_numpy(spherical):
    points, _ = blobs()
    ours, ours_labels = NumpyKMeans().fit(points, 4, 0, spherical=spherical, restarts=3)
    found, labels = FaissKMeans().fit(points, 4, 0, spherical=spherical, restarts=3)
    moved = align(labels, ours_labels, 4)
    np.testing.assert_array_equal(moved[labels], ours_labels)
    np.testing.assert_allclose(found[np.argsort(moved)], ours, atol=1e-4)
    assert found.dtype == np.float32 and labels.dtype == np.int64


def test_spherical_centers_are_unit_vectors():
    points, _ = blobs()
    centers, labels = FaissKMeans().fit(10 * points, 4, 0, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(labels, (points @ centers.T).argmax(1))


def test_uses_all_points(monkeypatch):
    """FAISS alone takes 256 points a cluster at random; the centers must be the means of all of them."""
    points, truth = blobs(count=1500, k=2)
    centers, labels = FaissKMeans().fit(points, 2, 0)
    means = np.stack([points[labels == i].mean(0) for i in range(2)])
    np.testing.assert_allclose(centers, means, atol=1e-3)
    assert len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == 2


def test_same_seed_same_result():
    points, _ = blobs()
    first, second = (FaissKMeans().fit(points, 4, 7, restarts=2) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_says_where_it_ran(monkeypatch):
    import faiss

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    kmeans = FaissKMeans()
    assert kmeans.device is None
    kmeans.fit(blobs()[0], 4, 0)
    assert kmeans.device == "cpu"


def test_too_few_points_and_broken_values():
    with pytest.raises(DataError, match="at least 5"):
        FaissKMeans().fit(np.zeros((4, 2)), 5, 0)
    broken = np.ones((9, 2))
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 9"):
        FaissKMeans().fit(broken, 2, 0)


def test_missing_package_names_what_to_install(monkeypatch):
    real = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(DsolError, match=r"pip install faiss-cpu or.*faiss-gpu, never both"):
        faiss_kmeans.FaissKMeans().fit(blobs()[0], 4, 0)


def test_hollow_package_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", type(sys)("faiss"))
    with pytest.raises(DsolError, match="uninstall both"):
        FaissKMeans().fit(blobs()[0], 4, 0)


def test_many_points_start_from_a_sample_and_are_all_used(monkeypatch):
    points, truth = blobs(count=2500, k=4)
    assert len(points) > faiss_kmeans.LARGE * 4
    centers, labels = FaissKMeans().fit(points, 4, 0)
    means = np.stack([points[labels == i].mean(0) for i in range(4)])
    np.testing.assert_allclose(centers, means, atol=2e-2)
    assert len(set(zip(labels.tolist(), truth.tolist(), strict=True))) <= 6
    monkeypatch.setattr(faiss_kmeans, "LARGE", 10**9)
    slow, slow_labels = FaissKMeans().fit(points, 4, 0, restarts=8)

    def inertia(found, to):
        return ((points - found[to]) ** 2).sum()

    assert inertia(centers, labels) <= 1.001 * inertia(slow, slow_labels)
    monkeypatch.undo()
    again, _ = FaissKMeans().fit(points, 4, 0)
    np.testing.assert_array_equal(again, centers)


@pytest.mark.parametrize(("count", "k", "direct"), [(2500, 4, True), (100, 4, False), (2100, 65, False)])
def test_many_points_and_few_clusters_are_compared_pair_by_pair(monkeypatch, count, k, direct):
    import faiss

    usual, seen = faiss.cvar.distance_compute_blas_threshold, []
    train = faiss.Kmeans.train

    def noting(*args, **kwargs):
        seen.append(faiss.cvar.distance_compute_blas_threshold > 10**6)
        return train(*args, **kwargs)

    monkeypatch.setattr(faiss.Kmeans, "train", noting)
    FaissKMeans().fit(blobs(count=count, k=k, size=2)[0], k, 0)
    assert set(seen) == {direct}
    assert faiss.cvar.distance_compute_blas_threshold == usual


def test_no_clear_cluster_is_lost():
    """Eleven clusters like those of a trained stage one: random starts lose one in many seeds."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(11), 90)
    centers = np.linalg.qr(generator.normal(size=(64, 11)))[0].T
    points = (centers[truth] + 0.03 * generator.normal(size=(990, 64))).astype(np.float32)
    for seed in range(20):
        _, labels = FaissKMeans().fit(points, 11, seed, spherical=True, restarts=5)
        assert agreement.nmi(labels, truth.astype(str).tolist()) == pytest.approx(1), seed
