"""The cache of what a frozen picture trunk says about every picture, made once, shard by shard, by Ray tasks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dsol_core import audio, image
from dsol_core.config import AudioConfig, ImageConfig, StageOneConfig
from dsol_core.types import DataError
from tasks.adapters import shards
from tasks.adapters.cluster import map_tasks
from tasks.adapters.fingerprints import sha256
from tasks.adapters.shards import Sample, Shard, ShardReader
from tasks.adapters.steps import Run, StepOutput
from tasks.adapters.store import Artifact
from tasks.adapters.weights import weights_file

GROUP = 8  # samples whose pictures go through the trunk together
OF_A_GPU = 1 / 8  # share of one that a task takes: while some decode and augment on CPU cores others use it

Part = Literal["solos", "scenes", "evaluation"]
SUBSETS: dict[Part, list[str]] = {
    "solos": ["solo"],
    "scenes": ["grid", "multi"],
    "evaluation": ["solo", "grid", "multi"],
}
SPLITS: dict[Part, tuple[str, ...]] = {"solos": ("train",), "scenes": ("train",), "evaluation": ("val", "test")}


def trunk_features(run: Run, frames: Artifact, config: StageOneConfig, part: Part, scale: float = 1) -> Artifact:
    """Return shards of a part: the frozen trunk's features of `frames`, or these themselves where all of it trains.

    A part is what a step needs at once: solo clips to train on, scenes to train on, or everything to be tested on.

    Each picture of train is kept in 1 + config.image.views views, the first one not augmented; the others' in one,
    those with several objects at `scale` times the side (`StageTwoConfig.test_scale`).
    The features depend on the trunk, its weights and the front ends only, so trainings share them.

    Raises:
        DataError: a frozen trunk has no weights, or too many samples are damaged.
    """
    backbone = config.backbone
    if not backbone.frozen:
        return frames
    weights = weights_file(backbone)
    if weights is None:
        raise DataError(
            "backbone.frozen is true but backbone.visual_weights is null: each network would keep another random "
            "trunk; give weights, or set backbone.frozen to false"
        )

    def write(out: StepOutput) -> None:
        _, known = shards.read_manifest(frames.folder)
        listed = [shard for shard in known if shard.subset in SUBSETS[part] and shard.split in SPLITS[part]]
        scales = [1 if shard.subset == "solo" else scale for shard in listed]
        where = "cuda" if run.compute.gpu else "cpu"
        jobs = [
            Job(config, weights, frames.folder, shard, scale, out.folder, where)
            for shard, scale in zip(listed, scales, strict=True)
        ]
        total, done, made = sum(shard.samples for shard in listed), 0, []
        for shard in map_tasks(write_features, jobs, compute=run.compute, gpus=OF_A_GPU * run.compute.gpu):
            made.append(shard)
            done += shard.samples
            out.progress(done, total, f"picture features, {part}")
            if (lost := damaged(listed, made)) > shards.MAX_DAMAGED * total:
                raise DataError(f"{lost} of {total} samples in {frames.folder} are damaged; run --force write_shards")
        shards.write_manifest(out.folder, made, "features")
        out.rows(read=total, written=done, dropped={"damaged": total - done} if done < total else None)

    relevant = {
        "part": part,
        "scale": scale,
        "visual": [backbone.visual, backbone.visual_stride, backbone.visual_stage, backbone.trainable_blocks],
        "weights": sha256(weights),
        "image": config.image,
        "audio": config.audio,
    }
    return run.cache("trunk_features", relevant, {"shards": frames}, write, module=__name__)


def damaged(listed: list[Shard], made: list[Shard]) -> int:
    """Return how many samples of the first shards of a list did not reach the shards made of them."""
    return sum(old.samples - new.samples for old, new in zip(listed, made, strict=False))


@dataclass(frozen=True)
class Job:
    """One shard of frames, how many times the front end's side its pictures get, where its features go; the device."""

    config: StageOneConfig
    weights: Path
    source: Path
    shard: Shard
    scale: float
    target: Path
    device: str = "cpu"


def write_features(job: Job) -> Shard:
    """Write the features of a shard under the same name; damaged samples are left out."""
    reader = ShardReader(job.source, (job.shard.subset,), job.shard.split, max_damaged=1.0)
    trunk = _trunk(job.config, job.weights, job.device)
    samples = reader.of(job.shard)
    path = job.target / job.shard.path
    count = shards.write_shard(path, _described(samples, trunk, job))
    return Shard(job.shard.path, job.shard.subset, job.shard.split, count, sha256(path))


@lru_cache(maxsize=1)
def _trunk(config: StageOneConfig, weights: Path, device: str) -> nn.Module:
    from dsol_core.backbones import folded
    from dsol_core.stage_one_net import build_stage_one

    with torch.random.fork_rng(devices=[]):
        trunk = folded(build_stage_one(config, weights).trunk, config.image.side)
    return trunk.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _described(samples: Iterator[Sample], trunk: nn.Module, job: Job) -> Iterator[Sample]:
    config = job.config
    front = image.scaled(config.image, job.scale, config.backbone.visual_stride)
    while group := list(islice(samples, GROUP)):
        inputs = [views(sample, front) for sample in group]
        with torch.inference_mode():
            stacked = image.normalised(torch.cat(inputs).to(job.device))
            features = trunk(stacked).to(torch.float16).contiguous().cpu().numpy()
        ends = np.cumsum([len(one) for one in inputs])[:-1]
        for sample, seen in zip(group, np.split(features, ends), strict=True):
            members = {
                "views.npy": shards.array_bytes(seen),
                "mels.npy": shards.array_bytes(mels(sample, config.audio)),
            }
            yield Sample(sample.key, sample.meta, members)


def views(sample: Sample, config: ImageConfig) -> Tensor:
    """Return a sample's picture of the network's size, uint8 [V, 3, side, side]: as it is, then augmented ones."""
    config = image.front_of(sample.meta["kind"], config)
    made = [image.to_input(shards.picture(sample)[None], config)]
    names = shards.pictures(sample)
    for number in range(config.views if sample.meta["split"] == "train" else 0):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{sample.key}/{number}".encode()))
        frame = shards.picture(sample, number % len(names))
        made.append(image.to_input(frame[None], config, augment=generator))
    return torch.cat(made)


def mels(sample: Sample, config: AudioConfig) -> Any:
    """Return the log-mels of the seconds that a sample may listen to, float16 [A, T, M], its own first."""
    sounds = [torch.from_numpy(shards.waveform(window)) for window in shards.windows(sample)]
    return audio.log_mel(torch.stack(sounds), config)[:, 0].to(torch.float16).numpy()
