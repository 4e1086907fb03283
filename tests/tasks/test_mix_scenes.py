import random
from collections import Counter
from pathlib import Path

import pytest

from dsol_core.config import ScenesConfig
from dsol_core.types import Clip, Scene
from tasks.adapters import tables
from tasks.adapters.steps import Run
from tasks.adapters.store import Artifact
from tasks.mix_scenes import make_scenes, mix_scenes, solo_clips

CATEGORIES = ("accordion", "cello", "erhu", "flute", "tuba", "violin")


def clips(split: str, *, categories=CATEGORIES, videos: int = 3, seconds: int = 2, kind: str = "solo") -> list[Clip]:
    return [
        Clip(f"{split}-{category}-{v}_{s}", f"{split}-{category}-{v}", s, 1.0, kind, split, (category,))
        for category in categories
        for v in range(videos)
        for s in range(seconds)
    ]


def made(rows: list[Clip], split: str, config: ScenesConfig, seed: int = 1) -> list[Scene]:
    return make_scenes(solo_clips(rows)[0][split], split, config, seed)


def named(scene: Scene) -> list[tuple[str, str]]:
    """(category, video) of each part, from the names that `clips` gives."""
    return [(clip.split("-")[1], clip.split("_")[0]) for clip in scene.clip_ids]


def test_train_scenes_hold_four_videos_of_any_category():
    scenes = made(clips("train"), "train", ScenesConfig(count=(300, 0, 0)))
    assert len(scenes) == 300 == len({scene.id for scene in scenes})
    assert all(len({video for _, video in named(scene)}) == 4 for scene in scenes)
    assert any(len({category for category, _ in named(scene)}) < 4 for scene in scenes)
    assert all(sum(scene.sounding) == 2 for scene in scenes)
    places = Counter(place for scene in scenes for place, sounds in enumerate(scene.sounding) if sounds)
    assert all(100 < places[place] < 200 for place in range(4))


@pytest.mark.parametrize(("split", "place"), [("val", 1), ("test", 2), ("train", 0)])
def test_categories_are_distinct_and_shown_and_sounding_equally_often(split: str, place: int):
    count = [0, 0, 0]
    count[place] = 30
    scenes = made(clips(split), split, ScenesConfig(count=tuple(count), distinct="category"))
    assert all(len({category for category, _ in named(scene)}) == 4 for scene in scenes)
    shown = Counter(category for scene in scenes for category, _ in named(scene))
    sounding = Counter(
        category for scene in scenes for (category, _), on in zip(named(scene), scene.sounding, strict=True) if on
    )
    assert set(shown) == set(CATEGORIES) and max(shown.values()) - min(shown.values()) <= 1
    assert max(sounding.values()) - min(sounding.values()) <= 2
    used = Counter(clip for scene in scenes for clip in scene.clip_ids)
    assert len(used) == 36 and max(used.values()) - min(used.values()) <= 2


def test_without_labels_or_with_few_categories_videos_are_distinct():
    for rows in (clips("val", categories=("a", "b", "c")), unlabelled("val")):
        scenes = made(rows, "val", ScenesConfig(count=(0, 25, 0)))
        assert len(scenes) == 25
        assert all(len({video for _, video in named(scene)}) == 4 for scene in scenes)


def unlabelled(split: str) -> list[Clip]:
    return [Clip(one.id, one.video_id, one.start, 1.0, "solo", split) for one in clips(split)]


def test_gains_lie_in_their_range_and_the_number_sounding_is_configured():
    scenes = made(clips("train"), "train", ScenesConfig(count=(200, 0, 0), gain=(0.5, 2.0), sounding=1))
    gains = [gain for scene in scenes for gain in scene.gains]
    assert 0.5 <= min(gains) < 0.6 and 1.9 < max(gains) <= 2.0
    assert all(sum(scene.sounding) == 1 for scene in scenes)


@pytest.mark.parametrize("split", ["train", "val"])
def test_scenes_depend_on_the_seed_and_not_on_the_order_of_rows(split: str):
    rows = clips(split)
    shuffled = random.Random(0).sample(rows, len(rows))
    config = ScenesConfig(count=(20, 20, 20))
    assert made(rows, split, config) == made(shuffled, split, config)
    assert made(rows, split, config, seed=1) != made(rows, split, config, seed=2)


def test_clips_of_multi_source_videos_are_left_out():
    pools, read = solo_clips([*clips("train"), *clips("train", kind="multi", categories=("duet",))])
    assert read == 42 and len(pools["train"]) == 36
    assert all("duet" not in clip.id for clip in pools["train"])


def test_the_step_writes_all_splits_and_says_what_it_could_not_make(tmp_path: Path):
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = [*clips("train"), *clips("test"), *clips("val", categories=("cello",))]
    tables.write(folder / "clips.parquet", "clips", map(tables.clip_row, rows))
    parent = Artifact("index_clips", folder, "0" * 16)
    run = Run.local(tmp_path / "store")
    artifact = mix_scenes.fn(run, parent, ScenesConfig(count=(6, 5, 4)), 7)
    scenes = list(tables.scenes(artifact.file("scenes.parquet")))
    assert Counter(scene.split for scene in scenes) == {"train": 6, "test": 4}
    assert artifact.record["rows"] == {
        "read": len(rows),
        "written": 10,
        "dropped": {"val: fewer than 4 videos to mix": 5},
    }
