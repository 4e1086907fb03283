"""Loader: samples a second out of shards, decoded, augmented and collated, against bare JPEG decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from speed import Ratio, Size, Stage

STORED, SIDE, BATCH = 256, 224, 32  # of the MUSIC presets
ABOUT = """The work: {count} samples in shards, each a {stored} x {stored} JPEG (quality 92, {jpeg:.0f} kB) and three
seconds of int16 sound, page cache warm. Every way has {threads} threads.

- ours: `Loader.train`: tar, checksums, shuffling, decoding, colour, crop, zoom and flip to {side} x {side} floats,
  log-mel of a second, batches of {batch}.
- ours, no augmentation: `Loader.sequential`: the same without shuffling and augmentation.
- limit: the fastest decoder here (libjpeg-turbo through torchvision) over the same bytes in memory, nothing else.
- Pillow: the usual decoder, `Image.open(...).convert("RGB")` to an array, over the same bytes.
- plain: the usual data set class: Pillow, torch operations picture by picture (`grid_sample`), log-mel sample by
  sample, a `torch.utils.data.DataLoader` of {threads} processes over a quarter of the samples.
"""


def stages(size: Size) -> Iterator[Stage]:
    """Read shards."""
    import torch

    from dsol_core.config import AudioConfig, ImageConfig
    from tasks.adapters import images
    from tasks.adapters.loader import Loader, Recipe

    torch.set_num_threads(size.threads)
    count = size.of(2048, 64)
    jpegs, sounds = make_samples(count, size.seed)
    write(size.folder, jpegs, sounds)
    recipe = Recipe(AudioConfig(), ImageConfig(side=SIDE), BATCH)
    loader = Loader(size.folder, ("solo",), recipe, threads=size.threads)
    yield Stage(
        title="Loader",
        unit="samples/s",
        about=ABOUT.format(
            count=count,
            stored=STORED,
            side=SIDE,
            jpeg=np.mean([len(one) for one in jpegs]) / 1000,
            batch=BATCH,
            threads=size.threads,
        ),
        ways={
            "ours": lambda: sum(len(batch.keys) for batch in loader.train(0)),
            "ours, no augmentation": lambda: sum(len(batch.keys) for batch in loader.sequential()),
            "limit": lambda: decode_all(images.decode_jpeg, jpegs, size.threads),
            "Pillow": lambda: decode_all(images.decode_image, jpegs, size.threads),
            "plain": lambda: plain(jpegs, sounds, recipe, size.threads),
        },
        ratios=[
            Ratio("loader / bare JPEG decoding, fastest decoder", "ours", "limit", 0.85),
            Ratio("loader / bare JPEG decoding with Pillow", "ours", "Pillow", None),
            Ratio("loader without augmentation / bare JPEG decoding", "ours, no augmentation", "limit", None),
            Ratio("loader / plain DataLoader", "ours", "plain", None),
        ],
    )


def make_samples(count: int, seed: int) -> tuple[list[bytes], list[np.ndarray]]:
    """Return JPEGs that compress like film (smooth shapes, edges, grain) and noise as sound, from 32 distinct ones."""
    from tasks.adapters import images

    generator = np.random.default_rng(seed)
    jpegs, sounds = [], []
    for _ in range(min(count, 32)):
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        smooth = images.resize(coarse, (STORED, STORED)).astype(np.float32)
        grain = generator.normal(0, 6, (STORED, STORED, 3))
        jpegs.append(images.encode_jpeg(np.clip(smooth + grain, 0, 255).astype(np.uint8), 92))
        sounds.append((3000 * generator.normal(size=48000)).astype(np.int16))
    return [jpegs[n % len(jpegs)] for n in range(count)], [sounds[n % len(sounds)] for n in range(count)]


def write(folder: Path, jpegs: list[bytes], sounds: list[np.ndarray], per_shard: int = 256) -> None:
    """Write the samples as shards with a manifest."""
    from tasks.adapters import shards
    from tasks.adapters.shards import Sample, Shard

    facts: dict[str, Any] = {"kind": "solo", "split": "train", "categories": [], "boxes": [], "start": 0.0}
    facts |= {"duration": 1.0, "offset": 16000, "height": STORED, "width": STORED}
    listed = []
    for start in range(0, len(jpegs), per_shard):
        samples = []
        for number in range(start, min(start + per_shard, len(jpegs))):
            members = {"frame0.jpg": jpegs[number], "audio.npy": shards.array_bytes(sounds[number])}
            samples.append(Sample(f"s{number:06d}", {**facts, "video_ids": [f"v{number}"]}, members))
        path = folder / f"solo-train-{start // per_shard:05d}.tar"
        listed.append(Shard(path.name, "solo", "train", shards.write_shard(path, samples), ""))
    shards.write_manifest(folder, listed, "frames")


def decode_all(decode: Callable[[bytes], Any], jpegs: list[bytes], threads: int) -> int:
    """Decode pictures by `threads` threads and drop them; return how many."""

    def some(first: int) -> int:
        done = 0
        for data in jpegs[first::threads]:
            decode(data)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(some, range(threads)))


class _PlainDataSet:
    """One sample an index, as data sets of the literature are written."""

    def __init__(self, jpegs: list[bytes], sounds: list[np.ndarray], recipe: Any) -> None:
        self._jpegs, self._sounds, self._recipe = jpegs, sounds, recipe

    def __len__(self) -> int:
        return len(self._jpegs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch
        import torch.nn.functional as F

        from dsol_core import audio
        from tasks.adapters import images

        cfg = self._recipe.image
        picture = torch.from_numpy(images.decode_image(self._jpegs[index])).permute(2, 0, 1).float()[None] / 255
        picture = (picture * (1 + cfg.brightness * (2 * torch.rand(1) - 1))).clamp(0, 1)
        grey = picture.mean(1, keepdim=True)
        picture = (grey + (picture - grey) * (1 + cfg.saturation * (2 * torch.rand(1) - 1))).clamp(0, 1)
        share = float(torch.empty(1).uniform_(1 - cfg.crop, 1 / cfg.zoom_out))
        theta = torch.tensor([[[share, 0, (1 - share) * float(torch.rand(1))], [0, share, 0]]])
        where = F.affine_grid(theta, [1, 3, 2 * SIDE, 2 * SIDE], align_corners=False)
        picture = F.avg_pool2d(F.grid_sample(picture, where, padding_mode="reflection", align_corners=False), 2)
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        picture = (picture - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
        wave = torch.from_numpy(self._sounds[index][16000:32000].astype(np.float32) / 32768)
        return picture[0], audio.log_mel(wave[None], self._recipe.audio)[0]


def plain(jpegs: list[bytes], sounds: list[np.ndarray], recipe: Any, processes: int) -> int:
    """Read a quarter of the samples with torch's DataLoader, its start included; return their number."""
    from torch.utils.data import DataLoader

    part = max(2 * processes * BATCH, len(jpegs) // 4)
    data: Any = _PlainDataSet(jpegs[:part], sounds[:part], recipe)
    loader = DataLoader(data, BATCH, num_workers=processes, multiprocessing_context="fork")
    return sum(len(pictures) for pictures, _ in loader)
