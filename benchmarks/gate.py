"""How a trained stage two is best read: validation scenes of finished runs under other maps and gates, nothing trained.

    python benchmarks/gate.py --store runs --evaluate MARK [MARK ...] --out docs/results/gate.md

A mark is the fingerprint of an `evaluate` (see `dsol steps`); of several, runs of one preset with other seeds, the
means are told. Their scenes are looked at and listened to again, and mapped and gated anew for each combination of the
values given. Test scenes are not looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from lineage import found, parent
from machine import line
from torch import Tensor

from dsol_core import audio, checkpoint, image, negatives, operating
from dsol_core.benchmarks import MODEL, Benchmark, Judge
from dsol_core.config import RATE_HZ, ExperimentConfig
from dsol_core.stage_two_net import StageTwoNet
from tasks.adapters import inputs, shards, tables
from tasks.adapters.store import Artifact, Store
from tasks.evaluate import make_judge, read_frame

BATCH = 32
# Option -> the setting of stage two that it varies.
READ = {
    "temperatures": "map_temperature",
    "backgrounds": "background",
    "windows": "windows",
    "exponents": "seen_exponent",
    "midpoints": "presence_midpoint",
    "powers": "presence_power",
}
NEEDED = {"gating": "presence", "teacher": "presence", "class_maps": "cosine"}
METRICS = ("ciou@0.3", "sciou@0.3", "sauc", "silent_nsa", "audio_top2", "sounding_top2")
RATES = ("detected", "false_alarm_offscreen", "false_alarm_noise", "false_alarm_silence")
BALANCE = ("sciou@0.3", "silent_nsa")  # a map that lights all is good in the one, one that lights nothing in the other


@dataclass(frozen=True)
class Scene:
    """A validation scene: its row of predictions.parquet, its cells, and the sounds it is asked with.

    Attributes:
        row: of predictions.parquet.
        cells: unit vectors, float [E, h, w].
        heard: kind of sound -> how likely each entry is heard in each number of windows.
    """

    row: dict[str, Any]
    cells: Tensor
    heard: dict[str, dict[int, Tensor]]


@dataclass(frozen=True)
class Trained:
    """A run: its network, its validation scenes, and who scores them."""

    net: StageTwoNet
    scenes: list[Scene]
    judge: Judge
    commit: str


def main() -> None:
    arguments = _arguments()
    store = Store(arguments.store)
    runs = [trained(store, mark, arguments) for mark in arguments.evaluate]
    lines = []
    for values in product(*(getattr(arguments, name) for name in READ)):
        read = dict(zip(READ.values(), values, strict=True))
        told = [gated(run, read, arguments.subset) for run in runs]
        means = [mean(one[name] for one in told) for name in (*METRICS, *RATES)]
        balance = mean(one[name] for one in told for name in BALANCE)
        lines.append(f"| {' | '.join([*map(_shown, values), *(f'{one:.3f}' for one in (*means, balance))])} |")
        print(lines[-1], flush=True)
    names = (*(name.replace("_", " ") for name in READ.values()), *METRICS, *RATES, f"mean of {' and '.join(BALANCE)}")
    page = [
        f"# Stage two read in other ways: {len(runs[0].scenes)} validation scenes ({arguments.subset})",
        "",
        f"    python benchmarks/gate.py --store STORE --evaluate {' '.join(arguments.evaluate)} {asked(arguments)}",
        "",
        f"{line()} Trained at commit {', '.join(sorted({run.commit for run in runs}))}; means over {len(runs)} run(s).",
        "Detected and false alarms: at the threshold that `dsol_core.operating` chooses on these very scenes.",
        "",
        f"| {' | '.join(names)} |",
        f"| {' | '.join(['---'] * len(names))} |",
        *lines,
        "",
    ]
    arguments.out.write_text("\n".join(page))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--evaluate", nargs="+", required=True)
    parser.add_argument("--subset", default="grid", choices=negatives.SUBSETS)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--backgrounds", type=_number, nargs="+", default=[None, 0.2], help='cosines, or "null"')
    parser.add_argument("--windows", type=int, nargs="+", default=[3], choices=(1, 3))
    parser.add_argument("--exponents", type=float, nargs="+", default=[1.0])
    parser.add_argument("--midpoints", type=float, nargs="+", default=[0.01, 0.03, 0.07, 0.15])
    parser.add_argument("--powers", type=float, nargs="+", default=[4.0])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _number(text: str) -> float | None:
    return None if text == "null" else float(text)


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def asked(arguments: Any) -> str:
    """Return the values as they are asked for."""
    chosen = {name: " ".join(map(_shown, getattr(arguments, name))) for name in READ}
    return " ".join(f"--{name} {values}" for name, values in {"subset": arguments.subset, **chosen}.items())


def trained(store: Store, mark: str, arguments: Any) -> Trained:
    """Read the run that an `evaluate` belongs to."""
    predictions = parent(store, found(store, "evaluate", mark), "predict_maps")
    net = checkpoint.load(parent(store, predictions, "train_stage_two").file("model.safetensors")).network().eval()
    if not isinstance(net, StageTwoNet) or tuple(getattr(net.config, name) for name in NEEDED) != tuple(
        NEEDED.values()
    ):
        raise SystemExit(f"{mark} cannot be read in other ways; expected stage two with {NEEDED}")
    entries = checkpoint.load_dictionary(parent(store, predictions, "build_dictionary").file("dictionary.safetensors"))
    judge = make_judge(entries, ExperimentConfig())
    scenes = list(listened(net, predictions, parent(store, predictions, "write_shards"), arguments))
    return Trained(net, scenes, judge, str(predictions.record["provenance"]["commit"])[:12])


@torch.no_grad()
def listened(net: StageTwoNet, predictions: Artifact, folder: Artifact, arguments: Any) -> Iterator[Scene]:
    """Yield the scenes with what is seen, and what is heard in their own sound and in negative ones."""
    known = {row["item"]: row for row in tables.read(predictions.file("predictions.parquet")) if row["split"] == "val"}
    rows = tables.read(predictions.file("negatives.parquet"))
    other = {row["item"]: row["other"] for row in rows if row["kind"] == "offscreen"}
    config = net.stage_one.config
    front = image.scaled(config.image, net.config.test_scale, config.backbone.visual_stride)
    recipe = inputs.Recipe(config.audio, front, BATCH, windows=max(arguments.windows))
    reader = shards.ShardReader(folder.folder, (arguments.subset,), "val")
    samples = list(reader.ordered())

    def heard(mels: Tensor) -> dict[int, Tensor]:
        likely = net.hear(mels[:, None]).likely
        return {count: likely[:count].mean(0) for count in arguments.windows}

    own = {sample.key: heard(inputs.log_mels(sample, recipe, "frames")) for sample in samples}
    for first in range(0, len(samples), BATCH):
        group = samples[first : first + BATCH]
        batch = inputs.evaluation_batch(group, recipe, reader.content)
        for sample, cells in zip(group, negatives.look(net, batch).cells, strict=True):
            size = round(sample.meta["duration"] * RATE_HZ)
            sounds = {operating.POSITIVE: own[sample.key]}
            for kind in ("silence", "noise"):
                wave = negatives.waveform(kind, sample.key, recipe.windows * size)
                sounds[kind] = heard(audio.log_mel(wave.view(recipe.windows, size), config.audio)[:, 0])
            if sample.key in other:
                sounds["offscreen"] = own[other[sample.key]]
            yield Scene(known[sample.key], cells, sounds)


@torch.no_grad()
def gated(run: Trained, read: dict[str, Any], subset: str) -> dict[str, float]:
    """Return metrics and rates of the scenes of a run whose stage two is read so."""
    net = run.net
    net.config = replace(net.config, **read)
    scored, detections = Benchmark(subset), operating.Detections()
    for scene in run.scenes:
        item, videos = scene.row["item"], scene.row["video_ids"]
        seen = net.class_maps(scene.cells[None], scene.cells[None])
        for kind, heard in scene.heard.items():
            likely = heard[net.config.windows]
            sounding = net.sounding(seen, likely[None])[0]
            maps = (seen[0] * sounding[:, None, None]).numpy()
            if kind == operating.POSITIVE:
                changed = {
                    "maps": maps.ravel(),
                    "visual": seen.numpy().ravel(),
                    "sounding": sounding.numpy(),
                    "heard": likely.numpy(),
                }
                run.judge.score(scored, item, videos, read_frame({**scene.row, **changed}), baselines=False)
            detections.add(kind, item, videos, float(maps.max()), sounding.numpy())
    point = operating.choose(detections)
    rates = operating.rates(detections, point, 2) if point else {}
    estimates = scored.estimates(MODEL, 2)
    told = {name: estimates[name].value for name in METRICS if name in estimates}
    told |= {name: rates[name].value for name in RATES if name in rates}
    return {name: told.get(name, float("nan")) for name in (*METRICS, *RATES)}


if __name__ == "__main__":
    main()
