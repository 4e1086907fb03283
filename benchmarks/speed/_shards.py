"""Shards of one-second clips that a benchmark made, as `write_shards` leaves them for the loader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SAMPLES = 256  # of a shard


def write(folder: Path, clips: Iterable[tuple[bytes, np.ndarray]], side: int, rate_hz: int = 16000) -> None:
    """Write shards with a manifest, clip by clip.

    Args:
        folder: made where it does not exist.
        clips: a JPEG of side x side pixels and int16 sound [S] around its second, or of it alone, each.
        side: pixels.
        rate_hz: of the sound.
    """
    from tasks.adapters import shards
    from tasks.adapters.fingerprints import sha256
    from tasks.adapters.shards import Sample, Shard

    folder.mkdir(parents=True, exist_ok=True)
    facts = {"kind": "solo", "split": "train", "categories": [], "boxes": [], "start": 0.0, "duration": 1.0}
    facts |= {"height": side, "width": side}
    listed: list[Shard] = []
    numbered = enumerate(clips)
    while part := list(itertools.islice(numbered, SAMPLES)):
        samples = []
        for number, (jpeg, sound) in part:
            meta = {**facts, "video_ids": [f"v{number}"], "offset": (len(sound) - rate_hz) // 2}
            members = {"frame0.jpg": jpeg, "audio.npy": shards.array_bytes(sound)}
            samples.append(Sample(f"s{number:06d}", meta, members))
        path = folder / f"solo-train-{len(listed):05d}.tar"
        shards.write_shard(path, samples)
        listed.append(Shard(path.name, "solo", "train", len(samples), sha256(path)))
    shards.write_manifest(folder, listed, "frames")
