"""What 1x, 4x and 16x data cost: seconds, memory and files of every step; and from that, what 2 million clips would.

    python benchmarks/scaling.py --out docs/results/scaling.md

Each size is a whole demo from videos to the registry in a store of its own; training is cut to two epochs, so that its
cost is told by epoch. Then the largest store is asked again, with nothing to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import machine

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
STARTUP, OWN, NOTHING = 75.0, 0.02, 30.0  # targets: seconds; share of the wall time; seconds
SETS = (("this page's 16x", None), ("VGGSound", 200_000), ("AudioSet", 2_000_000))


@dataclass(frozen=True)
class Size:
    """A whole run on `factor` times the smallest data."""

    factor: int
    clips: int  # and scenes: rows of the shards
    seconds: dict[str, float]  # of each step; the picture features are taken out of the steps that made them
    peaks: dict[str, int]  # bytes
    startup: dict[str, float]
    wall: float
    files: dict[str, int]
    bytes: dict[str, int]

    @property
    def own(self) -> float:
        """Seconds that neither a step nor a start took."""
        return self.wall - sum(self.seconds.values()) - sum(self.startup.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--factor", type=int, action="append", help="of 1, 4, 16; default all")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    factors = sorted(set(arguments.factor or FACTORS))
    if len(factors) < 2:
        parser.error(f"one factor, {factors[0]}, tells no growth; expected at least two")
    sizes = [measure(factor, arguments.store / f"{factor}x") for factor in factors]
    started = time.perf_counter()
    run(factors[-1], arguments.store / f"{factors[-1]}x")
    text = page(sizes, time.perf_counter() - started)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
        arguments.out.with_suffix(".json").write_text(json.dumps([vars(one) for one in sizes], indent=1))
    print(text)


def run(factor: int, store: Path) -> dict[str, object]:
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
    starting = dict(summary["startup_seconds"])
    training = starting.pop("ray_train", 0.0)  # happens inside the two trainings
    for record in records.values():
        if record["step"] == "trunk_features":
            maker = "train_stage_one" if record["config"]["part"] == "solos" else "predict_maps"
            seconds[maker] -= record["seconds"]
    for step in ("train_stage_one", "train_stage_two"):
        seconds[step] -= training / 2
    content = {
        step: [path for folder, record in records.items() if record["step"] == step for path in folder.iterdir()]
        for step in seconds
    }
    return Size(
        factor,
        next(record["rows"]["written"] for record in records.values() if record["step"] == "write_shards"),
        seconds,
        {record["step"]: record["peak_memory_bytes"] for record in records.values()},
        {**starting, "ray_train": training},
        wall,
        {step: sum(1 for path in paths if path.is_file()) for step, paths in content.items()},
        {step: sum(path.stat().st_size for path in paths if path.is_file()) for step, paths in content.items()},
    )


def page(sizes: list[Size], nothing: float) -> str:
    """Return the page: what was measured, then what follows from it."""
    first, before, last = sizes[0], sizes[-2], sizes[-1]
    names = [f"{one.factor}x" for one in sizes]
    growth = {step: (last.seconds[step] - before.seconds[step]) / (last.clips - before.clips) for step in last.seconds}
    lines = [
        "# Cost against size",
        "",
        "    python benchmarks/scaling.py",
        "",
        machine.line(),
        f"Rows of the shards (clips and scenes): {', '.join(f'{one.clips} at {one.factor}x' for one in sizes)}. "
        f"Videos of 3 s at 128 pixels; both trainings cut to {EPOCHS} passes.",
        "",
        "Seconds of each step. *Grows by* is the cost of 1,000 more rows between the two largest sizes; a step is "
        "linear where the seconds of 1,000 rows do not rise from left to right (fixed costs let them fall).",
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
    lines.append(f"| start-up (Prefect, MLflow, Ray, Ray Train), s | {_cells(starts, '.0f')} | at most {STARTUP:.0f} |")
    lines.append(f"| wall time, s | {_cells([one.wall for one in sizes], '.0f')} | |")
    shares = [one.own / one.wall for one in sizes]
    lines.append(f"| neither a step nor a start, share of it | {_cells(shares, '.3f')} | below {OWN:g} |")
    lines.append(f"| the same again, nothing to do, s |{' |' * (len(sizes) - 1)} {nothing:.0f} | below {NOTHING:.0f} |")
    lines += ["", "Peak memory (private, of the process and all its children), GiB:", ""]
    lines += [f"| step | {' | '.join(names)} | {names[-1]} / {names[0]} |", f"| --- |{' --- |' * (len(sizes) + 1)}"]
    for step, peak in last.peaks.items():
        lines.append(
            f"| {step} | {_cells([one.peaks[step] / 2**30 for one in sizes], '.2f')} | {peak / first.peaks[step]:.2f} |"
        )
    return "\n".join([*lines, "", *extrapolated(last, growth), ""])


def _cells(values: list[float], form: str) -> str:
    return " | ".join(format(value, form) for value in values)


def extrapolated(last: Size, growth: dict[str, float]) -> list[str]:
    """Tell what larger sets cost if every step goes on growing as it did."""
    from dsol_core.config import ExperimentConfig

    config = ExperimentConfig()
    passes = {
        "train_stage_one": config.stage_one.epochs / EPOCHS,
        "train_stage_two": config.stage_two.hearing_passes / EPOCHS,
    }
    lines = [
        "## What larger sets would cost",
        "",
        "Core-hours on this machine's cores if every step keeps its growth, with the trainings at the full number of "
        f"passes of `ours` ({config.stage_one.epochs} and {config.stage_two.hearing_passes}). A row of these sets is "
        "one second at 128 pixels like this page's; decoding 10-second videos at 360 pixels costs more (`decode` in "
        "[speed.md](speed.md)).",
        "",
        f"| step | {' | '.join(f'{name} ({rows or last.clips:,} rows)' for name, rows in SETS)} |",
        f"| --- |{' --- |' * len(SETS)}",
    ]
    cores = machine.cores()
    totals = [0.0] * len(SETS)
    for step, each in growth.items():
        hours = [cores * max(0.0, each) * passes.get(step, 1.0) * (rows or last.clips) / 3600 for _, rows in SETS]
        totals = [a + b for a, b in zip(totals, hours, strict=True)]
        lines.append(f"| {step} | {_cells(hours, ',.2f')} |")
    lines.append(f"| together, core-hours | {_cells(totals, ',.1f')} |")
    for title, found, unit in (("disk, GB", last.bytes, 1e9), ("files", last.files, 1.0)):
        whole = sum(found.values()) / last.clips / unit
        lines.append(f"| {title} | {_cells([whole * (rows or last.clips) for _, rows in SETS], ',.0f')} |")
    largest = sorted(growth, key=lambda step: -growth[step] * passes.get(step, 1.0))[:3]
    lines += [
        "",
        f"The first bottlenecks here are {', '.join(largest)}, in this order. What to turn:",
        "",
        "- trainings: `--gpu` (and `--precision bf16`), then `--workers N`; the seconds of a pass divide by both.",
        "- picture features and decoding: nodes; both are Ray tasks, one a shard (`--address`).",
        "- files: one video is one file before sharding; `data.clips.samples_per_shard` sets the size of a shard.",
        "- clustering: `stage_one.kmeans=distributed` when the object features of all clips (512 bytes each) and the "
        "bare inputs (a few kB each, at the first clustering) no longer fit one machine.",
    ]
    return lines


if __name__ == "__main__":
    main()
