"""Noise and silence take the place of mixtures: the same ones whichever worker makes them."""

from __future__ import annotations

import numpy as np
import torch

from dsol_core import audio, hearing
from dsol_core.config import AudioConfig
from dsol_core.types import AVBatch

CONFIG = AudioConfig(mel_bins=16)
KEYS = tuple("abcdefgh")


def batch(rank: int = 0, world: int = 1, mixtures: int = 3) -> AVBatch:
    size = len(KEYS) // world
    mine = KEYS[rank * size : (rank + 1) * size]
    mixed = torch.zeros(size * mixtures, 1, 41, 16)
    partners = tuple(range(len(KEYS) * mixtures))
    return AVBatch(
        mine, mine, KEYS, KEYS, torch.zeros(size, 3, 8, 8), torch.zeros(size, 1, 41, 16), False, None, mixed, partners
    )


def test_two_workers_make_the_noise_of_one():
    whole, chosen = hearing.with_noise(batch(), 0.4, CONFIG, (1, 2, 3))
    parts = [hearing.with_noise(batch(rank, 2), 0.4, CONFIG, (1, 2, 3)) for rank in (0, 1)]
    assert 0 < int(chosen.sum()) < len(chosen) == 24
    assert torch.equal(torch.cat([one.mixed for one, _ in parts]), whole.mixed)
    assert all(torch.equal(mask, chosen) for _, mask in parts)
    untouched = whole.mixed.flatten(1).eq(0).all(1)
    assert torch.equal(untouched, ~chosen)


def test_seed_decides_and_share_nothing_leaves_the_batch():
    first, again, other = (hearing.with_noise(batch(), 0.4, CONFIG, (1, 2, n)) for n in (3, 3, 4))
    assert torch.equal(first[0].mixed, again[0].mixed) and not torch.equal(first[0].mixed, other[0].mixed)
    one = batch()
    same, chosen = hearing.with_noise(one, 0.0, CONFIG, (0,))
    assert same is one and not chosen.any()


def test_noises_are_silence_or_of_the_levels_and_colours_stated():
    waves = [hearing.noise(16000, np.random.default_rng([5, n])) for n in range(200)]
    loud = [wave for wave in waves if wave.any()]
    assert 0.15 < 1 - len(loud) / len(waves) < 0.35
    levels = 20 * np.log10([np.sqrt((wave**2).mean()) / audio.LEVEL for wave in loud])
    assert levels.min() >= -41 and levels.max() <= 10.1 and np.ptp(levels) > 30
    low = [(np.abs(np.fft.rfft(wave)) ** 2)[:1000].sum() / (np.abs(np.fft.rfft(wave)) ** 2).sum() for wave in loud]
    assert min(low) < 0.2 and max(low) > 0.8  # white has an eighth below 1 kHz, brown nearly all
