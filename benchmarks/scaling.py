"""What 1x, 4x and 16x data cost: seconds, memory and files of every step; and from that, what 2 million clips would.

    python benchmarks/scaling.py --out docs/results/scaling.md

Each size is a whole demo from videos to the registry in a store of its own; training is cut to two epochs, so that its
cost is told by epoch. Then the largest store is asked again, with nothing to do. `--from docs/results/scaling.json`
writes the page again from an earlier measurement.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine

if TYPE_CHECKING:
    from dsol_core.config import StageOneConfig

ROOT = Path(__file__).resolve().parents[1]
ONE = {"solo_per_category": (4, 1, 2), "multi": (4, 4, 4)}  # videos of 3 seconds: 89, of 3 clips each
SCENES = (10, 10, 20)
FACTORS = (1, 4, 16)
EPOCHS = 2
SETTINGS = (
    f"stage_one.epochs={EPOCHS}",
    "stage_one.first_clustering=1",
    f"stage_two.hearing_passes={EPOCHS}",
    "evaluation.gallery=1",
)
KNOWN = 190  # bytes of a key, a video and a label in two dicts of Python, measured by tracemalloc on 300,000
ROSE = 1.02  # ratio of two costs a row from which on a step did not stay linear
STARTUP, OWN, NOTHING = 75.0, 0.02, 30.0  # targets: seconds; share of the wall time; seconds
SETS = (("VGGSound", 200_000), ("AudioSet", 2_000_000))  # clips ...
SECONDS = 10  # ... of so many seconds
GPU_RATE = 100e12  # assumed: operations a second that a training sustains on a large GPU in bf16


@dataclass(frozen=True)
class Size:
    """A whole run on `factor` times the smallest data."""

    factor: int
    clips: int  # and scenes: rows of the shards
    seconds: dict[str, float]  # of each step; starts and picture features are taken out of the steps that made them
    peaks: dict[str, int]  # bytes
    startup: dict[str, float]
    around: float  # start of the interpreter, and what follows the flow: the ends of Ray and of Prefect's server
    wall: float
    files: dict[str, int]
    bytes: dict[str, int]

    @property
    def own(self) -> float:
        """Seconds that neither a step nor a start or end took: stores, records, Prefect's and MLflow's accounts."""
        return self.wall - sum(self.seconds.values()) - sum(self.startup.values()) - self.around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--factor", type=int, action="append", help="of 1, 4, 16; default all")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--from", dest="measured", type=Path, help="JSON of an earlier measurement")
    arguments = parser.parse_args()
    found = json.loads(arguments.measured.read_text()) if arguments.measured else measure_all(parser, arguments)
    text = page(found)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
        arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1))
    print(text)


def measure_all(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every size, then the largest again; return all that the page tells."""
    factors = sorted(set(arguments.factor or FACTORS))
    if len(factors) < 2:
        parser.error(f"one factor, {factors[0]}, tells no growth; expected at least two")
    sizes = [vars(measure(factor, arguments.store / f"{factor}x")) for factor in factors]
    started = time.perf_counter()
    run(factors[-1], arguments.store / f"{factors[-1]}x")
    nothing = time.perf_counter() - started
    place = {"machine": machine.line(), "cores": machine.cores(), "memory_bytes": machine.memory_bytes()}
    return {**place, "sizes": sizes, "nothing": nothing}


def run(factor: int, store: Path) -> dict[str, Any]:
    """Run the demo with `factor` times the smallest data and return its summary."""
    settings = [f"data.videos.orchestra.{name}={[factor * one for one in sizes]}" for name, sizes in ONE.items()]
    settings += [f"data.scenes.count={[factor * one for one in SCENES]}", *SETTINGS]
    command = [sys.executable, "-m", "flows.cli", "demo", "--store", str(store), "--json"]
    for one in settings:
        command += ["--set", one]
    answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(answer.stdout))


def measure(factor: int, store: Path) -> Size:
    """Run a size from nothing, or raise where its store exists."""
    if store.exists():
        sys.exit(f"{store} exists; remove it, or give another --store: its steps would be reused and not measured")
    started = time.perf_counter()
    summary = run(factor, store)
    wall = time.perf_counter() - started
    print(f"{factor}x: {wall:.0f} s", file=sys.stderr, flush=True)
    records = {path.parent: json.loads(path.read_text()) for path in store.glob("*/*/artifact.json")}
    seconds: dict[str, float] = {}
    for record in records.values():
        seconds[record["step"]] = seconds.get(record["step"], 0.0) + record["seconds"]
    starting: dict[str, float] = dict(summary["startup_seconds"])
    training = starting.pop("ray_train", 0.0)  # happens inside the two trainings
    for record in records.values():
        if record["step"] == "trunk_features":
            maker = "train_stage_one" if record["config"]["part"] == "solos" else "predict_maps"
            seconds[maker] -= record["seconds"]
    for step in ("train_stage_one", "train_stage_two"):
        seconds[step] -= training / 2
    seconds["make_videos"] -= starting.get("ray", 0.0)  # the first step that asks for Ray
    peaks: dict[str, int] = {}
    for record in records.values():
        peaks[record["step"]] = max(peaks.get(record["step"], 0), record["peak_memory_bytes"])
    content = {
        step: [path for folder, record in records.items() if record["step"] == step for path in folder.iterdir()]
        for step in seconds
    }
    return Size(
        factor,
        next(record["rows"]["written"] for record in records.values() if record["step"] == "write_shards"),
        seconds,
        peaks,
        {**starting, "ray_train": training},
        wall - float(summary["seconds"]),
        wall,
        {step: sum(1 for path in paths if path.is_file()) for step, paths in content.items()},
        {step: sum(path.stat().st_size for path in paths if path.is_file()) for step, paths in content.items()},
    )


def page(found: dict[str, Any]) -> str:
    """Return the page of what `measure_all` returns: what was measured, then what follows from it."""
    from tasks.adapters.loader import BUFFER_BYTES

    sizes = [Size(**one) for one in found["sizes"]]
    first, before, last = sizes[0], sizes[-2], sizes[-1]
    names = [f"{one.factor}x" for one in sizes]
    growth = {step: (last.seconds[step] - before.seconds[step]) / (last.clips - before.clips) for step in last.seconds}
    lines = [
        "# Cost against size",
        "",
        "    python benchmarks/scaling.py",
        "",
        found["machine"],
        f"Rows of the shards (clips and scenes): {', '.join(f'{one.clips} at {one.factor}x' for one in sizes)}. "
        f"Videos of 3 s at 128 pixels; both trainings cut to {EPOCHS} passes.",
        "",
        "Seconds of each step. *Grows by* is the cost of 1,000 more rows between the two largest sizes; a step is "
        "linear where the seconds of 1,000 rows do not rise from left to right (fixed costs let them fall). "
        f"{_rising(sizes)}",
        "",
        f"| step | {', s | '.join(names)}, s | {', s per 1,000 | '.join(names)}, s per 1,000 | grows by, s |",
        f"| --- |{' --- |' * (2 * len(sizes) + 1)}",
    ]
    for step in last.seconds:
        values = [one.seconds.get(step, 0.0) for one in sizes]
        each = [1000 * value / one.clips for value, one in zip(values, sizes, strict=True)]
        cells = [f"{value:.1f}" for value in values] + [f"{value:.2f}" for value in each]
        lines.append(f"| {step} | {' | '.join(cells)} | {1000 * growth[step]:.2f} |")
    lines += [
        "",
        "Fixed costs:",
        "",
        "| | " + " | ".join(names) + " | target |",
        f"| --- |{' --- |' * (len(sizes) + 1)}",
    ]
    starts = [sum(one.startup.values()) for one in sizes]
    fixed = [start + one.around for start, one in zip(starts, sizes, strict=True)]
    lines.append(f"| start-up (Prefect, MLflow, Ray, Ray Train), s | {_cells(starts, '.0f')} | |")
    lines.append(f"| interpreter, end of Ray and Prefect, s | {_cells([one.around for one in sizes], '.0f')} | |")
    lines.append(f"| both, s | {_cells(fixed, '.0f')} | at most {STARTUP:.0f} |")
    lines.append(f"| wall time, s | {_cells([one.wall for one in sizes], '.0f')} | |")
    shares = [one.own / one.wall for one in sizes]
    lines.append(f"| neither a step nor a start or end, share of it | {_cells(shares, '.3f')} | below {OWN:g} |")
    lines.append(
        f"| the same again, nothing to do, s |{' |' * (len(sizes) - 1)} {found['nothing']:.0f} | below {NOTHING:.0f} |"
    )
    lines += ["", "Peak memory (private, of the process and all its children), GiB:", ""]
    lines += [f"| step | {' | '.join(names)} | {names[-1]} / {names[0]} |", f"| --- |{' --- |' * (len(sizes) + 1)}"]
    for step, peak in last.peaks.items():
        lines.append(
            f"| {step} | {_cells([one.peaks[step] / 2**30 for one in sizes], '.2f')} | {peak / first.peaks[step]:.2f} |"
        )
    lines += [
        "",
        f"index_clips, which does hardly anything, tells what the libraries of the driver and of Ray take. A training "
        f"holds at most {BUFFER_BYTES >> 20} MiB of samples to shuffle, which the {first.clips} rows of {names[0]} do "
        f"not fill. What does grow with the rows drowns in these libraries at {last.clips:,} rows: the features that "
        "are clustered (last rows of the next table), and on every worker a key, a video and a label of each row, "
        f"about {KNOWN} bytes.",
    ]
    return "\n".join([*lines, "", *extrapolated(found, before, last, growth), ""])


def _cells(values: list[float], form: str) -> str:
    return " | ".join(format(value, form) for value in values)


def extrapolated(found: dict[str, Any], before: Size, last: Size, growth: dict[str, float]) -> list[str]:
    """Tell what larger sets cost if every step goes on growing as it did."""
    from dsol_core.config import ExperimentConfig

    config = ExperimentConfig()
    passes = {
        "train_stage_one": config.stage_one.epochs / EPOCHS,
        "train_stage_two": config.stage_two.hearing_passes / EPOCHS,
    }
    rows = [clips * SECONDS for _, clips in SETS]
    lines = [
        "## What larger sets would cost",
        "",
        f"Sets of {SECONDS}-second clips, a row a second. Core-hours on this machine's cores if every step keeps its "
        f"growth, with the trainings at the full number of passes of `ours` ({config.stage_one.epochs} and "
        f"{config.stage_two.hearing_passes}). Rows are of 128 pixels and one frame like this page's, videos of 3 s. "
        "Clips of 10 s in 360p are decoded and sharded at the rate of [speed.md](speed.md), and frames of 256 pixels, "
        "four a row as `music_ours` has them, alone weigh about as much as everything here.",
        "",
        f"| step | {' | '.join(f'{name} ({clips:,} clips, {clips * SECONDS:,} rows)' for name, clips in SETS)} |",
        f"| --- |{' --- |' * len(SETS)}",
    ]
    cores, each = found["cores"], {step: max(0.0, s) * passes.get(step, 1.0) for step, s in growth.items()}
    del each["make_videos"]  # draws the demo's videos; real sets have theirs
    for step, seconds in each.items():
        lines.append(f"| {step} | {_cells([cores * seconds * n / 3600 for n in rows], ',.1f')} |")
    whole = cores * sum(each.values()) / 3600
    lines.append(f"| together, core-hours | {_cells([whole * n for n in rows], ',.0f')} |")
    for title, kind, unit in (
        ("disk, GB", "bytes", 1e9),
        (f"files in the store, {config.data.clips.samples_per_shard} rows a shard", "files", 1.0),
    ):
        more = {step: value - getattr(before, kind)[step] for step, value in getattr(last, kind).items()}
        one = sum(value for step, value in more.items() if step != "make_videos") / (last.clips - before.clips) / unit
        lines.append(f"| {title} | {_cells([one * n for n in rows], ',.0f')} |")
    features = 4 * config.stage_one.backbone.embedding / 2**30
    bare = 4 * (_channels(config.stage_one) + 4 * config.stage_one.audio.mel_bins) / 2**30
    lines.append(f"| object features for k-means, GiB | {_cells([features * n for n in rows], '.1f')} |")
    lines.append(f"| bare inputs for the first labels, GiB | {_cells([bare * n for n in rows], '.1f')} |")
    known = _cells([KNOWN * n / 2**30 for n in rows], ".1f")
    lines.append(f"| keys, videos and labels on each worker, GiB | {known} |")
    features = max(features, bare)
    largest = sorted(each, key=lambda step: -each[step])[:3]
    return [*lines, "", *_on_gpus(rows), "", *_what_to_turn(largest, features, rows, found["memory_bytes"] / 2**30)]


def _rising(sizes: list[Size]) -> str:
    """Name the steps whose seconds a row rose between the two largest sizes, and by how much."""
    before, last = sizes[-2:]
    ratios = {step: last.seconds[step] / last.clips / (before.seconds[step] / before.clips) for step in last.seconds}
    rose = [f"{step} ({ratio - 1:+.0%})" for step, ratio in ratios.items() if ratio > ROSE and last.seconds[step] > 1]
    return f"They rose between the two largest sizes: {', '.join(rose) or 'of none'}."


def _channels(config: StageOneConfig) -> int:
    """Return how many numbers a row's picture has among the bare inputs: the channels of the trunk."""
    from dataclasses import replace

    from dsol_core.stage_one_net import build_stage_one

    blank = replace(config, backbone=replace(config.backbone, visual_weights=None))
    return int(build_stage_one(blank).trunk.channels)


def _on_gpus(rows: list[int]) -> list[str]:
    """Tell the GPU-hours of stage one from the operations of a step, counted, and a rate, assumed."""
    from speed.training_step import operations_of_a_pair

    from flows import presets

    lines = [
        "GPU-hours of stage one alone are **not measured**: operations of a step as counted by "
        f"`torch.utils.flop_counter`, over an assumed {GPU_RATE / 1e12:.0f} TFLOP/s (`make gpu-check` measures it).",
        "",
        f"| preset | GFLOP a pair | epochs | {' | '.join(f'{name}, GPU-hours' for name, _ in SETS)} |",
        f"| --- | --- | --- |{' --- |' * len(SETS)}",
    ]
    for name in ("music_paper", "music_ours"):
        flops, epochs = operations_of_a_pair(name), presets.load(name).stage_one.epochs
        hours = [flops * epochs * n / GPU_RATE / 3600 for n in rows]
        lines.append(f"| {name} | {flops / 1e9:.2f} | {epochs} | {_cells(hours, ',.1f')} |")
    return lines


def _what_to_turn(largest: list[str], features: float, rows: list[int], memory: float) -> list[str]:
    first = [
        f"{name}: " + ("memory of the clustering, then hours" if 2 * features * n > memory / 2 else "hours")
        for (name, _), n in zip(SETS, rows, strict=True)
    ]
    return [
        f"First bottleneck: {'; '.join(first)}. The hours go to {', '.join(largest)}, in this order. What to turn:",
        "",
        "- trainings: `--gpu` (and `--precision bf16`), then `--workers N`; the seconds of a pass divide by both.",
        "- picture features, decoding and prediction: nodes (`--address`), Ray tasks, one a shard; with `--gpu` "
        "features are made by the nodes that have GPUs.",
        "- clustering: `stage_one.kmeans=distributed` when the features, held twice while they are gathered, no "
        "longer fit one machine; in stage one and in `build_dictionary` they then stay on the workers. The estimate of "
        "the number of classes gathers what it clusters.",
        "- files: `data.clips.samples_per_shard` sets the size of a shard; with the 1,500 of the presets for large "
        "sets there are a sixth of these.",
    ]


if __name__ == "__main__":
    main()
