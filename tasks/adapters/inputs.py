"""Samples of shards -> what a network is given: a row's picture and sounds, and whole batches as they are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dsol_core import audio, image
from dsol_core.config import AudioConfig, ImageConfig, StageOneConfig, StageTwoConfig
from dsol_core.types import AVBatch
from tasks.adapters import shards
from tasks.adapters.pool import Pool
from tasks.adapters.shards import Content, Sample


@dataclass(frozen=True)
class Recipe:
    """How batches are drawn.

    Attributes:
        audio: front end of the sounds.
        image: front end of the pictures.
        batch: rows of a global batch.
        seed: of every random draw.
        neighbour_seconds: pair a picture with any second around it, not only its own (in training).
        mixtures: two-source mixtures a row (in training).
        mixture_gain: level difference of a mixture: uniform in +- this, natural-log units of power.
        other: add a picture of another video to each row (in training).
        mixing: what is mixed; waveforms are in shards of frames only.
        windows: how many of a row's seconds are heard where it is evaluated, its own first.
    """

    audio: AudioConfig
    image: ImageConfig
    batch: int
    seed: int = 0
    neighbour_seconds: bool = False
    mixtures: int = 0
    mixture_gain: float = 1.0
    other: bool = False
    mixing: Literal["log_mel", "waveform"] = "log_mel"
    windows: int = 1

    @classmethod
    def stage_one(cls, config: StageOneConfig, seed: int) -> Recipe:
        """Return what stage one asks for."""
        return cls(
            config.audio,
            config.image,
            config.batch,
            seed,
            config.neighbour_seconds,
            config.mixtures,
            config.mixture_gain,
            config.matching == "binary" and config.negatives == "set",
        )

    @classmethod
    def stage_two(cls, config: StageTwoConfig, first: StageOneConfig, seed: int) -> Recipe:
        """Return what stage two asks for, with the front ends of its stage one."""
        other = config.matching == "binary" and config.negatives == "set"
        return cls(first.audio, first.image, config.batch, seed, other=other)

    def hearing(self, config: StageTwoConfig) -> Recipe:
        """Return what the practice in hearing asks for: solo clips, any second of them, and mixtures."""
        return replace(
            self,
            neighbour_seconds=True,
            mixtures=config.hearing_mixtures,
            mixture_gain=config.hearing_gain,
            other=False,
            mixing=config.hearing_mixing,
        )


def evaluation_batch(
    rows: Sequence[Sample],
    recipe: Recipe,
    content: Content,
    all_rows: Sequence[Sample] | None = None,
    stack: Callable[[Callable[..., Tensor], Sequence[tuple[Any, ...]]], Tensor] | None = None,
) -> AVBatch:
    """Make a batch as it is evaluated: the middle frame, no augmentation, `recipe.windows` of sound, its own first.

    A row whose video has fewer clips has its own again in place of the windows that there are not.

    Args:
        rows: samples of shards.
        recipe: its front ends and windows count.
        content: of those shards.
        all_rows: of the global batch that `rows` are a part of; default themselves.
        stack: calls a function with each of many tuples of arguments and stacks the results; default one by one.
    """
    everything = all_rows or rows
    stack = stack or Pool(1).stack
    return AVBatch(
        keys=tuple(row.key for row in rows),
        video_ids=tuple(row.video for row in rows),
        all_keys=tuple(row.key for row in everything),
        all_video_ids=tuple(row.video for row in everything),
        visual=stack(picture, [(row, recipe, content, None, 0) for row in rows]),
        log_mels=stack(log_mels, [(row, recipe, content) for row in rows]),
        features=content == "features",
    )


def picture(
    row: Sample, recipe: Recipe, content: Content, chosen: float | None, seed: int, *, out: Tensor | None = None
) -> Tensor:
    """Return a row's picture, [3, side, side] or [C, h, w]; `chosen` in [0, 1) picks among those it has."""
    if content == "features":
        views = shards.array(row, "views.npy")
        augmented = len(views) - 1
        view = 0 if chosen is None or augmented == 0 else 1 + int(chosen * augmented)
        return _filled(out, views[view])
    into = None if out is None else out[None]
    if chosen is None:
        return image.to_input(shards.picture(row)[None], recipe.image, out=into)[0]
    frame = shards.picture(row, int(chosen * len(shards.pictures(row))))
    front = image.front_of(row.meta["kind"], recipe.image)
    return image.to_input(frame[None], front, augment=torch.Generator().manual_seed(seed), out=into)[0]


def sound(row: Sample, recipe: Recipe, content: Content, chosen: float, *, out: Tensor | None = None) -> Tensor:
    """Return the log-mel [1, T, M] of one of the seconds that a row has."""
    if content == "features":
        mels = shards.array(row, "mels.npy")
        return _filled(out, mels[int(chosen * len(mels))][None])
    return _filled(out, audio.log_mel(_waveform(row, chosen)[None], recipe.audio)[0].numpy())


def log_mels(row: Sample, recipe: Recipe, content: Content, *, out: Tensor | None = None) -> Tensor:
    """Return the log-mels [A, T, M] of a row's own second and of those around it, `recipe.windows` in all."""
    if content == "features":
        mels = shards.array(row, "mels.npy")
        return _filled(out, mels[np.arange(recipe.windows) % len(mels)])
    waves = shards.waveform(np.stack(shards.windows(row)[: recipe.windows]))
    mels = audio.log_mel(torch.from_numpy(waves), recipe.audio)[:, 0].numpy()
    return _filled(out, mels[np.arange(recipe.windows) % len(mels)])


def _filled(out: Tensor | None, values: np.ndarray) -> Tensor:
    """Return float32 copies of values, in `out` where it is given."""
    if out is None:
        return torch.from_numpy(values.astype(np.float32))
    out.numpy()[...] = values
    return out


def sounds_together(rows: Sequence[tuple[Sample, float]], config: AudioConfig, device: Any) -> Tensor:
    """Return the log-mels [N, 1, T, M] of many rows of frames at once, made on a device."""
    waves = torch.stack([_waveform(row, second) for row, second in rows])
    return audio.log_mel(waves.to(device), config)


def mixture(
    first: tuple[Sample, float],
    second: tuple[Sample, float],
    gain: float,
    config: AudioConfig,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Return the log-mel [1, T, M] of two rows' sounds mixed as waveforms; each row with the choice of its second."""
    mixed = audio.mix_waveforms(_waveform(*first)[None], _waveform(*second)[None], torch.tensor([gain]))
    return _filled(out, audio.log_mel(mixed, config)[0].numpy())


def _waveform(row: Sample, chosen: float) -> Tensor:
    """Return the sound [S] of one of the seconds that a row of frames has."""
    windows = shards.windows(row)
    return torch.from_numpy(shards.waveform(windows[int(chosen * len(windows))]))
