"""Videos -> clips, scenes and shards: the four data steps, which need no GPU and no training machine."""

from __future__ import annotations

from typing import Any, NamedTuple

from prefect import flow

from dsol_core.config import Compute, DataConfig
from flows import presets, session
from tasks.adapters.steps import Run, Scope
from tasks.adapters.store import Artifact
from tasks.adapters.user_folders import External
from tasks.index_clips import index_clips
from tasks.ingest_videos import ingest_videos
from tasks.make_videos import make_videos
from tasks.mix_scenes import mix_scenes
from tasks.write_shards import write_shards


class Data(NamedTuple):
    """What the data steps made."""

    videos: Artifact
    clips: Artifact
    scenes: Artifact
    shards: Artifact


def data_steps(run: Run, config: DataConfig, user: External | None) -> Data:
    """The data steps in order; `user` holds the user's folders where the videos are not generated."""
    generated = config.videos.source in ("orchestra", "photos")
    media = make_videos(run, config.videos, config.seed, user) if generated else user
    videos = ingest_videos(run, media, config.videos)
    annotated = None if config.videos.source == "folders" else media  # plain folders have no lists and no boxes
    clips = index_clips(run, videos, annotated, config.clips)
    scenes = mix_scenes(run, clips, config.scenes, config.seed)
    shards = write_shards(run, clips, scenes, videos, media, config.clips)
    return Data(videos, clips, scenes, shards)


@flow(name="prepare-data")
def prepare_data(
    preset: str = "demo",
    store: str = "runs",
    data: str | None = None,
    solo: str | None = None,
    multi: str | None = None,
    overrides: dict[str, Any] | None = None,
    force: list[str] | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Decode a folder of videos into WebDataset shards.

    Args:
        preset: name or YAML file.
        store: folder of the artifacts.
        data: folder of the user's data set, for presets that do not generate one.
        solo: folder of single-source videos, for the preset folders.
        multi: folder of multi-source videos, for the preset folders.
        overrides: dotted key -> value.
        force: steps to build again.
        address: of a Ray cluster.
    """
    experiment = presets.load(preset, overrides=overrides)
    folders, tags = session.Folders(data, solo, multi), {"preset": preset}
    scope, compute = Scope(force=tuple(force or ())), Compute(address=address)
    with session.opened("prepare-data", experiment, store, folders, compute, scope, tags=tags) as (run, user):
        data_steps(run, experiment.data, user)
        return run.finish(preset=preset, seed=experiment.seed)
