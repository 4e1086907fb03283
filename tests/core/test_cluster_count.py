"""The number of classes: known answers, against scikit-learn, and what happens with too few units."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score

from dsol_core import cluster_count
from dsol_core.dictionary import NumpyKMeans
from dsol_core.types import DataError, ShapeError


def views(classes, each=40, seed=0):
    """Two views that share the class; each has stronger directions of its own, which cluster in other ways."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), each)
    made = []
    for size in (60, 40):
        own = np.random.default_rng(seed + size).integers(5, size=len(truth))
        points = generator.normal(size=(len(truth), size)) + 2 * generator.normal(size=(classes, size))[truth]
        made.append(points + 4 * generator.normal(size=(5, size))[own])
    return made


@pytest.mark.parametrize("classes", [3, 6, 11])
def test_finds_the_number_of_classes_that_two_views_share(classes):
    points = cluster_count.shared_space(views(classes))
    found = cluster_count.estimate(points, range(2, 15), NumpyKMeans(), 0, splits=2)
    assert found.best == classes and classes in found.plausible
    assert found.candidates == tuple(range(2, 15)) and found.units == 40 * classes
    assert found.separation[found.candidates.index(classes)] == max(found.separation)


def test_the_space_holds_what_is_shared_only():
    both = views(4)
    points = cluster_count.shared_space(both)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    truth, own = np.repeat(np.arange(4), 40), np.random.default_rng(60).integers(5, size=160)
    assert cluster_count.silhouette(points, truth, 4) > 0.4 > 0.05 > cluster_count.silhouette(points, own, 5)
    shuffled = cluster_count.shared_space([both[0], both[1][np.random.default_rng(3).permutation(160)]])
    assert cluster_count.silhouette(shuffled, truth, 4) < 0.1


@pytest.mark.parametrize("k", [2, 5, 30])
def test_silhouette_and_rand_index_are_those_of_scikit_learn(k):
    generator = np.random.default_rng(k)
    points = generator.normal(size=(80, 6))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels, others = generator.integers(k, size=(2, 80))
    assert cluster_count.silhouette(points, labels, k) == pytest.approx(
        silhouette_score(points, labels, metric="cosine"), abs=1e-9
    )
    assert cluster_count.rand_index(labels, others) == pytest.approx(adjusted_rand_score(labels, others), abs=1e-9)
    assert cluster_count.rand_index(labels, (labels + 1) % k) == 1


def test_same_seed_same_curve():
    points = cluster_count.shared_space(views(4))
    first, second = (cluster_count.estimate(points, range(2, 6), NumpyKMeans(), 5, splits=2) for _ in range(2))
    assert first == second


def test_candidates_that_are_too_many_are_left_out_and_none_left_is_an_error():
    points = cluster_count.shared_space(views(3, each=8))
    assert cluster_count.estimate(points, range(2, 24), NumpyKMeans(), 0, splits=1).candidates == (2, 3, 4, 5, 6)
    with pytest.raises(DataError, match="7 units are too few to tell 2 or more"):
        cluster_count.estimate(points[:7], range(2, 24), NumpyKMeans(), 0)
    with pytest.raises(ShapeError, match=r"\[3, 4\] units"):
        cluster_count.shared_space([np.zeros((3, 2)), np.zeros((4, 2))])
