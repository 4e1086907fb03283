"""The object dictionary: its centers, its numbers, what it refuses, and that workers find what one finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsol_core import agreement, clustering, stage_one
from dsol_core.config import DictionaryConfig
from dsol_core.dictionary import NumpyKMeans
from dsol_core.pseudo_labels import fit_dictionary
from dsol_core.types import DataError, LocalWorker
from tests.core.gathering import PartsKMeans, on_workers
from tests.core.tiny_pairs import CLASSES, OURS, PAPER, PAPER_DICTIONARY, TinyPairs

WORKER = LocalWorker()


def trained(config, epochs):
    state, data = stage_one.start(config, 40, 0, WORKER), TinyPairs(config)
    for _ in range(epochs):
        stage_one.train_epoch(state, data, NumpyKMeans(), WORKER)
    return state, data


def test_dictionary_from_the_final_weights_and_from_the_last_clustering():
    state, data = trained(OURS, 5)
    entries, labels = fit_dictionary(state.net, data, DictionaryConfig(), NumpyKMeans(), 0, WORKER)
    assert entries.centers.shape == (CLASSES, 16) and entries.counts.sum() == 48
    np.testing.assert_allclose(np.linalg.norm(entries.centers, axis=1), 1, atol=1e-5)
    assert agreement.nmi(labels.clusters, [str(c) for c in data.classes]) > 0.9
    paper, data = trained(PAPER, 3)
    entries, labels = fit_dictionary(paper.net, data, PAPER_DICTIONARY, NumpyKMeans(), 0, WORKER)
    np.testing.assert_array_equal(entries.centers, paper.net.centers.numpy())
    recomputed = DictionaryConfig(space="trunk", recompute=True)
    again, labels = fit_dictionary(paper.net, data, recomputed, NumpyKMeans(), 0, WORKER)
    _, features = clustering.object_features(paper.net, data.sequential(), PAPER)
    for k in range(CLASSES):
        np.testing.assert_allclose(again.centers[k], features[labels.clusters == k].mean(0), atol=1e-5)
    with pytest.raises(DataError, match="recompute: true"):
        fit_dictionary(state.net, data, PAPER_DICTIONARY, NumpyKMeans(), 0, WORKER)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("config", "space"),
    [(PAPER, "trunk"), (replace(OURS, prototype_weight=0.0), "joint"), (OURS, "joint")],
    ids=["paper", "without prototypes", "ours"],
)
def test_a_new_clustering_keeps_the_numbers_that_the_heads_learnt(config, space, seed):
    state, data = trained(config, 3)
    again = DictionaryConfig(space=space, recompute=True)
    entries, labels = fit_dictionary(state.net, data, again, NumpyKMeans(), seed, WORKER)
    learnt = [state.labels[key] for key in labels.keys]
    assert np.mean(labels.clusters == learnt) > 0.9
    unit = torch.nn.functional.normalize(torch.from_numpy(entries.centers), dim=1)
    known = torch.nn.functional.normalize(state.net.centers, dim=1)
    assert (unit @ known.T).argmax(1).tolist() == list(range(CLASSES))
    np.testing.assert_array_equal(entries.counts, np.bincount(labels.clusters, minlength=CLASSES))


@pytest.mark.parametrize("seed", range(4))
def test_so_does_the_first_one_after_the_labels_of_bare_inputs(seed):
    state, data = trained(replace(OURS, epochs=3, first_clustering=3), 3)
    assert not state.net.centers.any()
    _, labels = fit_dictionary(state.net, data, DictionaryConfig(), NumpyKMeans(), seed, WORKER)
    assert np.mean(labels.clusters == [state.labels[key] for key in labels.keys]) > 0.9


@pytest.mark.parametrize("recompute", [True, False])
def test_without_a_clustering_there_is_no_dictionary(recompute):
    state, data = trained(PAPER, 1)
    assert not state.net.centers.any()
    with pytest.raises(DataError, match=r"more epochs than stage_one\.first_clustering = 1"):
        fit_dictionary(state.net, data, replace(PAPER_DICTIONARY, recompute=recompute), NumpyKMeans(), 0, WORKER)
    # First labels of the bare inputs train prototypes without any clustering of what is learnt.
    ours, data = trained(OURS, 1)
    assert fit_dictionary(ours.net, data, DictionaryConfig(), NumpyKMeans(), 0, WORKER)[0].counts.sum() == 48
    with pytest.raises(DataError, match="never clustered"):
        fit_dictionary(ours.net, data, DictionaryConfig(recompute=False), NumpyKMeans(), 0, WORKER)
    bare, data = trained(replace(OURS, first_labels="none"), 1)
    with pytest.raises(DataError, match="never clustered"):
        fit_dictionary(bare.net, data, DictionaryConfig(), NumpyKMeans(), 0, WORKER)


class OwnVideos(TinyPairs):
    """The same pairs, three clips a video, so that the batches of two workers cut videos."""

    def _batch(self, rows, everything, generator=None):
        batch = super()._batch(rows, everything, generator)
        return replace(batch, video_ids=tuple(f"video-{row // 9 * 3 + row % 3:02d}" for row in rows))


@pytest.mark.parametrize("kmeans", ["gathered", "distributed"])
@pytest.mark.parametrize(
    ("config", "entries"),
    [
        (OURS, DictionaryConfig()),
        (OURS, DictionaryConfig(recompute=False)),
        (replace(OURS, cluster_unit="clip"), DictionaryConfig()),
        (PAPER, PAPER_DICTIONARY),
        (PAPER, DictionaryConfig(space="trunk", recompute=True)),
    ],
    ids=["ours", "last clustering", "clips", "paper", "paper, final weights"],
)
def test_three_workers_build_the_dictionary_of_one(config, entries, kmeans):
    config = replace(config, kmeans=kmeans)
    state, _ = trained(config, 3)

    def work(worker):
        data = OwnVideos(config, rank=worker.rank, world=worker.world_size)
        return fit_dictionary(state.net, data, entries, PartsKMeans(), 5, worker)

    ((one, labels),) = on_workers(1, work)
    assert labels.keys == tuple(TinyPairs(config).keys)
    for its, its_labels in on_workers(3, work):
        assert its_labels.keys == labels.keys and its.names == one.names
        np.testing.assert_array_equal(its_labels.clusters, labels.clusters)
        np.testing.assert_array_equal(its.counts, one.counts)
        np.testing.assert_allclose(its.centers, one.centers, atol=1e-4)
    if config.cluster_unit == "video":
        videos = {f"clip-{row:03d}": row // 9 * 3 + row % 3 for row in range(48)}
        found = {(videos[key], int(cluster)) for key, cluster in zip(labels.keys, labels.clusters, strict=True)}
        assert len(found) == len(set(videos.values())), "one label a video"
