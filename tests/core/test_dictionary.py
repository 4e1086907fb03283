"""Clustering, alignment and assignment against exhaustive search; agreement scores against scikit-learn."""

import itertools

import numpy as np
import pytest

from dsol_core import agreement, dictionary
from dsol_core.dictionary import NumpyKMeans, ObjectDictionary
from dsol_core.types import DataError, ShapeError


def blobs(count=40, k=5, size=4, seed=0):
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), count)
    return (6 * generator.normal(size=(k, size)))[truth] + generator.normal(size=(k * count, size)), truth


@pytest.mark.parametrize("spherical", [False, True])
def test_kmeans_finds_blobs(spherical):
    points, truth = blobs(size=8)
    centers, labels = NumpyKMeans().fit(points, 5, 0, spherical=spherical, restarts=4)
    assert agreement.purity(labels, truth.astype(str)) > 0.97
    assert centers.shape == (5, 8) and centers.dtype == np.float32 and labels.dtype == np.int64
    if spherical:
        np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, atol=1e-5)
    else:
        np.testing.assert_allclose(centers, [points[labels == i].mean(0) for i in range(5)], atol=1e-4)


def test_spherical_kmeans_ignores_lengths():
    points, _ = blobs()
    scaled = points * np.random.default_rng(1).uniform(0.1, 9, (len(points), 1))
    first, second = (NumpyKMeans().fit(x, 4, 3, spherical=True)[1] for x in (points, scaled))
    np.testing.assert_array_equal(first, second)


def test_kmeans_is_seeded_and_restarts_do_not_hurt():
    points, _ = blobs()

    def spread(restarts, seed=1):
        centers, labels = NumpyKMeans().fit(points, 5, seed, restarts=restarts)
        return ((points - centers[labels]) ** 2).sum()

    assert spread(1) == spread(1)
    assert spread(8) <= spread(1)


def test_kmeans_fills_empty_clusters_and_takes_equal_points():
    _, labels = NumpyKMeans().fit(np.ones((6, 2)), 3, 0)
    assert len(labels) == 6
    points = np.array([[0.0], [0.0], [0.0], [10.0], [20.0]])
    assert len(set(NumpyKMeans().fit(points, 3, 0)[1].tolist())) == 3


def test_kmeans_refuses_bad_points():
    with pytest.raises(DataError, match="at least 3"):
        NumpyKMeans().fit(np.zeros((2, 2)), 3, 0)
    with pytest.raises(DataError, match="not finite"):
        NumpyKMeans().fit(np.array([[0.0], [np.nan], [1.0]]), 2, 0)


def test_build_by_hand():
    features = np.array([[3.0, 4.0], [1.0, 0.0], [5.0, 0.0]])
    plain = dictionary.build(features, [0, 2, 2], 3)
    np.testing.assert_allclose(plain.centers, [[3, 4], [0, 0], [3, 0]])
    assert plain.counts.tolist() == [1, 0, 2] and plain.names == ("cluster-00", "cluster-01", "cluster-02")
    with pytest.raises(ShapeError, match="3 entries"):
        dictionary.build(features, [0, 1, 3], 3)


def test_renaming_entries():
    entries = ObjectDictionary(np.zeros((2, 3)), np.zeros(2), ("cluster-00", "cluster-01"))
    assert entries.named({"cluster-01": "cello"}).names == ("cluster-00", "cello")
    with pytest.raises(DataError, match="no entries cluster-02"):
        entries.named({"cluster-02": "cello"})
    with pytest.raises(ShapeError):
        ObjectDictionary(np.zeros((2, 3)), np.zeros(2), ("only one",))


def test_align_undoes_a_renumbering():
    generator = np.random.default_rng(0)
    old = generator.integers(5, size=200)
    moved = generator.permutation(5)
    new = moved[old]
    new[:20] = generator.integers(5, size=20)
    back = dictionary.align(new, old, 5)
    assert sorted(back.tolist()) == list(range(5))
    assert (back[new] == old).mean() >= 0.9


def best_assignment(clusters, labels, k):
    """Best sum of R over all ways to give every category at least one cluster (method document, section 2.9)."""
    names = sorted(set(labels))
    table = {(n, j): np.mean(np.asarray(clusters)[np.asarray(labels) == n] == j) for n in names for j in range(k)}
    ways = [w for w in itertools.product(names, repeat=k) if set(w) == set(names)]
    return max(sum(table[n, j] for j, n in enumerate(way)) for way in ways)


@pytest.mark.parametrize(("k", "classes"), [(4, 4), (6, 3), (5, 2)])
def test_assignment_is_the_optimum(k, classes):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = [f"c{i}" for i in generator.permutation(np.arange(60) % classes)]
        clusters = generator.integers(k, size=60)
        found = dictionary.assign_categories(clusters, labels, k)
        assert len(found) == k and set(found) == set(labels)
        score = sum(np.mean(clusters[np.asarray(labels) == n] == j) for j, n in enumerate(found))
        assert score == pytest.approx(best_assignment(clusters, labels, k))


def test_with_too_few_clusters_each_takes_its_best_category_and_the_rest_is_logged(caplog):
    # shares of the categories in the clusters: a 2/3 1/3, b 1/4 3/4, c 1 0
    clusters, labels = [0, 0, 1, 0, 1, 1, 1, 0], ["a", "a", "a", "b", "b", "b", "b", "c"]
    assert dictionary.assign_categories(clusters, labels, 2) == ("c", "b")
    assert "3 categories, 2 clusters: none stands for a" in caplog.text
    with pytest.raises(DataError, match="no labels for 2 clusters"):
        dictionary.assign_categories([], [], 2)


def test_scores_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=300).astype(str)
    clusters = np.where(generator.random(300) < 0.6, labels.astype(int), generator.integers(6, size=300))
    assert agreement.nmi(clusters, labels) == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
    table = metrics.cluster.contingency_matrix(labels, clusters)
    assert agreement.purity(clusters, labels) == pytest.approx(table.max(0).sum() / 300)
    assert agreement.nmi(clusters + 10, labels) == pytest.approx(agreement.nmi(clusters, labels))
    assert agreement.nmi([1, 1], ["a", "a"]) == 1.0
