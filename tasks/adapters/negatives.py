"""Negative audio for the pictures of shards: which off-screen sound goes with which, log-mels, rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsol_core import audio, negatives
from dsol_core.config import RATE_HZ
from dsol_core.negatives import SUBSETS, Candidate
from dsol_core.stage_two_net import StageTwoNet
from dsol_core.types import AVBatch
from tasks.adapters import inputs, shards
from tasks.adapters.inputs import Recipe
from tasks.adapters.shards import Content, Sample, Shard

_SOUND: dict[Content, str] = {"frames": "audio.npy", "features": "mels.npy"}
Row = dict[str, Any]


@dataclass(frozen=True)
class OffScreen:
    """Where a picture's off-screen sound lies.

    Attributes:
        key: of the sample that it belongs to.
        rule: by what it is known not to come from the picture.
        path: of the shard.
        place: of the sample's sound and meta in it, name -> (offset, size) in bytes.
    """

    key: str
    rule: str
    path: Path
    place: Mapping[str, tuple[int, int]]


def offscreen(folder: Path, content: Content, listed: Iterable[Shard]) -> dict[str, dict[str, OffScreen]]:
    """Choose the off-screen sounds of the pictures of `SUBSETS`: shard's path -> sample's key -> sound.

    A sound is that of another whole sample of the same subset and split. Samples for which there is none are left out.
    """
    by_set: dict[tuple[str, str], list[Shard]] = {}
    for shard in listed:
        if shard.subset in SUBSETS:
            by_set.setdefault((shard.subset, shard.split), []).append(shard)
    found: dict[str, dict[str, OffScreen]] = {}
    for together in by_set.values():
        known = {one.path: [candidate(s) for s in shards.read_shard(folder / one.path)] for one in together}
        everyone = sorted((one for some in known.values() for one in some), key=lambda one: one.key)
        sounds = {}
        for path, some in known.items():
            for key, members in shards.places(folder / path, {one.key for one in some}).items():
                sounds[key] = folder / path, {name: members[name] for name in (_SOUND[content], "meta.json")}
        for path, some in known.items():
            chosen = {one.key: negatives.partner(one, everyone) for one in some}
            found[path] = {k: OffScreen(one[0].key, one[1], *sounds[one[0].key]) for k, one in chosen.items() if one}
    return found


def candidate(sample: Sample) -> Candidate:
    """Return what a sample's labels and boxes tell; of a composed scene, what is known of all its parts."""
    meta = sample.meta
    boxed = [box for box in meta.get("boxes") or () if box["category"]]
    heard = frozenset(meta.get("categories") or ()) | {box["category"] for box in boxed if box["sounding"]}
    visible = heard | {box["category"] for box in boxed} if boxed else None
    if "visible" in meta:
        visible = None if meta["visible"] is None else heard | set(meta["visible"])
    return Candidate(sample.key, frozenset(meta["video_ids"]), heard, visible)


def predict(
    net: StageTwoNet,
    batch: AVBatch,
    group: Sequence[Sample],
    sounds: Mapping[str, OffScreen],
    shard: Shard,
    content: Content,
    recipe: Recipe,
) -> Iterator[Row]:
    """Yield the rows of some pictures: silence and noise for each, and the off-screen sound where it has one.

    Args:
        net: stage two.
        batch: the pictures of `group`, in order.
        group: samples of `shard`.
        sounds: of the off-screen sounds, by the picture's key.
        shard: subset and split of the rows.
        content: of the shards.
        recipe: how sounds are heard: front end and windows.
    """
    looked = negatives.look(net, batch)
    for kind in negatives.KINDS:
        asked = [number for number, one in enumerate(group) if kind != "offscreen" or one.key in sounds]
        if not asked:
            continue
        if kind == "offscreen":
            others = [sounds[group[number].key] for number in asked]
            read = [shards.read_at(one.path, one.key, one.place) for one in others]
            mels = [inputs.log_mels(one, recipe, content) for one in read]
        else:
            mels = [_negative(kind, group[number], recipe) for number in asked]
        sounding, peaks = negatives.listen(net, looked, torch.stack(mels), asked)
        for number, probabilities, peak in zip(asked, sounding, peaks, strict=True):
            one = group[number]
            other = sounds[one.key] if kind == "offscreen" else None
            yield {
                "item": one.key,
                "subset": shard.subset,
                "split": shard.split,
                "video_ids": one.meta["video_ids"],
                "kind": kind,
                "other": other.key if other else None,
                "rule": other.rule if other else None,
                "sounding": probabilities,
                "peak": float(peak),
            }


def _negative(kind: negatives.Kind, sample: Sample, recipe: Recipe) -> Tensor:
    """Return the log-mels [A, T, M] of silence or noise that lasts as long as a sample is heard."""
    samples = round(float(sample.meta["duration"]) * RATE_HZ)
    wave = negatives.waveform(kind, sample.key, recipe.windows * samples)
    return audio.log_mel(wave.view(recipe.windows, samples), recipe.audio)[:, 0]
