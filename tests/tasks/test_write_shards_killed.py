"""SIGKILL while real videos are decoded: finished shards stay as they are, the rest is made, the result is the same."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters import media, shards

ROOT = Path(__file__).resolve().parents[2]
VIDEOS, SECONDS = 8, 3
ROAD = """
def road(store, solo):
    from dsol_core.config import ClipsConfig, ScenesConfig, VideosConfig
    from tasks.adapters.steps import Run
    from tasks.adapters.user_folders import external
    from tasks.index_clips import index_clips
    from tasks.ingest_videos import ingest_videos
    from tasks.mix_scenes import mix_scenes
    from tasks.write_shards import write_shards

    config = ClipsConfig(side=32, samples_per_shard=3)
    run, user = Run.local(store), external(store, {"solo": solo})
    videos = ingest_videos.fn(run, user, VideosConfig(source="folders", split=(1.0, 0.0, 0.0)))
    clips = index_clips.fn(run, videos, user, config)
    scenes = mix_scenes.fn(run, clips, ScenesConfig(count=(0, 0, 0)), 0)
    return write_shards.fn(run, clips, scenes, videos, user, config)
"""


def copies(source: Path, folder: Path) -> Path:
    """The same video under several names, each with a free box of its own behind it, so that none is a duplicate."""
    folder.mkdir()
    for number in range(VIDEOS):
        (folder / f"video{number}.mp4").write_bytes(source.read_bytes() + struct.pack(">I4sQ", 16, b"free", number))
    return folder


def kill_after_the_first_shard(store: Path, solo: Path) -> None:
    code = f"{ROAD}\nfrom pathlib import Path\nimport sys\nroad(Path(sys.argv[1]), Path(sys.argv[2]))"
    child = subprocess.Popen([sys.executable, "-c", code, store, solo], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
    end = time.monotonic() + 120
    while not list(store.glob("write_shards/.work-*/solo*.json")):
        assert child.poll() is None and time.monotonic() < end, "ended before a shard was finished"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_sigkill_keeps_the_finished_shards(film: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solo = copies(film("killed.mp4", seconds=SECONDS), tmp_path / "solo")
    kill_after_the_first_shard(tmp_path / "store", solo)
    work = next((tmp_path / "store/write_shards").glob(".work-*"))
    finished = {path.stat().st_ino for record in work.glob("solo*.json") for path in work.glob(f"{record.stem}-*.tar")}
    decoded = []
    original = media.decode
    monkeypatch.setattr(media, "decode", lambda path, *a, **k: decoded.append(path.name) or original(path, *a, **k))
    space: dict[str, Any] = {}
    exec(ROAD, space)
    artifact = space["road"](tmp_path / "store", solo)
    assert 1 <= len(finished) < VIDEOS and len(decoded) == len(set(decoded)) == VIDEOS - len(finished)
    assert finished <= {path.stat().st_ino for path in artifact.folder.glob("*.tar")}
    listed = shards.read_manifest(artifact.folder)[1]
    undisturbed = space["road"](tmp_path / "other", solo)
    assert listed == shards.read_manifest(undisturbed.folder)[1] and sum(one.samples for one in listed) == 24
    assert sorted(path.name for path in artifact.folder.iterdir()) == sorted(
        p.name for p in undisturbed.folder.iterdir()
    )
