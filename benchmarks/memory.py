"""Peak memory of every step at 1x and 4x data: it must not grow with the number of videos.

    python benchmarks/memory.py --out docs/results/memory.md

Training is cut to two epochs, since its memory does not depend on their number.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[1]
ONE = {"solo_per_category": (15, 3, 5), "multi": (28, 10, 20), "count": (150, 10, 20)}
EPOCHS = ("stage_one.epochs=2", "stage_one.first_clustering=1", "stage_two.epochs=1", "evaluation.gallery=1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/memory"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    peaks = {factor: measure(factor, arguments.store / f"{factor}x") for factor in (1, 4)}
    lines = [
        "# Peak memory of each step at 1x and 4x data",
        "",
        "    python benchmarks/memory.py",
        "",
        machine.line(),
        "Private memory of the process and all its children (Prefect, Ray and its workers included), sampled twice a "
        "second, plus the largest shared part.",
        "",
        "| step | 1x, GiB | 4x, GiB | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for step, one in peaks[1].items():
        four = peaks[4][step]
        lines.append(f"| {step} | {one / 2**30:.2f} | {four / 2**30:.2f} | {four / one:.2f} |")
    text = "\n".join([*lines, ""])
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    print(text)


def measure(factor: int, store: Path) -> dict[str, int]:
    """Run the demo with `factor` times the smallest data and return each step's peak in bytes."""
    sizes = {name: [factor * value for value in values] for name, values in ONE.items()}
    settings = [
        f"data.videos.orchestra.solo_per_category={sizes['solo_per_category']}",
        f"data.videos.orchestra.multi={sizes['multi']}",
        f"data.scenes.count={sizes['count']}",
        *EPOCHS,
    ]
    command = [sys.executable, "-m", "flows.cli", "demo", "--store", str(store), "--json"]
    for one in settings:
        command += ["--set", one]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    listing = [sys.executable, "-m", "flows.cli", "steps", "--store", str(store), "--json"]
    answer = json.loads(subprocess.run(listing, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    return {one["step"]: one["peak_memory_bytes"] for one in answer["steps"] if one["state"] == "current"}


if __name__ == "__main__":
    main()
