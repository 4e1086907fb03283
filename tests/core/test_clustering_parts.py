"""Stage one's clusterings with features on their workers: the result of any number of workers is that of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsol_core import agreement, clustering, dictionary, stage_one
from dsol_core.clustering_parts import distributed_clusters
from dsol_core.types import DataError, LocalWorker
from tests.core.gathering import PartsKMeans, on_workers
from tests.core.tiny_pairs import CLASSES, OURS, PAPER, TinyPairs

SHARED = replace(OURS, kmeans="distributed", clusters=4, restarts=3)


def made(count=120, seed=0):
    """Two views of clips, three clips a video, four classes."""
    generator = np.random.default_rng(seed)
    truth = np.arange(count) // 3 % 4
    views = [generator.normal(size=(count, size)) + 4 * generator.normal(size=(4, size))[truth] for size in (30, 50)]
    keys = [f"clip-{row:04d}" for row in range(count)]
    return keys, views, {key: f"video-{row // 3:03d}" for row, key in enumerate(keys)}, truth


def spread(world, config, *, bare):
    """Deal the clips out as the loader does, in stripes that cut videos; return what each worker gets to know."""
    keys, views, videos, _ = made()
    owner = np.arange(len(keys)) // 5 % world

    def work(worker):
        mine = np.flatnonzero(owner == worker.rank)
        arrays = [view[mine] for view in (views if bare else views[:1])]
        own = [keys[row] for row in mine]
        return distributed_clusters((own, *arrays), {key: videos[key] for key in own}, config, 7, worker, bare=bare)

    return on_workers(world, work)


@pytest.mark.parametrize("unit", ["video", "clip"])
@pytest.mark.parametrize("space", ["bare", "joint", "trunk"])
def test_three_workers_find_what_one_finds(space, unit):
    config = replace(SHARED, cluster_unit=unit, cluster_space="trunk" if space == "trunk" else "joint")
    config = replace(config, spherical=space != "trunk")
    ((keys, centers, found),) = spread(1, config, bare=space == "bare")
    assert keys == made()[0]
    for its_keys, its_centers, its_found in spread(3, config, bare=space == "bare"):
        assert its_keys == keys
        np.testing.assert_array_equal(its_found, found)
        if space == "bare":
            assert centers is None and its_centers is None
        else:
            np.testing.assert_allclose(its_centers, centers, atol=1e-4)
    if unit == "video":
        assert all(len(set(found[row : row + 3])) == 1 for row in range(0, len(found), 3))
    assert agreement.nmi(found, made()[3].tolist()) > 0.95


@pytest.mark.parametrize("space", ["bare", "joint", "trunk"])
def test_finds_what_the_gathered_form_finds(space):
    config = replace(SHARED, cluster_space="trunk" if space == "trunk" else "joint", restarts=8)
    ((_, centers, found),) = spread(1, config, bare=space == "bare")
    keys, views, videos, _ = made()
    owners = [videos[key] for key in keys]
    if space == "bare":
        expected = clustering.first_clusters(owners, views, PartsKMeans(), config, 7)
    else:
        means, expected = clustering.fit_clusters(owners, views[0], PartsKMeans(), config, 7)
    moved = dictionary.align(found, expected, 4)
    np.testing.assert_array_equal(moved[found], expected)
    if space != "bare":
        np.testing.assert_allclose(centers[np.argsort(moved)], means, atol=1e-4)


@pytest.mark.parametrize("config", [replace(OURS, kmeans="distributed"), replace(PAPER, kmeans="distributed")])
def test_stage_one_trains_with_it(config):
    data = TinyPairs(config)
    state = stage_one.start(config, 40, 0, LocalWorker())
    for _ in range(3):
        figures = stage_one.train_epoch(state, data, PartsKMeans(), LocalWorker())
    assert sorted(state.labels) == sorted(data.keys) and state.centers.shape[0] == CLASSES
    assert agreement.nmi([state.labels[key] for key in data.keys], [str(c) for c in data.classes]) > 0.6
    assert figures["relabelled"] <= 1


def test_too_few_videos_are_refused():
    config = replace(SHARED, clusters=41)
    with pytest.raises(DataError, match="40 videos cannot be cut into 41 clusters"):
        spread(2, config, bare=False)
