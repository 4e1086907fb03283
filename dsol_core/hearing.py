"""Sounds in which no object sounds, among the mixtures that the sound network practises with (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dsol_core import audio
from dsol_core.config import AudioConfig
from dsol_core.types import AVBatch

SILENCE = 0.25  # share of silence among them
COLOUR = (0.0, 2.0)  # exponent of the noise's power over 1 / frequency: white to brown
DECIBELS = (-40.0, 10.0)  # level, relative to that of the parts of a mixture (`audio.LEVEL`)


def with_noise(batch: AVBatch, share: float, config: AudioConfig, seed: Sequence[int]) -> tuple[AVBatch, Tensor]:
    """Put noise or silence in the place of some of a batch's mixtures.

    Which ones is drawn for the whole global batch, and each noise by itself, so that neither depends on the number of
    workers.

    Args:
        batch: with mixtures.
        share: of the mixtures.
        config: front end.
        seed: any integers; with the place of a mixture in the global batch they decide everything.

    Returns:
        The batch, and which mixtures of the global batch are noise: bool [len(all_keys) * n].
    """
    if batch.mixed is None or share == 0:
        return batch, torch.zeros(len(batch.all_mixed_partners), dtype=torch.bool)
    chosen = np.random.default_rng([*seed, 0]).random(len(batch.all_mixed_partners)) < share
    start = batch.all_keys.index(batch.keys[0]) * (len(batch.mixed) // len(batch.keys))
    mixed = batch.mixed.clone()
    here = np.flatnonzero(chosen[start : start + len(mixed)])
    if len(here):
        samples = (mixed.shape[2] - 1) * config.hop
        waves = np.stack([noise(samples, np.random.default_rng([*seed, 1, start + int(i)])) for i in here])
        mixed[here] = audio.log_mel(torch.from_numpy(waves), config).to(mixed)
    return replace(batch, mixed=mixed), torch.from_numpy(chosen)


def noise(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Return silence, or noise of a random colour and level, float32 [samples] in [-1, 1]."""
    if generator.random() < SILENCE:
        return np.zeros(samples, np.float32)
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    colour = np.arange(1, len(spectrum) + 1) ** (-generator.uniform(*COLOUR) / 2)
    wave = np.fft.irfft(spectrum * colour, samples)
    level = audio.LEVEL * 10 ** (generator.uniform(*DECIBELS) / 20)
    return np.clip(wave * level / max(float(np.sqrt((wave**2).mean())), 1e-12), -1, 1).astype(np.float32)
