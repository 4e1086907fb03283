"""Coloured shapes and tones, already as trunk features and log-mels: pairs of a few classes that train in seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dsol_core.config import AudioConfig, BackboneConfig, DictionaryConfig, StageOneConfig, StageTwoConfig
from dsol_core.types import AVBatch

CLASSES, CHANNELS, SIDE, STEPS, BINS = 3, 112, 4, 9, 16

OURS = StageOneConfig(
    audio=AudioConfig(mel_bins=BINS),
    backbone=BackboneConfig(adapter=16, embedding=16),
    clusters=CLASSES,
    epochs=4,
    batch=8,
    learning_rate=3e-3,
    first_clustering=2,
    top_share=0.25,
    mixtures=2,
)
PAPER = replace(
    OURS,
    recipe="paper",
    optimizer="adam",
    schedule="constant",
    first_clustering=1,
    first_labels="none",
    cluster_unit="clip",
    classification_passes=1,
    matching="binary",
    pooling="max",
    negatives="set",
    drop_same_cluster=False,
    cluster_space="trunk",
    spherical=False,
    align_labels=False,
    mixtures=0,
    prototype_weight=0.0,
    presence_weight=0.0,
)
TOKENS = replace(
    OURS,
    recipe="class_tokens",
    matching="tokens",
    pooling="max",
    temperature=0.03,
    drop_same_cluster=False,
    first_labels="none",
    first_clustering=0,
    prototype_weight=1.0,
)
PAPER_DICTIONARY = DictionaryConfig(space="trunk", recompute=False)
OURS_TWO = StageTwoConfig(epochs=2, batch=12, hearing_passes=0)
PAPER_TWO = StageTwoConfig(
    epochs=2,
    batch=12,
    hearing_passes=0,
    optimizer="adam",
    schedule="constant",
    class_maps="inner",
    map_temperature=1 / 3,
    reduction="element",
    gating="product",
    teacher="softmax",
    windows=1,
    matching="binary",
    matching_weight=0.5,
    negatives="set",
    quadrant_negatives=True,
    freeze_visual=False,
)


class TinyPairs:
    """Satisfies `stage_one.TrainingData` for one of `world` workers."""

    def __init__(self, config: StageOneConfig, count: int = 48, rank: int = 0, world: int = 1, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.config, self.count, self.rank, self.world = config, count, rank, world
        self.classes = np.arange(count) % CLASSES
        looks = np.random.default_rng(99).normal(size=(CLASSES, CHANNELS))
        self.visual = 0.1 * generator.normal(size=(count, CHANNELS, SIDE, SIDE))
        self.places = generator.integers(SIDE - 1, size=(count, 2))
        self.mels = 0.1 * generator.normal(size=(count, 1, STEPS, BINS)) - 5
        for row, (kind, (y, x)) in enumerate(zip(self.classes, self.places, strict=True)):
            self.visual[row, :, y : y + 2, x : x + 2] += looks[kind][:, None, None]
            self.mels[row, :, :, 5 * kind : 5 * kind + 3] += 4
        self.keys = [f"clip-{row:03d}" for row in range(count)]

    def _batch(self, rows, everything, generator=None):
        names = tuple(self.keys[row] for row in everything)
        visual = torch.from_numpy(self.visual[rows]).float()
        mels = torch.from_numpy(self.mels[rows]).float()
        extra = {}
        if generator is not None and self.config.negatives == "set":
            other = generator.integers(1, self.count, size=len(everything))
            mine = np.isin(everything, rows)
            extra["other"] = torch.from_numpy(self.visual[(everything + other)[mine] % self.count]).float()
        if generator is not None and self.config.mixtures:
            many = self.config.mixtures
            partners = generator.integers(len(everything), size=(len(everything), many))
            mine = np.flatnonzero(np.isin(everything, rows))
            second = torch.from_numpy(self.mels[everything[partners[mine].reshape(-1)]]).float()
            extra["mixed"] = torch.logaddexp(mels.repeat_interleave(many, 0), second)
            extra["all_mixed_partners"] = tuple(int(p) for p in partners.reshape(-1))
        own = tuple(self.keys[row] for row in rows)
        return AVBatch(own, own, names, names, visual, mels, True, **extra)

    def train(self, epoch, part):
        generator = np.random.default_rng([epoch, part])
        order, size = generator.permutation(self.count), self.config.batch
        share = size // self.world
        for start in range(0, self.count - size + 1, size):
            everything = order[start : start + size]
            yield self._batch(everything[self.rank * share : (self.rank + 1) * share], everything, generator)

    def sequential(self):
        for start in range(self.rank * 8, self.count, 8 * self.world):
            rows = np.arange(start, min(start + 8, self.count))
            yield self._batch(rows, rows)
