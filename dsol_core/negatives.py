"""Negative audio: pictures with silence, noise, or the sound of something that is not in them, and what is then said.

The picture is looked at once (`look`), then any number of sounds is listened to (`listen`), so that a negative costs no
more than its sound.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dsol_core import audio
from dsol_core.clustering import move
from dsol_core.stage_two_net import StageTwoNet
from dsol_core.types import AVBatch, UsageError

Kind = Literal["silence", "noise", "offscreen"]
KINDS: tuple[Kind, ...] = ("silence", "noise", "offscreen")
SUBSETS = ("grid", "multi")  # of the shards: whose pictures are asked
BY_CATEGORY, BY_VIDEO = "categories", "videos"  # by what an off-screen sound was found not to be in the picture


def waveform(kind: Kind, key: str, samples: int) -> Tensor:
    """Return silence, or white noise of the level that the parts of a mixture have (RMS `audio.LEVEL`).

    Args:
        kind: "silence" or "noise".
        key: of the picture; equal keys give equal noise.
        samples: S.

    Returns:
        float32 [S] in [-1, 1].

    Raises:
        UsageError: another kind.
    """
    if kind == "silence":
        return torch.zeros(samples)
    if kind == "noise":
        drawn = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(samples)
        return torch.from_numpy(np.clip(audio.LEVEL * drawn, -1, 1).astype(np.float32))
    raise UsageError(f"negative sound {kind!r} has no waveform of its own; expected silence or noise")


@dataclass(frozen=True)
class Candidate:
    """What is known of a picture and its sound.

    Attributes:
        key: of the sample.
        videos: it is made of.
        heard: categories that sound; empty where nobody labelled them.
        visible: categories in the picture, sounding or not; None where no box tells them.
    """

    key: str
    videos: frozenset[str]
    heard: frozenset[str]
    visible: frozenset[str] | None

    def rule(self, other: Candidate) -> str | None:
        """Return by what the other's sound is known not to come from this picture; None where it may.

        The videos always differ. Where the boxes tell what is in the picture and the other's sound has labels, its
        categories must not be there. Without boxes it is another video's, of other categories as far as labels tell.
        """
        if self.videos & other.videos:
            return None
        if self.visible is not None and other.heard:
            return None if other.heard & self.visible else BY_CATEGORY
        return None if other.heard & self.heard else BY_VIDEO


def partner(item: Candidate, others: Sequence[Candidate]) -> tuple[Candidate, str] | None:
    """Choose whose sound a picture hears off screen.

    Args:
        item: the picture.
        others: of the same subset and split, sorted by key; itself may be among them.

    Returns:
        The chosen one, which depends on the item's key and the others' keys only, and by what rule; None where there
        is no fitting one.
    """
    first = zlib.crc32(item.key.encode()) % max(1, len(others))
    for other in (others[(first + turn) % len(others)] for turn in range(len(others))):
        if rule := item.rule(other):
            return other, rule
    return None


@torch.no_grad()
def trunk_once(net: StageTwoNet, batch: AVBatch) -> AVBatch:
    """Return the batch with the trunk's features [B, C, h, w] in place of frames, for several looks at it."""
    if batch.features:
        return batch
    net.eval()
    visual = move(batch, net.dictionary.device).visual.contiguous(memory_format=torch.channels_last)
    return replace(batch, visual=net.stage_one.trunk(visual), features=True)


@dataclass(frozen=True)
class Looked:
    """What is seen in B pictures: unit vectors of the cells [B, E, h, w] and class maps [B, K, h, w]."""

    cells: Tensor
    class_maps: Tensor


@torch.no_grad()
def look(net: StageTwoNet, batch: AVBatch) -> Looked:
    """Look at the pictures of a batch, in evaluation mode; its sounds take no part."""
    net.eval()
    batch = move(batch, net.dictionary.device)
    seen, cells = net.stage_one.see(batch.visual, features=batch.features)
    return Looked(cells, net.class_maps(seen, cells))


@torch.no_grad()
def listen(net: StageTwoNet, looked: Looked, log_mels: Tensor, rows: Sequence[int]) -> tuple[Any, Any]:
    """Say what some of the pictures show with other sounds, as `stage_two.predict` does with their own.

    Args:
        net: stage two, which looked.
        looked: at B pictures.
        log_mels: [R, A, T, M], a sound of A windows for each row.
        rows: which picture each sound goes with (R).

    Returns:
        `sounding` float32 [R, K] in [0, 1], and the peak of the maps over all entries and cells, float32 [R].
    """
    chosen = torch.as_tensor(rows, dtype=torch.long, device=net.dictionary.device)
    heard = net.hear(log_mels.to(net.dictionary.device))
    _, sounding, maps = net.gate(looked.class_maps[chosen], looked.cells[chosen], heard)
    peak = net.shown(maps).flatten(1).amax(1)
    return sounding.float().cpu().numpy(), peak.float().cpu().numpy()
