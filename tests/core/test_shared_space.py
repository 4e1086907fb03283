"""The space that two views share: against scikit-learn's canonical correlation, and from sums of any parts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from dsol_core import cluster_count, shared_space
from dsol_core.types import DataError, ShapeError
from tests.core.two_views import views


def test_the_space_holds_what_is_shared_only():
    both = views(4)
    points = shared_space.shared_space(both)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    truth, own = np.repeat(np.arange(4), 40), np.random.default_rng(60).integers(5, size=160)
    assert cluster_count.silhouette(points, truth, 4) > 0.4 > 0.05 > cluster_count.silhouette(points, own, 5)
    shuffled = shared_space.shared_space([both[0], both[1][np.random.default_rng(3).permutation(160)]])
    assert cluster_count.silhouette(shuffled, truth, 4) < 0.1


def test_directions_are_the_canonical_ones():
    both = [view[:, :6] for view in views(4)]
    into = shared_space.axes(shared_space.moments(both), directions=6, shared=3)
    expected = CCA(3, max_iter=5000, tol=1e-10).fit(*both).transform(*both)
    for view, axis, other in zip(both, into, expected, strict=True):
        found = (view - axis.mean) @ axis.matrix
        for column in range(3):
            assert abs(np.corrcoef(found[:, column], other[:, column])[0, 1]) == pytest.approx(1, abs=1e-3)


def test_any_parts_give_one_space():
    both = views(3)
    whole = shared_space.shared_space(both)
    cuts = [[view[rows] for view in both] for rows in (slice(0, 7), slice(7, 70), slice(70, None))]
    into = shared_space.axes(shared_space.added(shared_space.moments(part) for part in cuts))
    pieces = np.concatenate([shared_space.project(part, into) for part in cuts])
    sign = np.sign((whole * pieces).sum(0))
    np.testing.assert_allclose(pieces * sign, whole, atol=1e-5)


def test_neither_scale_nor_shift_nor_copies_of_a_column_matter():
    both = views(3)
    whole = shared_space.shared_space(both)
    changed = [both[0] * np.linspace(1, 9, both[0].shape[1]) + 5, both[1]]
    cosines = whole @ whole.T
    again = shared_space.shared_space(changed)
    np.testing.assert_allclose(again @ again.T, cosines, atol=1e-4)
    constant = [np.concatenate([both[0], np.full((len(both[0]), 2), 3.0)], 1), both[1]]
    again = shared_space.shared_space(constant)
    np.testing.assert_allclose(again @ again.T, cosines, atol=1e-4)


def test_few_units_keep_few_directions():
    assert shared_space.shared_space(views(3, each=8)).shape == (24, 4)
    assert shared_space.sizes(11) == (50, 22) and shared_space.sizes(100) == (300, 200)
    with pytest.raises(ShapeError, match=r"\[3, 4\] units"):
        shared_space.shared_space([np.zeros((3, 2)), np.zeros((4, 2))])


@pytest.mark.parametrize(("view", "name"), [(0, "pictures"), (1, "sounds")])
def test_a_view_that_never_changes_is_named(view: int, name: str):
    both = views(4)
    both[view] = np.full_like(both[view], 0.3, dtype=np.float16)
    with pytest.raises(DataError, match=rf"the {name} of all \d+ units are the same"):
        shared_space.shared_space(both)
