"""Time of scoring VGG-SS: the plain loop of the literature against ours, in one process, and our memory.

    OMP_NUM_THREADS=1 python benchmarks/scoring_speed.py --out docs/results/scoring_speed.md
    ... --annotations FOLDER    # the boxes of vggss.json instead of random ones

5,158 maps of 14 x 14 are resized to 224 x 224 and scored: cIoU with the boxes, success at 0.5, AUC. The plain loop does
what the public evaluators do for each picture: torch's resize, min-max, a sort of 50,176 pixels, float masks and sums.
They take turns block by block and CPU time is counted, so that a busy machine slows all alike; the ratio is the median
over the repeats. All must give the same numbers.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import machine
import numpy as np
import torch
import torch.nn.functional as F

from dsol_core import metrics, protocol_scores
from dsol_core.protocols import Item, Maps, Picture, Protocol, Sound, Source, Switches

CELLS, SIDE, BLOCK = 14, 224, 200
SWITCHES = Switches(resize="bilinear_corners", normalise="minmax", box_format="xyxy", empty="fail")
PROTOCOL = Protocol(
    name="speed", title="VGG-SS", row=5, kind="single", annotations=(), media="", items=5158,
    metrics=("iou@0.5", "auc"), reference=SWITCHES, correct=SWITCHES, measures="", trap="",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5158)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--annotations", type=Path, help="folder with vggss.json; without it the boxes are random")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    items = read(arguments.annotations) if arguments.annotations else random_items(arguments.items, arguments.seed)
    predictions = RandomMaps(arguments.seed)
    kept = {item.key: predictions[item.key] for item in items}
    runs = [time_all(items, kept) for _ in range(arguments.repeats)]
    rows = []
    for place, name in enumerate(("loop of the public evaluators", "the same, sums computed once", "dsol")):
        middle = statistics.median(seconds[place] for seconds, _ in runs)
        ratios = sorted(seconds[place] / seconds[-1] for seconds, _ in runs)
        rows.append(
            f"| {name} | {middle:.2f} | {1e6 * middle / len(items):.0f} | "
            f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
        )
    quarter, whole = (peak_bytes(items[:n], predictions) for n in (len(items) // 4, len(items)))
    text = f"""# Time of scoring {len(items):,} maps of {CELLS} x {CELLS} on {SIDE} x {SIDE} pixels

    OMP_NUM_THREADS=1 python benchmarks/scoring_speed.py{" --annotations FOLDER" if arguments.annotations else ""}

{machine.line()}

One process, one thread; CPU time, median of {len(runs)} repeats in which they take turns every {BLOCK} items. The
ratio is to dsol's time, median and range over the repeats.

| | seconds | a map, microseconds | ratio |
| --- | --- | --- | --- |
{chr(10).join(rows)}

Largest difference of a cIoU: {max(difference for _, difference in runs):.1e} (float32 sums in another order).
Most memory allocated while scoring in blocks of {BLOCK}: {quarter / 2**20:.2f} MiB for {len(items) // 4:,} items,
{whole / 2**20:.2f} MiB for {len(items):,}.
"""
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


class RandomMaps(Mapping[str, Maps]):
    """A map of noise for every key, made when it is asked for."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, key: str) -> Maps:
        drawn = np.random.default_rng([self.seed, *key.encode()]).random((1, CELLS, CELLS), dtype=np.float32)
        return Maps(key, drawn, (None,), (None,))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def random_items(count: int, seed: int) -> list[Item]:
    """Return items with one box each (in a tenth of them two), anywhere in the frame."""
    generator, items = np.random.default_rng(seed), []
    for number in range(count):
        boxes = []
        for _ in range(1 + (number % 10 == 0)):
            corners = np.sort(generator.random((2, 2)), axis=0)
            left, top, right, bottom = map(float, corners.reshape(-1))
            boxes.append((left, top, right, bottom))
        items.append(item(f"{number:05d}", tuple(boxes)))
    return items


def item(key: str, boxes: tuple[tuple[float, float, float, float], ...]) -> Item:
    return Item(key, (key,), (Picture(key),), (Sound(key),), (Source(None, boxes),))


def read(folder: Path) -> list[Item]:
    from tasks.adapters.benchmarks import read_items

    return list(read_items("vgg-ss", folder, SWITCHES).items)


def time_all(items: Sequence[Item], kept: Mapping[str, Maps]) -> tuple[list[float], float]:
    """Return the CPU seconds of the public loop, of the lean one and of ours, and the largest difference of a cIoU."""
    contestants = [(public_loop, plain_summary), (lean_loop, plain_summary), (ours, our_summary)]
    seconds, found = [0.0] * len(contestants), [[] for _ in contestants]  # type: list[float], list[list[float]]
    for start in range(0, len(items), BLOCK):
        for place, (score, _) in enumerate(contestants):
            started = time.process_time()
            found[place] += score(items[start : start + BLOCK], kept)
            seconds[place] += time.process_time() - started
    for place, (_, summarise) in enumerate(contestants):
        started = time.process_time()
        summarise(found[place])
        seconds[place] += time.process_time() - started
    if not np.allclose(plain_summary(found[0]), our_summary(found[2]), atol=2e-3):
        raise SystemExit(f"the two disagree: {plain_summary(found[0])} and {our_summary(found[2])}")
    return seconds, float(np.abs(np.subtract(found[0], found[2])).max())


def public_loop(items: Sequence[Item], predictions: Mapping[str, Maps]) -> list[float]:
    """Score as the public evaluators do; their routine returns intersection and union too, computed anew."""
    return [(ciou(*pair), sums(*pair))[0] for pair in plain_masks(items, predictions)]


def lean_loop(items: Sequence[Item], predictions: Mapping[str, Maps]) -> list[float]:
    """Score as they do, but without computing the sums a second time."""
    return [ciou(*pair) for pair in plain_masks(items, predictions)]


def ciou(infer: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sum(infer * truth) / (np.sum(truth) + np.sum(infer * (truth == 0))))


def sums(infer: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    return np.sum(infer * truth), np.sum(truth) + np.sum(infer * (truth == 0))


def plain_masks(items: Sequence[Item], predictions: Mapping[str, Maps]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Binarise and rasterise as the public evaluators do, picture by picture, float64 [224, 224] each."""
    for one in items:
        raw = torch.from_numpy(predictions[one.key].maps)[None]
        pred = F.interpolate(raw, size=(SIDE, SIDE), mode="bilinear", align_corners=True)[0, 0].numpy()
        low, high = pred.min(), pred.max()
        if high - low != 0:
            pred = (pred - low) / (high - low)
        truth = np.zeros((SIDE, SIDE))
        for box in one.sources[0].boxes:
            x1, y1, x2, y2 = (int(SIDE * max(0.0, min(1.0, value))) for value in box)
            own = np.zeros((SIDE, SIDE))
            own[y1:y2, x1:x2] = 1
            truth += own
        truth[truth > 0] = 1
        threshold = np.sort(pred.flatten())[SIDE * SIDE // 2]
        infer = np.zeros((SIDE, SIDE))
        infer[pred >= threshold] = 1
        yield infer, truth


def plain_summary(cious: Sequence[float]) -> tuple[float, float]:
    curve = [np.sum(np.array(cious) >= 0.05 * i) / len(cious) for i in range(21)]
    return curve[10], float(np.trapezoid(curve, dx=0.05))


def ours(items: Sequence[Item], predictions: Mapping[str, Maps]) -> list[float]:
    return list(protocol_scores.score_items(items, predictions, PROTOCOL, SWITCHES).values["iou"].tolist())


def our_summary(cious: Sequence[float]) -> tuple[float, float]:
    values = np.array(cious)
    return float(metrics.success(values, 0.5).mean()), float(metrics.auc_terms(values).mean())


def peak_bytes(items: Sequence[Item], predictions: RandomMaps) -> int:
    """Return the most memory that scoring allocates; the maps are made and dropped one by one."""
    tracemalloc.start()
    for start in range(0, len(items), BLOCK):
        protocol_scores.score_items(items[start : start + BLOCK], predictions, PROTOCOL, SWITCHES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
