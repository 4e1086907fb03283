"""How often the number of classes is estimated right, on prepared stores with known classes; writes a Markdown table.

    python benchmarks/cluster_count.py --store STORE [--store STORE ...] [--quick] [--out docs/results/cluster_count.md]

Labels choose the subsets and score the estimates; the estimates never see them. The settings of
`dsol_core.cluster_count` and `dsol_core.shared_space` were chosen on the demo,
`UNITS_A_DIRECTION` and `UNITS_A_CLASS` on `real_av` too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import scale

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import line as machine_line

from dsol_core import agreement, checkpoint, cluster_count, clustering, shared_space
from dsol_core.stage_one_net import StageOneNet
from tasks.adapters import tables
from tasks.adapters.faiss_kmeans import FaissKMeans
from tasks.adapters.inputs import Recipe
from tasks.adapters.loader import Loader

BARE, PLAIN, TRAINED = "before training, shared space", "before training, side by side", "after stage one"
RESTARTS = 20  # of the k-means with the true number, as stage one has
KEPT = 0.8  # share of the videos in each draw


def records(store: Path, step: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield folder and record of each artifact of a step, the newest first."""
    found = [(path.parent, json.loads(path.read_text())) for path in (store / step).glob("*/artifact.json")]
    yield from sorted(found, key=lambda one: -one[1]["started"])


def described(store: Path) -> tuple[str, Any, dict[str, list[Any]]]:
    """Return the data's name, the category of each solo training video, and the views [V, D] to cluster, by name."""
    folder, record = next(
        (folder, record)
        for folder, record in records(store, "train_stage_one")
        if record["config"]["stage_one"]["recipe"] == "ours"
    )
    net = checkpoint.load(folder / "model.safetensors").network()
    assert isinstance(net, StageOneNet)
    shards = record["parents"]["shards"]["fingerprint"]
    image = record["config"]["stage_one"]["image"]
    source = next(
        folder
        for folder, made in records(store, "trunk_features")
        if made["parents"]["shards"]["fingerprint"] == shards
        and (made["config"].get("part"), made["config"]["image"]) == ("solos", image)
    )
    written = json.loads((store / "write_shards" / shards / "artifact.json").read_text())
    clips = store / "index_clips" / written["parents"]["clips"]["fingerprint"] / "clips.parquet"
    known = {one.id: one.categories[0] for one in tables.clips(clips) if one.categories}
    loader = Loader(source, ["solo"], Recipe.stage_one(net.config, 0))
    videos: dict[str, str] = {}
    keys, *views = clustering.input_features(net, clustering.noting_videos(loader.sequential(), videos))
    _, objects = clustering.object_features(net, loader.sequential(), net.config)
    units = clustering.places([videos[key] for key in keys], net.config)
    category = np.array([known[keys[row]] for row in np.unique(units, return_index=True)[1]])
    bare = [clustering.averaged(view, units) for view in views]
    trained = clustering.averaged(clustering.unit_rows(objects), units)
    return store.name, category, {BARE: bare, PLAIN: bare, TRAINED: [trained]}


def points_of(kind: str, views: list[Any]) -> Any:
    """Return the unit vectors that are clustered."""
    if kind == BARE:
        return shared_space.shared_space(views)
    if kind == PLAIN:
        white = [PCA(shared_space.DIRECTIONS, whiten=True, random_state=0).fit_transform(scale(view)) for view in views]
        return clustering.unit_rows(np.concatenate(white, 1)).astype(np.float32)
    return clustering.unit_rows(views[0]).astype(np.float32)


def drawn(category: Any, classes: int, seed: int, each: int | None = None) -> Any:
    """Return the rows of some classes, drawn at random, and of them a share of the videos, or so many of each class."""
    generator = np.random.default_rng(seed)
    names = generator.permutation(np.unique(category))[:classes]
    if each:
        return np.concatenate([generator.permutation(np.flatnonzero(category == name))[:each] for name in names])
    return np.flatnonzero(np.isin(category, names) & (generator.random(len(category)) < KEPT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, action="append", required=True)
    parser.add_argument("--classes", type=int, action="append", help="default 3, 6, 11 and all")
    parser.add_argument("--videos", type=int, nargs="*", default=[5, 10, 20, 30], help="of each class, second table")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=24, help="candidates are 2 to this")
    parser.add_argument("--quick", action="store_true", help="one seed, two splits")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seeds, splits = (1, 2) if options.quick else (options.seeds, cluster_count.SPLITS)
    candidates = range(2, options.largest + 1)
    rows, few = [], []
    for store in options.store:
        name, category, views = described(store)
        there = len(np.unique(category))
        for classes in sorted({one for one in options.classes or [3, 6, 11, there] if one <= there}):
            for kind, arrays in views.items():
                found, alike = [], []
                for seed in range(seeds):
                    some = drawn(category, classes, seed)
                    points = points_of(kind, [view[some] for view in arrays])
                    _, clusters = FaissKMeans().fit(points, classes, seed, spherical=True, restarts=RESTARTS)
                    alike.append(agreement.nmi(clusters, category[some].tolist()))
                    found.append(cluster_count.estimate(points, candidates, FaissKMeans(), seed, splits=splits))
                rows.append((name, there, classes, kind, found, float(np.mean(alike))))
                print(name, classes, kind, [one.best for one in found], file=sys.stderr, flush=True)
            for each in options.videos:
                best = []
                for seed in range(seeds):
                    some = drawn(category, classes, seed, each)
                    points = points_of(BARE, [view[some] for view in views[BARE]])
                    count = cluster_count.estimate(points, candidates, FaissKMeans(), seed, splits=splits)
                    best.append(count.best)
                few.append((name, classes, each, best))
                print(*few[-1], file=sys.stderr, flush=True)
    page = written(rows, seeds, splits) + of_few(few)
    if options.out:
        options.out.write_text(page)
    print(page)


def of_few(few: list[Any]) -> str:
    """Return the second table: what estimates come to with fewer videos."""
    lines = [
        "",
        "So many videos of each class, before training, in the shared space:",
        "",
        "| data | true classes | videos a class | estimates | mean error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, classes, each, best in few:
        error = np.mean(np.array(best) - classes)
        lines.append(f"| {name} | {classes} | {each} | {', '.join(map(str, best))} | {error:+.1f} |")
    return "\n".join(lines) + "\n"


def written(rows: list[Any], seeds: int, splits: int) -> str:
    """Return the page."""
    stores = " ".join("--store STORE" for _ in {one[0] for one in rows})
    command = f"python benchmarks/cluster_count.py {stores} --seeds {seeds}"
    lines = [
        "# How many classes: estimates against the truth",
        "",
        f"    {command}",
        "",
        f"{machine_line()} {seeds} draws of classes and of {100 * KEPT:.0f} % of their videos, {splits} splits each.",
        "Labels choose the subsets and score the estimates; no estimate sees them.",
        "",
        "| data | true classes | features | estimates | exact | within 1 | mean error | truth among the plausible "
        "| NMI at the true number |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, _, classes, kind, found, alike in rows:
        best = np.array([one.best for one in found])
        near = np.mean([classes in one.plausible for one in found])
        lines.append(
            f"| {name} | {classes} | {kind} | {', '.join(map(str, best))} | {np.mean(best == classes):.1f} "
            f"| {np.mean(abs(best - classes) <= 1):.1f} | {np.mean(best - classes):+.1f} | {near:.1f} "
            f"| {alike:.3f} |"
        )
    lines += [
        "",
        f"- *{BARE}*: canonical correlation of pictures and sounds; what `dsol classes` and `clusters: auto` use.",
        f"- *{PLAIN}*: the same inputs, whitened, without looking for what they share.",
        f"- *{TRAINED}*: object features of a stage one that was trained on all classes with their true number, so it "
        "cannot be had before the number is known; it shows what better features would give.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
