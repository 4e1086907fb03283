"""Small shards of frames, made without any video: shared by the tests of what reads shards."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from tasks.adapters import images, shards
from tasks.adapters.fingerprints import sha256
from tasks.adapters.shards import Sample, Shard
from tasks.adapters.store import Artifact

SIDE = 32
SECOND = 16000


def clip_sample(name: str, video: str, *, seed: int = 0, split: str = "train", frames: int = 1) -> Sample:
    """A solo clip with a random picture and two seconds of noise: its own and the one after."""
    generator = np.random.default_rng([seed, len(name), *name.encode()])
    tint = generator.integers(0, 256, (frames, 1, 1, 3))
    pictures = np.clip(tint + generator.integers(-20, 20, (frames, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    members = {f"frame{i}.jpg": images.encode_jpeg(picture, 90) for i, picture in enumerate(pictures)}
    sound = (generator.normal(0, 3000, 2 * SECOND)).astype(np.int16)
    box = {"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25, "category": "cello", "sounding": True}
    meta = {
        "key": name,
        "video_ids": [video],
        "kind": "solo",
        "split": split,
        "categories": ["cello"],
        "boxes": [box],
        "start": 0.0,
        "duration": 1.0,
        "offset": 0,
        "height": SIDE,
        "width": SIDE,
    }
    return Sample(name, meta, {**members, "audio.npy": shards.array_bytes(sound)})


def write_folder(folder: Path, counts: dict[str, list[int]], *, split: str = "train", clips_per_video: int = 2) -> Path:
    """Write shards of the given sizes for each subset, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for subset, sizes in counts.items():
        number = 0
        for index, size in enumerate(sizes):
            samples = [
                clip_sample(f"{subset}{n:04d}", f"{subset}-video{n // clips_per_video:03d}", split=split)
                for n in range(number, number + size)
            ]
            number += size
            path = folder / f"{subset}-{split}-{index:05d}.tar"
            shards.write_shard(path, samples)
            listed.append(Shard(path.name, subset, split, size, sha256(path)))
    shards.write_manifest(folder, listed, "frames")
    return folder


@cache
def random_weights(visual: str) -> Path:
    """Write a file of random weights of a timm network, which a frozen trunk can be built from."""
    path = Path(tempfile.mkdtemp(prefix="dsol-weights-")) / f"{visual}.safetensors"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    torch.manual_seed(0)
    save_file(timm.create_model(visual, pretrained=False).state_dict(), path)
    return path


def artifact(folder: Path) -> Artifact:
    """Take a folder for an artifact."""
    return Artifact("write_shards", folder, "0123456789abcdef")
