"""Loader: samples a second out of shards, decoded, augmented and collated, against bare JPEG decoding."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from speed import Ratio, Size, Stage, _shards

STORED, SIDE, BATCH = 256, 224, 32  # of the MUSIC presets
ABOUT = """The work: {count} samples in shards, each a {stored} x {stored} JPEG (quality 92, {jpeg:.0f} kB) and three
seconds of int16 sound, page cache warm. Every way has {threads} threads.

- ours: `Loader.train`: tar, checksums, shuffling, decoding, colour, crop, zoom and flip to {side} x {side}, log-mel of
  a second, batches of {batch}; and the pictures' normalised floats, which a training step makes where it computes.
- ours, bytes: the same without those floats, as a batch is copied to a GPU.
- ours, no augmentation: `Loader.sequential`, with the floats, without shuffling and augmentation.
- bound: what no loader can leave out: that decoder, the conversion of 3 x {side} x {side} bytes to floats, and the
  Fourier transforms of a second.
- limit: the fastest decoder here (libjpeg-turbo through torchvision) over the same bytes in memory, nothing else.
- Pillow: the usual decoder, `Image.open(...).convert("RGB")` to an array, over the same bytes.
- plain: the usual data set class: Pillow, torch operations picture by picture (`grid_sample`), log-mel sample by
  sample, a `torch.utils.data.DataLoader` of {threads} processes over a quarter of the samples.
"""


def stages(size: Size) -> Iterator[Stage]:
    """Read shards."""
    import torch

    from dsol_core.clustering import move
    from dsol_core.config import AudioConfig, ImageConfig
    from tasks.adapters import images
    from tasks.adapters.inputs import Recipe
    from tasks.adapters.loader import Loader

    torch.set_num_threads(size.threads)
    count = size.of(2048, 64)
    jpegs, sounds = make_samples(count, size.seed)
    _shards.write(size.folder, zip(jpegs, sounds, strict=True), STORED)
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
            "ours": lambda: sum(len(move(batch, "cpu").keys) for batch in loader.train(0)),
            "ours, bytes": lambda: sum(len(batch.keys) for batch in loader.train(0)),
            "ours, no augmentation": lambda: sum(len(move(batch, "cpu").keys) for batch in loader.sequential()),
            "bound": lambda: decode_all(Bare(recipe), jpegs, size.threads),
            "limit": lambda: decode_all(images.decode_jpeg, jpegs, size.threads),
            "Pillow": lambda: decode_all(images.decode_image, jpegs, size.threads),
            "plain": lambda: plain(jpegs, sounds, recipe, size.threads),
        },
        ratios=[
            Ratio("loader / bare JPEG decoding, fastest decoder", "ours", "limit", 0.85),
            Ratio("loader / bare decoding, floats and Fourier transforms", "ours", "bound", None),
            Ratio("bare decoding, floats and Fourier transforms / bare JPEG decoding", "bound", "limit", None),
            Ratio("loader / bare JPEG decoding with Pillow", "ours", "Pillow", None),
            Ratio("loader, pictures left as bytes / bare JPEG decoding", "ours, bytes", "limit", None),
            Ratio("loader without augmentation / bare JPEG decoding", "ours, no augmentation", "limit", None),
            Ratio("loader / plain DataLoader", "ours", "plain", None),
        ],
        notes=lambda: parts(loader, recipe, jpegs, size.of(5, 1)),
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


def decode_all(decode: Callable[[bytes], Any], jpegs: list[bytes], threads: int) -> int:
    """Decode pictures by `threads` threads and drop them; return how many."""
    import torch

    from tasks.adapters.pool import compute_alone

    def some(first: int) -> int:
        done = 0
        for data in jpegs[first::threads]:
            decode(data)
            done += 1
        return done

    own = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=compute_alone) as pool:
        done = sum(pool.map(some, range(threads)))
    torch.set_num_threads(own)
    return done


class Bare:
    """What no loader can leave out."""

    def __init__(self, recipe: Any) -> None:
        import torch

        frames = 1 + 16000 // recipe.audio.hop
        self.frames = torch.randn(frames, recipe.audio.n_fft, generator=torch.Generator().manual_seed(0))

    def __call__(self, data: bytes) -> Any:
        """Decode a picture, make floats of as many values as the network takes, transform the frames of a second."""
        import torch

        from tasks.adapters import images

        return images.decode_jpeg(data)[:, :SIDE, :SIDE].float(), torch.fft.rfft(self.frames)


def parts(loader: Any, recipe: Any, jpegs: list[bytes], turns: int) -> str:
    """Return a table of the microseconds that each part of the work takes a sample, alone and on one thread."""
    import torch

    from dsol_core import audio, image
    from tasks.adapters import images, shards

    torch.set_num_threads(1)
    rows = list(itertools.islice(loader.reader.ordered(), 256))
    frames = [images.decode_jpeg(data)[None] for data in jpegs[: len(rows)]]
    small = [image.to_input(one, recipe.image) for one in frames]
    waves = [torch.from_numpy(shards.waveform(shards.windows(row)[0]))[None] for row in rows]
    draws = torch.Generator().manual_seed(0)
    grey = replace(recipe.image, brightness=0.0, saturation=0.0)
    works: dict[str, Callable[[], Any]] = {
        "tar, JSON, checksums": lambda: [None for _ in loader.reader.ordered()],
        "the same, shuffled": lambda: [None for _ in loader.reader.shuffled(0, 500)],
        "JPEG": lambda: [images.decode_jpeg(data) for data in jpegs[: len(rows)]],
        "picture: resize": lambda: [image.to_input(one, recipe.image) for one in frames],
        "picture: the same with crop, zoom, flip": lambda: [image.to_input(x, grey, augment=draws) for x in frames],
        "picture: the same with colour": lambda: [image.to_input(x, recipe.image, augment=draws) for x in frames],
        "picture: normalised floats": lambda: [image.normalised(one) for one in small],
        "sound: bytes to floats": lambda: [shards.waveform(shards.windows(row)[0]) for row in rows],
        "sound: log-mel": lambda: [audio.log_mel(wave, recipe.audio) for wave in waves],
        "bound": lambda: [work(data) for work in (Bare(recipe),) for data in jpegs[: len(rows)]],
        "whole loader, all its threads": lambda: [None for batch in loader.train(0) for _ in batch.keys],
    }
    lines = ["Processor time of each part, one after another in one process, least of the turns:", ""]
    lines += ["| part | us a sample |", "| --- | --- |"]
    for name, work in works.items():
        lines.append(f"| {name} | {min(_seconds(work) for _ in range(turns)) * 1e6:.0f} |")
    return "\n".join(lines)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    done = work()
    return (time.process_time() - started) / len(done)


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
