"""K-means of points in parts: equal for any cut, and equal to plain Lloyd steps."""

from __future__ import annotations

import numpy as np
import pytest

from dsol_core import agreement, kmeans_parts
from dsol_core.kmeans_parts import LocalParts, Part, Sums, WorkerParts, fit
from dsol_core.types import DataError
from tests.core.gathering import PartsKMeans, on_workers


def blobs(count=60, k=5, size=7, seed=0):
    generator = np.random.default_rng(seed)
    centers = 3 * generator.normal(size=(k, size))
    truth = np.repeat(np.arange(k), count)
    return (centers[truth] + generator.normal(size=(len(truth), size))).astype(np.float32), truth


def cut(points, parts, seed=1):
    """Deal the points out, unevenly and out of order; one part may be empty."""
    owner = np.random.default_rng(seed).integers(max(1, parts - 1), size=len(points))
    rows = [np.flatnonzero(owner == one) for one in range(parts)]
    return [Part(points[mine], mine) for mine in rows], rows


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("number", [2, 3, 7])
def test_any_number_of_parts_gives_the_result_of_one(number, spherical):
    points, _ = blobs()
    whole = Part(points, np.arange(len(points)))
    expected, inertia = fit(LocalParts([whole]), 5, 3, spherical=spherical, restarts=4)
    parts, rows = cut(points, number)
    centers, its = fit(LocalParts(parts), 5, 3, spherical=spherical, restarts=4)
    np.testing.assert_allclose(centers, expected, atol=1e-6)
    assert its == pytest.approx(inertia, rel=1e-12)
    for part, mine in zip(parts, rows, strict=True):
        np.testing.assert_array_equal(part.labels, whole.labels[mine])


@pytest.mark.parametrize("spherical", [False, True])
def test_equals_plain_lloyd_from_the_same_starts(spherical):
    points, _ = blobs(count=25, k=9)
    parts, rows = cut(points, 3)
    centers, inertia = fit(LocalParts(parts), 6, 11, spherical=spherical)
    plain = points.astype(np.float64)
    if spherical:
        plain = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float64)
    slow = kmeans_parts._starts(LocalParts([Part(plain, np.arange(len(plain)))]), 6, 11, 0)
    for _ in range(kmeans_parts.ITERATIONS):
        labels = np.array([np.argmin([((x - c) ** 2).sum() for c in slow]) for x in plain])
        slow = np.stack([plain[labels == one].mean(0) for one in range(6)])
        if spherical:
            slow /= np.linalg.norm(slow, axis=1, keepdims=True)
    np.testing.assert_allclose(centers, slow, atol=1e-4)
    assert inertia == pytest.approx(((plain - slow[labels]) ** 2).sum(), rel=1e-5)
    for part, mine in zip(parts, rows, strict=True):
        np.testing.assert_array_equal(part.labels, labels[mine])


def test_finds_blobs_and_more_restarts_are_never_worse():
    points, truth = blobs(count=40)
    centers, labels = PartsKMeans().fit(points, 5, 0, restarts=8)
    assert agreement.nmi(labels, truth.tolist()) > 0.95
    assert centers.dtype == np.float32 and labels.dtype == np.int64
    inertias = [fit(LocalParts([Part(points, np.arange(len(points)))]), 9, 4, restarts=n)[1] for n in (1, 3, 6)]
    assert inertias == sorted(inertias, reverse=True)


def test_starts_are_drawn_as_by_k_means_plus_plus():
    """Of three points at distances 0, 1 and 2 from the first start, the next start is the far one 4 times in 5."""
    points = np.array([[0.0], [1.0], [2.0]])
    second = []
    for seed in range(3000):
        starts = kmeans_parts._starts(LocalParts([Part(points, np.arange(3))]), 2, seed, 0)[:, 0]
        if starts[0] == 0:
            second.append(starts[1])
    share = np.mean(np.array(second) == 2)
    assert len(second) == pytest.approx(1000, abs=100)
    assert share == pytest.approx(0.8, abs=0.05)


def test_an_empty_cluster_restarts_at_the_worst_point_whichever_part_has_it():
    points = np.array([[0.0], [0.1], [10.0], [50.0], [51.0]])
    parts = LocalParts([Part(points[:2], [0, 1]), Part(points[2:], [2, 3, 4])])
    centers = np.array([[0.0], [-90.0], [-99.0]])
    sums = kmeans_parts.merge(parts.ask("assign", centers))
    np.testing.assert_array_equal(sums.counts, [5, 0, 0])
    moved = kmeans_parts._moved(parts, centers, sums, False)
    np.testing.assert_allclose(moved[:, 0], [points.mean(), 51, 50])


def test_points_that_are_all_equal_are_clustered_too():
    _, labels = PartsKMeans().fit(np.ones((6, 3)), 3, 0, restarts=2)
    assert set(labels.tolist()) <= {0, 1, 2}


def test_merge_adds():
    one = Sums(np.ones((2, 3)), np.array([1, 2]), 0.5, 3)
    total = kmeans_parts.merge([one, one, one])
    np.testing.assert_array_equal(total.totals, 3 * one.totals)
    assert (total.counts.tolist(), total.inertia, total.changed) == ([3, 6], 1.5, 9)


def test_the_draws_of_a_point_are_uniform_and_depend_on_its_id_only():
    ids = kmeans_parts.ids_of([f"clip-{i}" for i in range(20_000)])
    assert len(set(ids.tolist())) == len(ids)
    drawn = kmeans_parts.uniform(ids, 5)
    assert np.histogram(drawn, 10, (0, 1))[0] == pytest.approx(np.full(10, 2000), abs=200)
    np.testing.assert_array_equal(kmeans_parts.uniform(ids[::-1], 5), drawn[::-1])
    assert abs(np.corrcoef(drawn, kmeans_parts.uniform(ids, 6))[0, 1]) < 0.03


def test_too_few_points_and_broken_values():
    parts = [Part(np.zeros((2, 2)), [0, 1]), Part(np.full((2, 2), np.nan), [2, 3])]
    with pytest.raises(DataError, match="4 points cannot be cut into 5"):
        fit(LocalParts(parts), 5, 0)
    with pytest.raises(DataError, match="2 of 4 points are not finite"):
        fit(LocalParts(parts), 2, 0)


def test_workers_that_coordinate_themselves_agree():
    points, _ = blobs()
    parts, _ = cut(points, 3)
    found = on_workers(3, lambda worker: fit(WorkerParts(parts[worker.rank], worker), 5, 3, restarts=2)[0])
    expected, _ = PartsKMeans().fit(points, 5, 3, restarts=2)
    for centers in found:
        np.testing.assert_allclose(centers, expected, atol=1e-6)
