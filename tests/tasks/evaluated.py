"""A small made-up world: a data set's artifacts up to the predictions, on which evaluation can be tried.

Frames are 2x2 quadrants (scenes) or one square (solos) in the colour of their class; the maps light up there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsol_core import checkpoint
from dsol_core.config import DataConfig, EvaluationConfig, ExperimentConfig
from dsol_core.dictionary import ObjectDictionary
from dsol_core.negatives import BY_CATEGORY, BY_VIDEO
from tasks.adapters import images, shards, tables
from tasks.adapters.store import Artifact

CATEGORIES = ("cello", "flute", "tuba", "violin", "xylophone")
SIDE, CELLS = 64, 8
EXPERIMENT = ExperimentConfig(
    data=DataConfig(name="toy", multi_name="free"), evaluation=EvaluationConfig(side=64, bootstrap=100, gallery=2)
)
Row = dict[str, Any]


class Data(NamedTuple):
    videos: Artifact
    clips: Artifact
    scenes: Artifact
    shards: Artifact


class World(NamedTuple):
    predictions: Artifact
    data: Data
    stage_one: Artifact
    dictionary: Artifact
    stage_two: Artifact


def box(place: int, category: str | None, sounding: bool, *, solo: bool) -> Row:
    row, column = divmod(place, 2)
    size = 0.5 if solo else 0.4
    x, y = (0.25, 0.25) if solo else (0.05 + 0.5 * column, 0.05 + 0.5 * row)
    return {"x": x, "y": y, "width": size, "height": size, "category": category, "sounding": sounding}


def light(boxes: Iterable[Row], level: float) -> np.ndarray:
    heat = np.zeros((CELLS, CELLS))
    for one in boxes:
        left, top = round(one["x"] * CELLS), round(one["y"] * CELLS)
        width, height = round(one["width"] * CELLS), round(one["height"] * CELLS)
        heat[top : top + height, left : left + width] = level
    return heat


def item(subset: str, split: str, number: int, generator: np.random.Generator, skill: float) -> Row:
    """One row of the predictions; with `skill` 1 the maps are right, with 0 they are noise."""
    solo = subset == "solo"
    shown = generator.permutation(len(CATEGORIES))[: 1 if solo else 4]
    boxes = [box(i, CATEGORIES[c], solo or i < 2, solo=solo) for i, c in enumerate(shown)]
    maps = 0.15 * generator.random((len(CATEGORIES), CELLS, CELLS))
    visual, sounding = maps.copy(), 0.3 * generator.random(len(CATEGORIES))
    for one in boxes:
        place, good = CATEGORIES.index(one["category"]), generator.random() < skill
        visual[place] = np.maximum(visual[place], light([one], 0.9))
        if one["sounding"] and good:
            maps[place] = np.maximum(maps[place], light([one], 0.9 * generator.uniform(0.6, 1)))
            sounding[place] = generator.uniform(0.6, 1)
    return {
        "item": f"{subset}{split}{number:04d}_00000000",
        "subset": subset,
        "split": split,
        "video_ids": [f"video-{subset}-{split}-{number // 2}"]
        if subset != "grid"
        else [f"v{number}-{i}" for i in range(4)],
        "categories": sorted(one["category"] for one in boxes if one["sounding"]),
        "boxes": boxes,
        "height": SIDE,
        "width": SIDE,
        "maps": maps.astype(np.float16).ravel(),
        "visual": visual.astype(np.float16).ravel(),
        "agnostic": maps.max(0).astype(np.float16).ravel(),
        "sounding": sounding.astype(np.float32),
        "heard": sounding.astype(np.float32),
    }


def negatives(rows: Iterable[Row], rule: str) -> Iterable[Row]:
    """What the pictures with several objects say to other sounds: nothing, but for every fourth off-screen one."""
    for place, row in enumerate(one for one in rows if one["subset"] != "solo"):
        for kind, quiet in (("silence", 0.01), ("noise", 0.02), ("offscreen", 0.2)):
            level = 0.99 if kind == "offscreen" and place % 4 == 0 else quiet
            sounding = np.full(len(CATEGORIES), level, np.float32)
            known = {"other": "another", "rule": rule} if kind == "offscreen" else {}
            kept = {name: row[name] for name in ("item", "subset", "split", "video_ids")}
            yield {**kept, "kind": kind, "sounding": sounding, "peak": level, **known}


def frame(row: Row) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), 60, np.uint8)
    for one in row["boxes"]:
        top, left = round(one["y"] * SIDE), round(one["x"] * SIDE)
        place = CATEGORIES.index(one["category"]) if one["category"] in CATEGORIES else 0
        tint = (40 + 40 * place, 230 - 40 * place, 128)
        picture[top : top + round(one["height"] * SIDE), left : left + round(one["width"] * SIDE)] = tint
    return picture


def artifact(root: Path, step: str, **record: Any) -> Artifact:
    folder = root / step / "0123456789abcdef"
    folder.mkdir(parents=True, exist_ok=True)
    known = {"seconds": 1.5, "peak_memory_bytes": 2**30, "provenance": {"commit": "c0ffee" * 6, "dirty": False}}
    return Artifact(step, folder, "0123456789abcdef", "ran", {**known, "content": "0", **record})


def write_shards(folder: Path, rows: list[Row]) -> None:
    listed = []
    for subset in sorted({row["subset"] for row in rows}):
        chosen = [row for row in rows if (row["subset"], row["split"]) == (subset, "test")]
        sound = shards.array_bytes(np.zeros(16000, np.int16))
        samples = [
            shards.Sample(
                row["item"],
                {"video_ids": row["video_ids"], "duration": 1.0, "offset": 0},
                {"frame0.jpg": images.encode_jpeg(frame(row), 90), "audio.npy": sound},
            )
            for row in chosen
        ]
        path = folder / f"{subset}-test-00000.tar"
        count = shards.write_shard(path, samples)
        listed.append(shards.Shard(path.name, subset, "test", count, ""))
    shards.write_manifest(folder, listed, "frames")


def make(
    root: Path, *, labels: bool = True, boxes: bool = True, subsets: tuple[str, ...] = ("solo", "grid", "multi")
) -> World:
    """Write every artifact that evaluation reads.

    Args:
        root: of the store.
        labels: whether clips and frames have categories.
        boxes: whether frames have boxes.
        subsets: which benchmarks there are.
    """
    generator = np.random.default_rng(0)
    rows = [
        item(subset, split, number, generator, 0.8)
        for split in ("val", "test")
        for subset in subsets
        for number in range(12)
    ]
    for row in rows:
        if not labels:
            row["categories"], row["boxes"] = [], [{**one, "category": None} for one in row["boxes"]]
        if not boxes:
            row["boxes"] = []
    predictions = artifact(root, "predict_maps", rows={"read": len(rows), "written": len(rows), "dropped": {}})
    tables.write(predictions.folder / "predictions.parquet", "predictions", rows)
    asked = negatives(rows, BY_CATEGORY if boxes and labels else BY_VIDEO)
    tables.write(predictions.folder / "negatives.parquet", "negatives", asked)
    return World(predictions, _data(root, rows, labels), *_trained(root, labels))


def _data(root: Path, rows: list[Row], labels: bool) -> Data:
    dropped = {"no audio stream": 2, "truncated": 1}
    videos = artifact(root, "ingest_videos", rows={"read": 23, "written": 20, "dropped": dropped})
    statuses = ["ok"] * 20 + ["quarantined"] * 2 + ["missing"]
    tables.write(
        videos.folder / "videos.parquet",
        "videos",
        ({"id": f"v{i}", "kind": "solo", "split": "train", "status": one} for i, one in enumerate(statuses)),
    )
    clips = artifact(root, "index_clips")
    tables.write(
        clips.folder / "clips.parquet",
        "clips",
        (
            {
                "id": f"train{i:03d}",
                "video_id": f"v{i // 2}",
                "start": 0.0,
                "duration": 1.0,
                "kind": "solo",
                "split": "train",
                "categories": [CATEGORIES[i % 5]] if labels else [],
                "boxes": [],
            }
            for i in range(40)
        ),
    )
    made = artifact(root, "write_shards", rows={"read": 40, "written": 39, "dropped": {"decoding failed <at> 3 s": 1}})
    write_shards(made.folder, rows)
    return Data(videos, clips, artifact(root, "mix_scenes"), made)


def _trained(root: Path, labels: bool) -> tuple[Artifact, Artifact, Artifact]:
    elsewhere = {"trained_with": {"compute": {"workers": 16}, "seconds": 4321.0}}
    trained = [
        artifact(root, step, seed=7, notes=notes)
        for step, notes in (("train_stage_one", {}), ("train_stage_two", elsewhere))
    ]
    for one in trained:
        tables.write_history(
            one.folder / "history.parquet",
            [{"epoch": epoch, "loss": 2.0 / (epoch + 1), "nmi": epoch / 5} for epoch in range(5)],
        )
    entries = ObjectDictionary(
        np.eye(5, dtype=np.float32),
        np.full(5, 8),
        tuple(f"cluster-{i:02d}" for i in range(5)),
        CATEGORIES if labels else None,
    )
    made = artifact(root, "build_dictionary")
    checkpoint.save_dictionary(made.folder / "dictionary.safetensors", entries)
    clusters = [{"key": f"train{i:03d}", "cluster": i % 5 if i != 7 else 0} for i in range(40)]
    tables.write(made.folder / "clusters.parquet", "clusters", clusters)
    (made.folder / "summary.json").write_text(json.dumps({"nmi": None}))
    return trained[0], made, trained[1]
