"""clips.parquet -> scenes.parquet: recipes of 2x2 cocktail-party scenes, no media."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from dsol_core.config import ScenesConfig
from dsol_core.types import SPLITS, Clip, Scene, Split
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact

if TYPE_CHECKING:
    from numpy.random import Generator

logger = logging.getLogger(__name__)

PARTS = 4  # of a scene


class SoloClip(NamedTuple):
    """What a recipe needs to know of a clip; `category` is None where nobody labelled it."""

    id: str
    video_id: str
    category: str | None


@step
def mix_scenes(run: Run, clips: Artifact, config: ScenesConfig, seed: int) -> Artifact:
    """Read clips.parquet, write scenes.parquet: which four solo clips are tiled, which of them sound, how loud."""

    def write(out: StepOutput) -> None:
        from tasks.adapters import tables

        pools, read = solo_clips(tables.clips(clips.file("clips.parquet")))
        scenes = {split: make_scenes(pools[split], split, config, seed) for split in SPLITS}
        rows = (tables.scene_row(scene) for split in SPLITS for scene in scenes[split])
        written = tables.write(out.folder / "scenes.parquet", "scenes", rows)
        short = {
            f"{split}: fewer than {PARTS} videos to mix": config.count[index]
            for index, split in enumerate(SPLITS)
            if not scenes[split] and config.count[index]
        }
        out.rows(read=read, written=written, dropped=short)

    return run.step("mix_scenes", config, {"clips": clips}, write, seed=seed)


def solo_clips(clips: Iterable[Clip]) -> tuple[dict[str, list[SoloClip]], int]:
    """Return the solo clips of each split sorted by id, and the number of clips of any kind."""
    pools: dict[str, list[SoloClip]] = {split: [] for split in SPLITS}
    read = 0
    for clip in clips:
        read += 1
        if clip.kind == "solo":
            category = clip.categories[0] if len(clip.categories) == 1 else None
            pools[clip.split].append(SoloClip(clip.id, clip.video_id, category))
    return {split: sorted(pool) for split, pool in pools.items()}, read


def make_scenes(pool: list[SoloClip], split: Split, config: ScenesConfig, seed: int) -> list[Scene]:
    """Draw the recipes of one split.

    Train scenes mix four videos at random ("video") or of four categories ("category"). Scenes of the other splits
    hold four categories wherever the split has as many, each shown and sounding equally often; else four videos.

    Args:
        pool: solo clips of the split, sorted by id.
        split: whose count of the configuration is drawn.
        config: counts, gains, how many sound.
        seed: any integer; with the pool it decides everything.

    Returns:
        The scenes; none, with a warning, where there are fewer than four videos.
    """
    import numpy as np

    place = SPLITS.index(split)
    generator = np.random.default_rng([seed, place])
    videos = {clip.video_id for clip in pool}
    if len(videos) < PARTS:
        if config.count[place]:
            logger.warning("%s has %d solo videos; a scene needs %d, so none is made", split, len(videos), PARTS)
        return []
    categories = {clip.category for clip in pool if clip.category is not None}
    labelled = len(categories) >= PARTS and (split != "train" or config.distinct == "category")
    quartets = _four_categories(pool, config, generator) if labelled else _four_videos(pool, config, generator)
    scenes = []
    for number in range(config.count[place]):
        clips, sounding = next(quartets)
        gains = generator.uniform(*config.gain, PARTS)
        gained = tuple(round(float(gain), 4) for gain in gains)
        scenes.append(Scene(f"scene-{split}-{number:05d}", clips, sounding, gained, split))
    return scenes


Quartet = tuple[tuple[str, ...], tuple[bool, ...]]


def _four_videos(pool: list[SoloClip], config: ScenesConfig, generator: Generator) -> Iterator[Quartet]:
    """Yield four clips of different videos and which of them sound, without end."""
    by_video: dict[str, list[str]] = defaultdict(list)
    for clip in pool:
        by_video[clip.video_id].append(clip.id)
    videos = sorted(by_video)
    while True:
        chosen = [by_video[videos[i]] for i in generator.choice(len(videos), PARTS, replace=False)]
        sounding = set(generator.choice(PARTS, config.sounding, replace=False).tolist())
        clips = tuple(ids[int(generator.integers(len(ids)))] for ids in chosen)
        yield clips, tuple(part in sounding for part in range(PARTS))


def _four_categories(pool: list[SoloClip], config: ScenesConfig, generator: Generator) -> Iterator[Quartet]:
    """Yield four clips of different categories, balanced: always the least used categories, videos and clips."""
    by_category: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for clip in pool:
        if clip.category is not None:
            by_category[clip.category][clip.video_id].append(clip.id)
    shown, sounded, videos, clips = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    while True:
        categories = _least_used(sorted(by_category), shown, PARTS, generator)
        sounding = _least_used(categories, sounded, config.sounding, generator)
        chosen = []
        for category in categories:
            (video,) = _least_used(sorted(by_category[category]), videos, 1, generator)
            chosen += _least_used(by_category[category][video], clips, 1, generator)
        yield tuple(chosen), tuple(category in sounding for category in categories)


def _least_used(names: list[str], used: Counter[str], count: int, generator: Generator) -> list[str]:
    """Return and count `count` names, those used least, ties at random; their order is random too."""
    order = generator.permutation(len(names)).tolist()
    chosen = sorted((names[i] for i in order), key=lambda name: used[name])[:count]
    used.update(chosen)
    return [chosen[i] for i in generator.permutation(count).tolist()]
