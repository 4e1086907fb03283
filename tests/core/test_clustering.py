"""What is clustered in stage one: features against slow references, one label a video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsol_core import agreement, clustering, maps, stage_one
from dsol_core.dictionary import NumpyKMeans
from dsol_core.types import DataError, LocalWorker
from tests.core.tiny_pairs import OURS, PAPER, TinyPairs

WORKER = LocalWorker()


def started(config):
    return stage_one.start(config, 40, 0, WORKER)


def test_trunk_features_equal_the_slow_ones():
    state, data = started(PAPER), TinyPairs(PAPER, count=8)
    config = replace(PAPER, mask_threshold=0.5)
    keys, features = clustering.object_features(state.net, data.sequential(), config)
    batch = next(iter(data.sequential()))
    state.net.eval()
    out = state.net(batch.visual, batch.log_mels, features=True)
    assert keys == data.keys and features.shape == (8, 16)
    for row in range(8):
        mask = maps.object_mask(out.map[row][None, None], 0.5, dilate=True)[0, 0]
        slow = sum(out.features[row, :, y, x] for y in range(4) for x in range(4) if mask[y, x]) / 16
        np.testing.assert_allclose(features[row], torch.as_tensor(slow).detach().expand(16).numpy(), atol=1e-5)
    assert not state.net.training


def test_joint_features_do_not_depend_on_batching():
    state, data = started(OURS), TinyPairs(OURS)
    keys, features = clustering.gathered(clustering.object_features(state.net, data.sequential(), OURS), WORKER)
    backwards = list(data.sequential())[::-1]
    again_keys, again = clustering.gathered(clustering.object_features(state.net, backwards, OURS), WORKER)
    assert keys == again_keys == sorted(data.keys)
    np.testing.assert_allclose(features, again, atol=1e-6)


def test_first_labels_come_from_the_bare_inputs():
    data = TinyPairs(OURS)
    state = started(OURS)
    keys, seen, heard = clustering.input_features(state.net, data.sequential())
    assert keys == data.keys
    np.testing.assert_allclose(seen, data.visual.max((2, 3)), atol=1e-5)
    mels = data.mels[:, 0]
    slow = [mels.mean(1), mels.std(1, ddof=1), mels.max(1), np.abs(np.diff(mels, axis=1)).mean(1)]
    np.testing.assert_allclose(heard, np.concatenate(slow, 1), atol=1e-4)
    stage_one.cluster(state, data, NumpyKMeans(), WORKER)
    found = [state.labels[key] for key in data.keys]
    assert agreement.nmi(found, [str(c) for c in data.classes]) > 0.9
    assert state.centers is None  # they are not the network's


def test_clips_of_a_video_share_a_label():
    generator = np.random.default_rng(0)
    videos = [f"v{i // 4}" for i in range(48)]
    features = generator.normal(size=(48, 5)).astype(np.float32)
    for unit, many in (("video", 12), ("clip", 48)):
        config = replace(OURS, cluster_unit=unit)
        means, rows = clustering.unit_means(videos, features, config)
        assert means.shape == (many, 5) and rows.shape == (48,)
        _, found = clustering.fit_clusters(videos, features, NumpyKMeans(), config, 0)
        labels = {(video, int(label)) for video, label in zip(videos, found, strict=True)}
        assert (len(labels) == 12) is (unit == "video")
    unit_vectors = features / np.linalg.norm(features, axis=1, keepdims=True)
    means, rows = clustering.unit_means(videos, features, OURS)
    slow = unit_vectors[[i for i, v in enumerate(videos) if v == "v3"]].mean(0)
    np.testing.assert_allclose(means[rows[12]], slow / np.linalg.norm(slow), atol=1e-6)


def test_too_few_videos_are_explained():
    with pytest.raises(DataError, match="2 videos cannot be cut into 3"):
        clustering.places(["a", "b", "a"], OURS)
    assert clustering.places(["a", "b", "a"], replace(OURS, cluster_unit="clip")).tolist() == [0, 1, 2]


@pytest.mark.parametrize("training", [True, False])
def test_bare_inputs_are_described_in_evaluation_mode(training):
    """A trunk that trains has batch norms: in training mode they would learn, and see the batch."""
    state, data = started(PAPER), TinyPairs(PAPER, count=8)
    state.net.trunk = torch.nn.BatchNorm2d(3)
    state.net.config = replace(PAPER, backbone=replace(PAPER.backbone, frozen=False))
    state.net.train(training)
    frames = torch.randn(8, 3, 4, 4)
    batches = [replace(batch, visual=frames[: len(batch.keys)], features=False) for batch in data.sequential()]
    _, seen, _ = clustering.input_features(state.net, batches)
    np.testing.assert_allclose(seen, frames.amax((2, 3)), atol=1e-4)
    assert not state.net.trunk.running_mean.any()
    assert state.net.training is training


def test_first_labels_look_at_the_whole_trunk_although_the_cache_ends_earlier():
    split = replace(OURS, backbone=replace(OURS.backbone, trainable_blocks=1))
    state, data = started(split), TinyPairs(OURS)
    data.visual = data.visual[:, :80]  # what the fixed stages say
    _, seen, _ = clustering.input_features(state.net, data.sequential())
    with torch.no_grad():
        whole = state.net.upper.eval()(torch.from_numpy(data.visual).float())
    np.testing.assert_allclose(seen, whole.amax((2, 3)).numpy(), atol=1e-5)
