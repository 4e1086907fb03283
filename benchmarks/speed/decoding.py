"""Decode and shard: ten-second 360p clips -> one frame a second and 16 kHz mono sound in shards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dsol_core.config import ClipsConfig, Compute, DataConfig, ScenesConfig, VideosConfig
from speed import Ratio, Size, Stage, Value, _clips, _plain_decoding

SIDE = 224
ABOUT = """The work: {count} clips of 10 s (640x360, 25 frames a second, H.264 500 kbit/s, AAC 44.1 kHz stereo), one
frame a second scaled to {side} x {side}, sound to 16 kHz mono. Every way may use {threads} cores; Ray is running.

- ours: ingest_videos, index_clips, mix_scenes (no scenes) and write_shards: checksums, packet check, decoding,
  JPEG, shards of {per_shard} samples, manifest, artifact records.
- limit: a bare ffmpeg a clip, {threads} at a time: decode, select, scale and resample to null.
- plain: every frame decoded and written as a JPEG in a folder of its second, sound resampled and pickled second by
  second, by {threads} processes; frames by OpenCV, sound by {resampler}. {plain} of the clips.
- plain, one process: the same as its scripts run it, one video after another.
"""


def stages(size: Size) -> Iterator[Stage]:
    """Decode and shard."""
    per_core, plain = size.of(150, 4), size.of(12, 2)
    clips = _clips.make(size.folder / "solo", per_core * size.threads, distinct=size.of(6, 2), threads=size.threads)
    config = data_config()
    road = Road(size, config)
    part = clips[: plain * size.threads]
    yield Stage(
        title="Decode and shard",
        unit="clips/s",
        about=ABOUT.format(
            count=len(clips),
            side=SIDE,
            threads=size.threads,
            per_shard=config.clips.samples_per_shard,
            plain=len(part),
            resampler=_plain_decoding.resampler(),
        ),
        ways={
            "ours": lambda: road.walk(len(clips)),
            "limit": lambda: bare(clips, size.threads),
            "plain": lambda: plain_way(part, size.folder / "plain", size.threads),
            "plain, one process": lambda: plain_way(part[:plain], size.folder / "plain", 1),
        },
        ratios=[
            Ratio("decode and shard / bare ffmpeg to null", "ours", "limit", 0.75),
            Ratio("decode and shard / plain way, same number of processes", "ours", "plain", 4.0),
            Ratio("decode and shard / plain way, one process", "ours", "plain, one process", None),
            Ratio("bare ffmpeg to null / plain way, same number of processes", "limit", "plain", None),
        ],
        values=[
            Value("files on disk per 1,000 ten-second clips", lambda: road.files(size.of(1000, 8)), 10.0),
            Value("decoding passes of each video", lambda: road.passes(clips[:4]), 1.0),
        ],
    )
    road.end()


def data_config() -> DataConfig:
    """Return the data steps' configuration: a folder of videos, shards as in the presets for large sets, no scenes."""
    from flows import presets

    videos = VideosConfig(source="folders", split=(1.0, 0.0, 0.0))
    clips = ClipsConfig(side=SIDE, samples_per_shard=presets.load("music_ours").data.clips.samples_per_shard)
    return DataConfig(videos=videos, clips=clips, scenes=ScenesConfig(count=(0, 0, 0)))


class Road:
    """Our own way, in a fresh store each time."""

    def __init__(self, size: Size, config: DataConfig) -> None:
        from tasks.adapters import cluster

        self._folder, self._config, self._numbers, self._size = size.folder, config, count(), size
        self._compute = Compute(workers=1)
        cluster.start(self._compute)

    def walk(self, expected: int) -> int:
        """Run the data steps over the clips and return the number of clips whose every second became a sample."""
        self._walk(self._folder / "solo", expected)
        return expected

    def files(self, clips: int) -> float:
        """Return the files that hold 1,000 clips, told by as many clips of a small picture as are asked for."""
        small = self._folder / "small"
        _clips.make(small, clips, distinct=1, threads=self._size.threads, size=(64, 36))
        return 1000 * self._walk(small, clips) / clips

    def _walk(self, videos: Path, expected: int) -> int:
        """Run the data steps over a folder and return the number of files of the shards' artifact."""
        from flows.prepare_data import data_steps
        from tasks.adapters.steps import Run
        from tasks.adapters.user_folders import external

        store = self._folder / f"store{next(self._numbers)}"
        user = external(store, {"solo": videos})
        data = data_steps(Run(store, compute=self._compute), self._config, user)
        written = data.shards.record["rows"]["written"]
        if written != expected * _clips.SECONDS:
            raise RuntimeError(f"{written} samples of {expected} clips; expected {expected * _clips.SECONDS}")
        files = sum(path.is_file() for path in data.shards.folder.iterdir())
        shutil.rmtree(store)
        return files

    def passes(self, clips: list[Path]) -> float:
        """Count with a wrapper around ffmpeg how often a clip is decoded, over all steps; copying packets is none."""
        from flows.prepare_data import data_steps
        from tasks.adapters import media
        from tasks.adapters.steps import Run
        from tasks.adapters.user_folders import external

        folder = self._folder / "passes"
        (folder / "solo").mkdir(parents=True)
        for clip in clips:
            (folder / "solo" / clip.name).hardlink_to(clip)
        log, wrapper = folder / "calls", folder / "ffmpeg"
        wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {media.binary()} "$@"\n')
        wrapper.chmod(0o755)
        user = external(folder / "store", {"solo": folder / "solo"})
        with patch.dict(os.environ, DSOL_FFMPEG=str(wrapper)):
            data_steps(Run.local(folder / "store"), self._config, user)
        calls = log.read_text().splitlines()
        return sum("rawvideo" in call or "-f null" in call for call in calls) / len(clips)

    def end(self) -> None:
        """End Ray."""
        from tasks.adapters import cluster

        cluster.stop()


def bare(clips: list[Path], processes: int) -> int:
    """Decode, select, scale and resample to null with one ffmpeg a clip; return the number of clips."""
    from tasks.adapters import media

    def run(path: Path) -> None:
        words = ["-threads", "1", "-filter_complex_threads", "1", "-i", str(path)]
        words += ["-map", "0:v:0", "-vf", f"fps=1,scale={SIDE}:{SIDE}:flags=bicubic,format=rgb24", "-f", "null", "-"]
        words += ["-map", "0:a:0", "-ac", "1", "-ar", "16000", "-f", "null", "-"]
        subprocess.run([media.binary(), *_clips.QUIET, *words], check=True)

    with ThreadPoolExecutor(processes) as pool:
        return len(list(pool.map(run, clips)))


def plain_way(clips: list[Path], folder: Path, processes: int) -> tuple[int, float]:
    """Convert clips in the plain way; return their number and the seconds without start-up and removal of the files."""
    import time

    try:
        if processes == 1:
            began = time.perf_counter()
            for clip in clips:
                _plain_decoding.convert(clip, folder)
            return len(clips), time.perf_counter() - began
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_ready, range(2 * processes)))
            began = time.perf_counter()
            list(pool.map(_plain_decoding.convert, clips, [folder] * len(clips)))
            return len(clips), time.perf_counter() - began
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ready(_: Any) -> None:
    import time

    time.sleep(0.5)  # so that each process of the pool takes one and has imported everything
