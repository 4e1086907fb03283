"""Clustering in stage one: what describes an object, and the clusters of features in one place (section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dsol_core import dictionary, image, losses, maps, shared_space
from dsol_core.config import StageOneConfig
from dsol_core.dictionary import KMeans
from dsol_core.stage_one_net import StageOneNet
from dsol_core.types import AVBatch, DataError, Worker


class TrainingData(Protocol):
    """The batches of one data set, as a loader gives them to a worker."""

    def train(self, epoch: int, part: int) -> Iterable[AVBatch]:
        """Give one shuffled, augmented pass, equally long on all workers; `part` numbers the passes of an epoch."""
        ...

    def sequential(self) -> Iterable[AVBatch]:
        """Give each row once over all workers, not augmented."""
        ...


@torch.no_grad()
def object_features(net: StageOneNet, batches: Iterable[AVBatch], config: StageOneConfig) -> tuple[list[str], Any]:
    """Describe the sounding object of each row, in evaluation mode.

    "joint" (ours): the attention-pooled object plus its sound, both unit vectors [E]; "trunk" (code): the mean of
    the trunk's features under the audio-visual map's mask [C], not normalised.

    Returns:
        Keys (N) and float32 [N, D].
    """
    training = net.training
    net.eval()
    keys: list[str] = []
    rows: list[Any] = []
    for batch in on_device(batches, net.scale.device):
        seen, visual = net.see(batch.visual, features=batch.features)
        _, audio = net.hear(batch.log_mels)
        if config.cluster_space == "joint":
            objects = losses.attention_pool(visual, audio) + audio
        else:
            heat = net.audio_visual_map(visual, audio).unsqueeze(1)
            mask = maps.object_mask(heat, config.mask_threshold, dilate=config.mask_dilate)
            objects = maps.masked_mean(seen, mask, over=config.mask_mean)
        keys += batch.keys
        rows.append(objects.float().cpu().numpy())
    net.train(training)
    width = net.centers.shape[1]
    return keys, np.concatenate(rows) if rows else np.zeros((0, width), np.float32)


@torch.no_grad()
def input_features(net: StageOneNet, batches: Iterable[AVBatch]) -> tuple[list[str], Any, Any]:
    """Describe each row without anything learnt here: what the ImageNet trunk and the spectrogram show (ours).

    Returns:
        Keys (N); largest value of each channel of the trunk [N, C]; mean, deviation, largest value and mean change
        over time of each mel band [N, 4 M].
    """
    training = net.training
    net.eval()
    keys: list[str] = []
    seen: list[Any] = []
    heard: list[Any] = []
    for batch in on_device(batches, net.scale.device):
        features = net.whole_trunk(batch.visual, features=batch.features)
        mels = batch.log_mels[:, 0]
        change = (mels[:, 1:] - mels[:, :-1]).abs().mean(1)
        keys += batch.keys
        seen.append(features.amax((2, 3)).cpu().numpy())
        heard.append(torch.cat([mels.mean(1), mels.std(1), mels.amax(1), change], 1).cpu().numpy())
    net.train(training)
    return keys, np.concatenate(seen), np.concatenate(heard)


def on_device(batches: Iterable[AVBatch], device: Any) -> Iterator[AVBatch]:
    """Move the tensors of each batch."""
    for batch in batches:
        yield move(batch, device)


def move(batch: AVBatch, device: Any) -> AVBatch:
    """Return the batch on a device, as the networks take it: floats, pictures normalised there."""

    def there(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device, non_blocking=True)
        return image.normalised(tensor) if tensor.dtype == torch.uint8 else tensor.float()

    other, mixed = (None if tensor is None else there(tensor) for tensor in (batch.other, batch.mixed))
    return replace(batch, visual=there(batch.visual), log_mels=there(batch.log_mels), other=other, mixed=mixed)


def noting_videos(batches: Iterable[AVBatch], videos: dict[str, str]) -> Iterator[AVBatch]:
    """Give the batches on and note the video of each key."""
    for batch in batches:
        videos.update(zip(batch.keys, batch.video_ids, strict=True))
        yield batch


def gathered(rows: tuple[list[str], *tuple[Any, ...]], worker: Worker) -> list[Any]:
    """Collect keys and arrays [N, D] of all workers, sorted by key: the order does not depend on their number."""
    parts = worker.gather_objects(rows)
    keys = [key for part in parts for key in part[0]]
    order = np.argsort(np.array(keys))
    arrays = [np.concatenate([part[i] for part in parts])[order] for i in range(1, len(rows))]
    return [[keys[i] for i in order], *arrays]


def averaged(features: Any, rows: Any) -> Any:
    """Average the features [N, D] of rows with the same place [N]; return [V, D]."""
    total = np.zeros((int(rows.max()) + 1, features.shape[1]))
    np.add.at(total, rows, features)
    return total / np.bincount(rows)[:, None]


def places(videos: Sequence[str], config: StageOneConfig) -> Any:
    """Number what gets one label: the videos (N), or each clip with `cluster_unit` "clip"; return int64 [N].

    Raises:
        DataError: there are fewer than clusters.
    """
    rows = np.arange(len(videos))
    if config.cluster_unit == "video":
        rows = np.unique(np.asarray(videos), return_inverse=True)[1]
    count = len(np.unique(rows))
    if count < config.clusters:
        raise DataError(too_few(count, config))
    return rows


def too_few(count: int, config: StageOneConfig) -> str:
    """Say that there are too few units to cluster, and what to do."""
    return (
        f"{count} {config.cluster_unit}s cannot be cut into {config.clusters} clusters; give "
        'more videos, lower stage_one.clusters or, where videos are few, set stage_one.cluster_unit to "clip"'
    )


def first_clusters(
    videos: Sequence[str], views: Sequence[Any], kmeans: KMeans, config: StageOneConfig, seed: int
) -> Any:
    """Cluster what two views [N, D] of clips of the given videos (N) share; return clusters int64 [N]."""
    rows = places(videos, config)
    points = shared_space.shared_space([averaged(view, rows) for view in views], *shared_space.sizes(config.clusters))
    _, found = kmeans.fit(points, config.clusters, seed, spherical=True, restarts=config.restarts)
    return np.asarray(found, np.int64)[rows]


def gathered_clusters(
    rows: tuple[list[str], *tuple[Any, ...]],
    videos: dict[str, str],
    config: StageOneConfig,
    seed: int,
    worker: Worker,
    kmeans: KMeans,
    *,
    bare: bool,
) -> tuple[list[str], Any, Any]:
    """Gather the rows of all workers and cluster them on the first; see `clustering_parts.distributed_clusters`.

    Args:
        rows: keys (n) and arrays [n, D] of this worker's rows, of `input_features` or `object_features`.
        videos: video of each of these keys; takes in those of the other workers.
        config: of the stage.
        seed: of the clustering.
        worker: joins the workers.
        kmeans: clusters.
        bare: the arrays are two views of bare inputs, clustered by what they share; else one array of object features.

    Returns:
        On every worker: all keys, sorted; centers [K, D], None if bare; clusters int64 [N] of the keys.
    """
    keys, *features = gathered(rows, worker)
    for others in worker.gather_objects(videos):
        videos.update(others)
    owners = [videos[key] for key in keys]
    if bare:
        return keys, None, worker.share(lambda: first_clusters(owners, features, kmeans, config, seed))
    centers, found = worker.share(lambda: fit_clusters(owners, features[0], kmeans, config, seed))
    return keys, centers, found


def fit_clusters(
    videos: Sequence[str], features: Any, kmeans: KMeans, config: StageOneConfig, seed: int
) -> tuple[Any, Any]:
    """Cluster object features [N, D] of clips of the given videos (N); return centers [K, D] and clusters [N].

    Centers are unit vectors in the joint space, means of the un-normalised features in the trunk's (code).
    """
    means, rows = unit_means(videos, features, config)
    centers, found = kmeans.fit(
        means.astype(np.float32), config.clusters, seed, spherical=config.spherical, restarts=config.restarts
    )
    found = np.asarray(found, np.int64)[rows]
    if config.cluster_space == "trunk":
        centers = dictionary.build(features, found, config.clusters).centers
    return np.asarray(centers, np.float32), found


def unit_means(videos: Sequence[str], features: Any, config: StageOneConfig) -> tuple[Any, Any]:
    """Normalise features [N, D] and average those that get one label together.

    Returns:
        Unit vectors [V, D] and, for each row, its place among them [N].
    """
    rows = places(videos, config)
    return unit_rows(averaged(unit_rows(features), rows)), rows


def unit_rows(rows: Any) -> Any:
    """Scale each row of [N, D] to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
