"""What the gate of stage two is chosen by: validation scenes of a finished run under other gates, nothing trained.

    python benchmarks/gate.py --store runs --evaluate MARK --out docs/results/gate.md

The mark is the fingerprint of an `evaluate` (see `dsol steps`). Its scenes are listened to again and gated anew for
each number of windows, exponent of what is seen, and midpoint; the maps of what is seen are those that the run has
stored. Test scenes are not looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lineage import found, parent
from machine import line
from torch import Tensor

from dsol_core import audio, checkpoint, negatives, operating
from dsol_core.benchmarks import MODEL, Benchmark, Judge
from dsol_core.config import RATE_HZ, ExperimentConfig, ImageConfig
from dsol_core.stage_two_net import StageTwoNet
from tasks.adapters import inputs, shards, tables
from tasks.adapters.store import Artifact, Store
from tasks.evaluate import make_judge, read_frame

GATE = ("windows", "exponents", "midpoints", "powers")
METRICS = ("ciou@0.3", "sciou@0.3", "silent_nsa", "audio_top2")
RATES = ("detected", "false_alarm_offscreen", "false_alarm_noise", "false_alarm_silence")


@dataclass(frozen=True)
class Scene:
    """A validation scene: its row of predictions.parquet, what is seen, and the sounds it is asked with.

    Attributes:
        row: of predictions.parquet.
        seen: class maps without listening, float [K, h, w].
        heard: kind of sound -> how likely each entry is heard in each number of windows.
    """

    row: dict[str, Any]
    seen: Tensor
    heard: dict[str, dict[int, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--evaluate", required=True)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 3], choices=(1, 3))
    parser.add_argument("--exponents", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--midpoints", type=float, nargs="+", default=[0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15])
    parser.add_argument("--powers", type=float, nargs="+", default=[4.0], help="how steep the gate is")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    store = Store(arguments.store)
    predictions = parent(store, found(store, "evaluate", arguments.evaluate), "predict_maps")
    net = checkpoint.load(parent(store, predictions, "train_stage_two").file("model.safetensors")).network().eval()
    if not isinstance(net, StageTwoNet) or (net.config.gating, net.config.teacher) != ("presence", "presence"):
        raise SystemExit(f"{arguments.evaluate} has no gate of presence (stage_two.gating, teacher): nothing to choose")
    entries = checkpoint.load_dictionary(parent(store, predictions, "build_dictionary").file("dictionary.safetensors"))
    judge = make_judge(entries, ExperimentConfig())
    scenes = list(listened(net, predictions, parent(store, predictions, "write_shards"), arguments))
    lines = []
    for gate in product(*(getattr(arguments, name) for name in GATE)):
        count, exponent, midpoint, power = gate
        net.config = replace(
            net.config, windows=count, seen_exponent=exponent, presence_midpoint=midpoint, presence_power=power
        )
        values = [f"{one:g}" for one in gate] + [f"{one:.3f}" for one in gated(net, scenes, judge)]
        lines.append(f"| {' | '.join(values)} |")
        print(lines[-1], flush=True)
    names = ("windows", "exponent", "midpoint", "power", *METRICS, *RATES)
    page = [
        f"# The gate on {len(scenes)} validation grids",
        "",
        f"    python benchmarks/gate.py --store STORE --evaluate {arguments.evaluate} {asked(arguments)}",
        "",
        f"{line()} The run was made at commit {predictions.record['provenance']['commit'][:12]}.",
        "Detected and false alarms: at the threshold that `dsol_core.operating` chooses on these very scenes.",
        "",
        f"| {' | '.join(names)} |",
        f"| {' | '.join(['---'] * len(names))} |",
        *lines,
        "",
    ]
    arguments.out.write_text("\n".join(page))


def asked(arguments: Any) -> str:
    """Return the grid of gates as it is asked for."""
    chosen = {name: getattr(arguments, name) for name in GATE}
    return " ".join(f"--{name} {' '.join(f'{one:g}' for one in values)}" for name, values in chosen.items())


def listened(net: StageTwoNet, predictions: Artifact, folder: Artifact, arguments: Any) -> Iterator[Scene]:
    """Yield the scenes with what is heard in their own sound and in negative ones."""
    chosen = {"split": "val", "subset": "grid"}
    samples = {s.key: s for s in shards.ShardReader(folder.folder, ("grid",), "val").ordered()}
    rows = tables.read(predictions.file("negatives.parquet"))
    other = {row["item"]: row["other"] for row in rows if row["kind"] == "offscreen"}
    config, known = net.stage_one.config.audio, dict[str, dict[int, Tensor]]()

    def heard(mels: Tensor) -> dict[int, Tensor]:
        with torch.no_grad():
            likely = net.hear(mels[:, None]).likely
        return {count: likely[:count].mean(0) for count in arguments.windows}

    recipe = inputs.Recipe(config, ImageConfig(), 1, windows=max(arguments.windows))
    for key, sample in samples.items():
        known[key] = heard(inputs.log_mels(sample, recipe, "frames"))
    for row in tables.read(predictions.file("predictions.parquet")):
        if any(row[name] != value for name, value in chosen.items()):
            continue
        seen = torch.from_numpy(np.array(row["visual"], np.float32)).view(len(row["sounding"]), -1, 1)
        size = round(samples[row["item"]].meta["duration"] * RATE_HZ)
        sounds = {operating.POSITIVE: known[row["item"]]}
        for kind in ("silence", "noise"):
            wave = negatives.waveform(kind, row["item"], recipe.windows * size)
            sounds[kind] = heard(audio.log_mel(wave.view(recipe.windows, size), config)[:, 0])
        if row["item"] in other:
            sounds["offscreen"] = known[other[row["item"]]]
        yield Scene(row, seen, sounds)


def gated(net: StageTwoNet, scenes: list[Scene], judge: Judge) -> list[float]:
    """Return metrics and rates of the scenes under the network's gate."""
    scored, detections = Benchmark("grid"), operating.Detections()
    for scene in scenes:
        for kind, heard in scene.heard.items():
            with torch.no_grad():
                sounding = net.sounding(scene.seen[None], heard[net.config.windows][None])[0]
            maps = (scene.seen * sounding[:, None, None]).numpy()
            if kind == operating.POSITIVE:
                changed = {**scene.row, "maps": maps.ravel(), "sounding": sounding.numpy()}
                judge.score(scored, scene.row["item"], scene.row["video_ids"], read_frame(changed), baselines=False)
            detections.add(kind, scene.row["item"], scene.row["video_ids"], float(maps.max()), sounding.numpy())
    point = operating.choose(detections)
    rates = operating.rates(detections, point, 2) if point else {}
    estimates = scored.estimates(MODEL, 2)
    nothing = float("nan")
    return [
        *(estimates[name].value if name in estimates else nothing for name in METRICS),
        *(rates[name].value if name in rates else nothing for name in RATES),
    ]


if __name__ == "__main__":
    main()
