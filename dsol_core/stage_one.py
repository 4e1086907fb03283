"""Stage one: audio-visual matching alternated with clustering and classification (paper sections 3.1 and 3.2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsol_core import dictionary, losses
from dsol_core.clustering import (
    TrainingData,
    input_features,
    move,
    noting_videos,
    object_features,
    on_device,
)
from dsol_core.config import StageOneConfig
from dsol_core.dictionary import KMeans
from dsol_core.optimising import Means, learning_rate, make_optimizer, update
from dsol_core.pseudo_labels import cluster_rows
from dsol_core.stage_one_net import StageOneNet, StageOneOutput, build_stage_one
from dsol_core.types import AVBatch, DataError, Worker

log = logging.getLogger(__name__)


@dataclass
class StageOneState:
    """Everything that training changes.

    Attributes:
        config: of the stage.
        seed: of all random choices, together with the epoch.
        steps: optimizer steps of the whole training, for the learning rate.
        net: the network; its weights are what the stage is for.
        wrapped: the same, ready for data-parallel training.
        optimizer: of all but the class layers of the paper's recipe.
        epoch: epochs done.
        step: optimizer steps done.
        labels: key -> cluster of the last clustering, or None before the first.
        centers: [K, D] of the last clustering, or None.
        history: the statistics of each epoch.
    """

    config: StageOneConfig
    seed: int
    steps: int
    net: StageOneNet
    wrapped: Any
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    labels: dict[str, int] | None = None
    centers: Any = None
    history: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers, strings, lists and dicts only (`torch.load(weights_only=True)` reads it)."""
        keys = sorted(self.labels) if self.labels is not None else None
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.steps,
            "seed": self.seed,
            "label_keys": keys,
            "label_clusters": [self.labels[key] for key in keys]
            if self.labels is not None and keys is not None
            else None,
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.epoch, self.step, self.steps, self.seed = (saved[k] for k in ("epoch", "step", "steps", "seed"))
        keys = saved["label_keys"]
        self.labels = None if keys is None else dict(zip(keys, saved["label_clusters"], strict=True))
        self.centers = None if keys is None else self.net.centers.cpu().numpy()
        self.history = [dict(row) for row in saved["history"]]


def start(config: StageOneConfig, steps: int, seed: int, worker: Worker, weights: Path | None = None) -> StageOneState:
    """Make an untrained stage one.

    Args:
        config: of the stage.
        steps: optimizer steps of the whole training (batches of all passes of all epochs).
        seed: of the initial weights and all later choices.
        worker: the cluster, or `LocalWorker()`.
        weights: file of ImageNet weights of the picture trunk.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_stage_one(config, weights)
    net = net.to(worker.device)
    named = [(name, one) for name, one in net.named_parameters() if not name.startswith("class_")]
    optimizer = make_optimizer(config, named, config.backbone.block_rate)
    return StageOneState(config, seed, max(1, steps), net, worker.wrap(net), optimizer)


def train_epoch(state: StageOneState, data: TrainingData, kmeans: KMeans, worker: Worker) -> dict[str, float]:
    """Train the whole of one epoch: matching, clustering when it is due, and classification.

    With `classification_passes` 0 (ours) clustering comes first and its labels are learnt while matching; otherwise
    (code) matching comes first, then clustering, then that many passes with fresh class layers.

    Returns:
        Means over the epoch's batches, also appended to `state.history`.
    """
    config = state.config
    if state.epoch == 0 and config.audio.standardise:
        measure_log_mels(state.net, data, worker)
    means = Means()
    due = state.epoch >= config.first_clustering or (state.labels is None and config.first_labels == "inputs")
    due = due and config.matching != "tokens"
    if due and config.classification_passes == 0:
        means.add(cluster(state, data, kmeans, worker))
    state.net.train()
    for number, batch in enumerate(data.train(state.epoch, 0)):
        means.add(_matching_step(state, batch, number, worker))
    if due and config.classification_passes > 0:
        means.add(cluster(state, data, kmeans, worker))
        _classify(state, data, means, worker)
    state.epoch += 1
    state.history.append(means.result())
    return dict(state.history[-1])


@torch.no_grad()
def measure_log_mels(net: StageOneNet, data: TrainingData, worker: Worker) -> None:
    """Set the network's mean and deviation of each mel band [M] from one pass over the training set."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for batch in data.sequential():
        values = batch.log_mels.double().flatten(0, 2)
        count, total, square = count + len(values), total + values.sum(0), square + values.pow(2).sum(0)
    parts = worker.gather_objects((count, total.tolist(), square.tolist()))
    counts = sum(part[0] for part in parts)
    if counts == 0:
        raise DataError("the training set has no rows; look at the counts of the step that wrote its shards")
    mean = torch.tensor([part[1] for part in parts if part[0]], dtype=torch.float64).sum(0) / counts
    power = torch.tensor([part[2] for part in parts if part[0]], dtype=torch.float64).sum(0) / counts
    net.mel_mean.copy_(mean)
    net.mel_deviation.copy_((power - mean**2).clamp_min(1e-6).sqrt())


def cluster(state: StageOneState, data: TrainingData, kmeans: KMeans, worker: Worker) -> dict[str, float]:
    """Cluster the objects of the training set and make the clusters the pseudo-labels of all workers."""
    config, net = state.config, state.net
    seed = state.seed * 1000 + state.epoch
    bare = state.labels is None and state.epoch < config.first_clustering
    videos: dict[str, str] = {}
    rows = noting_videos(data.sequential(), videos)
    local = input_features(net, rows) if bare else object_features(net, rows, config)
    keys, centers, found = cluster_rows(local, videos, config, seed, worker, kmeans, bare=bare)
    changed = 1.0
    if not bare:
        if state.labels is not None:
            old = np.array([state.labels.get(key, int(now)) for key, now in zip(keys, found, strict=True)])
            if config.align_labels:
                moved = dictionary.align(found, old, config.clusters)
                centers, found = centers[np.argsort(moved)], moved[found]
            changed = float((old != found).mean())
        _adopt_centers(state, centers)
    state.labels = {key: int(label) for key, label in zip(keys, found, strict=True)}
    smallest = np.bincount(found, minlength=config.clusters).min() / len(found)
    return {"relabelled": changed, "smallest_cluster": float(smallest)}


def _adopt_centers(state: StageOneState, centers: Any) -> None:
    """Keep new centers [K, D]; prototypes of the same space start from them, without the old momentum."""
    net = state.net
    state.centers = centers
    net.centers.copy_(torch.from_numpy(centers))
    if net.prototypes.requires_grad and state.config.cluster_space == "joint":
        net.prototypes.data.copy_(net.centers)
        if "exp_avg" in state.optimizer.state.get(net.prototypes, {}):
            state.optimizer.state[net.prototypes]["exp_avg"].zero_()


@torch.no_grad()
def localise(net: StageOneNet, batch: AVBatch) -> Any:
    """Return where anything sounds, whatever it is: float32 [B, h, w] in (0, 1), in evaluation mode.

    Single-source frames are localised with this map of stage one (paper section 4.2; code: `solo` test).
    """
    net.eval()
    batch = move(batch, net.scale.device)
    _, visual = net.see(batch.visual, features=batch.features)
    _, audio = net.hear(batch.log_mels[:, :1])
    return net.audio_visual_map(visual, audio).float().cpu().numpy()


def _targets(state: StageOneState, batch: AVBatch, device: Any) -> Tensor | None:
    """Return the pseudo-labels of the global batch, int64 [B'], or None before the first clustering."""
    if state.labels is None:
        return None
    missing = [key for key in batch.all_keys if key not in state.labels]
    if missing:
        raise DataError(f"{len(missing)} rows have no cluster, such as {missing[0]}; sequential() must give every row")
    return torch.tensor([state.labels[key] for key in batch.all_keys], device=device)


def _matching_step(state: StageOneState, batch: AVBatch, number: int, worker: Worker) -> dict[str, Tensor]:
    config = state.config
    batch = move(batch, worker.device)
    out: StageOneOutput = state.wrapped(
        batch.visual, batch.log_mels, features=batch.features, other=batch.other, mixed=batch.mixed
    )
    visual, audio = worker.gather(out.visual), worker.gather(out.audio)
    separate = config.classification_passes > 0
    targets = None if separate else _targets(state, batch, worker.device)
    if config.matching == "tokens":
        parts, targets = _token_parts(config, out, visual, audio, batch)
    elif config.matching == "contrastive":
        alike = targets if config.drop_same_cluster and state.epoch >= config.drop_from else None
        parts = {"matching": _contrastive(config, out, visual, audio, batch, alike)}
    else:
        seed = (state.seed * 1000 + state.epoch) * 100_003 + number
        parts = {"matching": _binary(config, out, visual, audio, batch, seed, worker)}
    loss = parts["matching"]
    if targets is not None:
        if config.matching != "tokens":
            parts["prototypes"] = _prototype_loss(config, out.prototypes, visual, audio, targets)
        parts["presence"] = _presence_loss(config, out, batch, targets, worker)
        loss = loss + config.prototype_weight * parts["prototypes"] + config.presence_weight * parts["presence"]
    idle = ("class_visual", "class_audio") + (() if targets is not None else ("presence", "prototypes"))
    idle += () if config.matching == "binary" else ("scale",)  # the map takes part in the paper's loss alone
    update(state, [state.optimizer], loss, out, idle, learning_rate(config, state.step, state.steps))
    return parts


def pooled_share(config: StageOneConfig) -> float:
    """Return the share of the cells that the pooling averages; 0: the best one only."""
    return config.top_share if config.pooling == "top" else 0.0


def _contrastive(
    config: StageOneConfig, out: StageOneOutput, visual: Tensor, audio: Tensor, batch: AVBatch, alike: Tensor | None
) -> Tensor:
    """InfoNCE of the global batch; pairs of one video, or of equal labels `alike`, are no negatives."""
    scores = losses.pair_scores(visual, audio, pooled_share(config), out.sharpness)
    ignored = losses.same_video(batch.all_video_ids).to(scores.device)
    if alike is not None:
        ignored = ignored | (alike[:, None] == alike[None])
    return losses.contrastive(scores, config.temperature, ignored)


def _token_parts(
    config: StageOneConfig, out: StageOneOutput, visual: Tensor, audio: Tensor, batch: AVBatch
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of learnt tokens, and the token that each row of the global batch shows, int64 [B'].

    InfoNCE, and the cross-entropy of picture and sound against the tokens that they show together.
    """
    heat = config.prototype_temperature
    seen = losses.token_presence(visual.flatten(2), out.prototypes, heat)
    heard = losses.token_presence(audio.unsqueeze(2), out.prototypes, heat)
    shared = losses.shared_tokens(seen, heard)
    parts = {
        "matching": _contrastive(config, out, visual, audio, batch, None),
        "prototypes": losses.classification(seen, shared) + losses.classification(heard, shared),
    }
    return parts, shared.argmax(1)


def _binary(
    config: StageOneConfig,
    out: StageOneOutput,
    visual: Tensor,
    audio: Tensor,
    batch: AVBatch,
    seed: int,
    worker: Worker,
) -> Tensor:
    """Cross-entropy of the pooled map, one matched and one mismatched picture a sound (paper equation 2)."""
    matched = worker.gather(out.map)
    if config.negatives == "set" and out.other_map is None:
        raise DataError('stage_one.negatives is "set" but the loader gave no other pictures (AVBatch.other)')
    mismatched = mismatched_map(out.other_map, out.scale, visual, audio, batch, seed, worker)
    scores = losses.pool(torch.cat([matched, mismatched]).flatten(1), pooled_share(config), out.sharpness)
    target = torch.cat([torch.ones(len(matched)), torch.zeros(len(mismatched))]).to(scores.device)
    return losses.matching(scores, target)


def mismatched_map(
    other: Tensor | None, scale: Tensor, visual: Tensor, audio: Tensor, batch: AVBatch, seed: int, worker: Worker
) -> Tensor:
    """Return the map of each sound of the global batch in a picture of another video, [B', h, w].

    Args:
        other: [B, h, w] the worker's maps in pictures of the whole set, or None: pictures of the batch are taken.
        scale: factor inside the map.
        visual: [B', E, h, w] cells of the global batch.
        audio: [B', E] its sounds.
        batch: tells the videos.
        seed: of the choice within the batch.
        worker: gathers.
    """
    if other is not None:
        return worker.gather(other)
    rows = losses.other_video(batch.all_video_ids, torch.Generator().manual_seed(seed)).to(audio.device)
    return torch.sigmoid(scale * torch.einsum("behw,be->bhw", visual[rows], audio))


def _prototype_loss(
    config: StageOneConfig, prototypes: Tensor, visual: Tensor, audio: Tensor, targets: Tensor
) -> Tensor:
    """Cross-entropy of pictures and of sounds against the shared cosine prototypes (ours)."""
    objects = losses.attention_pool(visual, audio)
    heat = config.prototype_temperature
    return losses.classification(objects @ prototypes.T / heat, targets) + losses.classification(
        audio @ prototypes.T / heat, targets
    )


def _presence_loss(
    config: StageOneConfig, out: StageOneOutput, batch: AVBatch, targets: Tensor, worker: Worker
) -> Tensor:
    """Binary cross-entropy of which entries sound, on single sounds and on mixtures (ours)."""
    single = torch.nn.functional.one_hot(targets, config.clusters).float()
    loss = losses.presence(worker.gather(out.presence), single)
    if out.mixed_presence is not None:
        loss = loss + losses.presence(worker.gather(out.mixed_presence), mixed_targets(single, batch))
    return loss


def mixed_targets(single: Tensor, batch: AVBatch) -> Tensor:
    """Return which entries sound in each mixture of the global batch, [B' * n, K], from those of its rows [B', K]."""
    partners = torch.tensor(batch.all_mixed_partners, device=single.device)
    first = torch.arange(len(single), device=single.device).repeat_interleave(len(partners) // len(single))
    return torch.maximum(single[first], single[partners])


def _classify(state: StageOneState, data: TrainingData, means: Means, worker: Worker) -> None:
    """Train trunks and freshly made class layers on the pseudo-labels (code)."""
    config, net = state.config, state.net
    net.renew_class_layers(state.seed * 1000 + state.epoch)
    layers = [*net.class_visual.parameters(), *net.class_audio.parameters()]
    fresh = torch.optim.Adam(layers, lr=config.class_learning_rate, weight_decay=config.weight_decay)
    net.train()
    for part in range(1, config.classification_passes + 1):
        for batch in on_device(data.train(state.epoch, part), worker.device):
            out = state.wrapped(batch.visual, batch.log_mels, features=batch.features)
            targets = _targets(state, batch, worker.device)
            if targets is None:
                raise DataError("classification needs the labels of a clustering; call cluster first")
            visual, audio = worker.gather(out.visual_logits), worker.gather(out.audio_logits)
            loss = losses.classification(visual, targets) + losses.classification(audio, targets)
            idle = ("project_", "scale", "log_sharpness", "presence", "prototypes")
            rate = learning_rate(config, state.step, state.steps)
            update(state, [state.optimizer, fresh], loss, out, idle, rate)
            means.add({"classification": loss})
