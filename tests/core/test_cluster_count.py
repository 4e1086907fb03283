"""The number of classes: known answers, against scikit-learn, and what happens with too few units."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score

from dsol_core import cluster_count
from dsol_core.dictionary import NumpyKMeans
from dsol_core.shared_space import shared_space
from dsol_core.types import DataError
from tests.core.two_views import views


@pytest.mark.parametrize("classes", [3, 6, 11])
def test_finds_the_number_of_classes_that_two_views_share(classes):
    points = shared_space(views(classes))
    found = cluster_count.estimate(points, range(2, 15), NumpyKMeans(), 0, splits=2)
    assert found.best == classes and classes in found.plausible
    assert found.candidates == tuple(range(2, 15)) and found.units == 40 * classes
    assert found.separation[found.candidates.index(classes)] == max(found.separation)


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
    points = shared_space(views(4))
    first, second = (cluster_count.estimate(points, range(2, 6), NumpyKMeans(), 5, splits=2) for _ in range(2))
    assert first == second


def test_candidates_that_are_too_many_are_left_out_and_none_left_is_an_error():
    points = shared_space(views(3, each=8))
    assert cluster_count.estimate(points, range(2, 24), NumpyKMeans(), 0, splits=1).candidates == (2, 3, 4, 5, 6)
    with pytest.raises(DataError, match="7 units are too few to tell 2 or more"):
        cluster_count.estimate(points[:7], range(2, 24), NumpyKMeans(), 0)
