"""Run a preset with several recipes and seeds and write the table of docs/results.

    python benchmarks/figures.py demo --runs ours:0 ours:1 ours:2 paper:0 --out docs/results/demo.md
    python benchmarks/figures.py real_av --data FOLDER --runs ours:0 ours:1 ours:2 paper:0 --out docs/results/real_av.md

What exists in the store is reused, so a second call only writes the table again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DSOL = [sys.executable, "-m", "flows.cli"]
TARGETS = {  # issue of the first release; mean over the seeds of `ours`
    "demo-grid/ciou@0.3": 0.50,
    "demo-free/ciou@0.3": 0.80,
    "demo-grid/nsa": 0.97,
    "demo-free/nsa": 0.97,
    "demo-grid/sciou@0.3": 0.20,
    "demo-free/sciou@0.3": 0.33,
    "demo-grid/silent_nsa": 0.93,
    "demo-free/silent_nsa": 0.93,
    "demo-solo/nmi": 0.85,
}


def main() -> None:
    arguments = _arguments()
    done: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in arguments.runs:
        recipe, _, seed = one.partition(":")
        command = [*DSOL, "run", arguments.preset, "--recipe", recipe, "--seed", seed]
        command += [
            "--store",
            str(arguments.store),
            "--json",
            *(["--data", str(arguments.data)] if arguments.data else []),
        ]
        for setting in arguments.set:
            command += ["--set", setting]
        print(" ".join(command), file=sys.stderr, flush=True)
        answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if answer.returncode:
            sys.exit(f"{one} failed with exit status {answer.returncode}: {answer.stdout}")
        done[recipe].append(json.loads(answer.stdout))
    text = _page(arguments, done)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    print(text)


def _page(arguments: argparse.Namespace, done: dict[str, list[dict[str, Any]]]) -> str:
    report = Path(next(iter(done.values()))[0]["report"])
    record = json.loads((report.parent / "artifact.json").read_text())
    made = record["provenance"]
    words = [f"python benchmarks/figures.py {arguments.preset}", *(["--data FOLDER"] if arguments.data else [])]
    words += [f"--runs {' '.join(arguments.runs)}", *(f"--set {one}" for one in arguments.set)]
    commit = f"{(made['commit'] or 'unknown')[:12]}{' with uncommitted changes' if made['dirty'] else ''}"
    lines = [
        f"# Results of the preset `{arguments.preset}`",
        "",
        f"    {' '.join(words)}",
        "",
        f"Commit {commit}; {made['cores']} cores, {made['memory_bytes'] / 2**30:.0f} GiB, no GPU, "
        f"Python {made['python']}. Test split. Mean over the seeds, "
        "in brackets the values of the single seeds; below, the 95 % interval of the first seed (bootstrap over "
        "videos).",
        "",
        "| benchmark | metric | target | " + " | ".join(done) + " | n |",
        "| --- | --- | --- |" + " --- |" * (len(done) + 1),
    ]
    keys = sorted({key for runs in done.values() for run in runs for key in run["metrics"]})
    for key in keys:
        benchmark, _, metric = key.partition("/")
        cells = [_cell([run["metrics"][key] for run in runs if key in run["metrics"]]) for runs in done.values()]
        target = f">= {TARGETS[key]:.2f}" if key in TARGETS else ""
        count = next(run["metrics"][key]["n"] for runs in done.values() for run in runs if key in run["metrics"])
        lines.append(f"| {benchmark} | {metric} | {target} | " + " | ".join(cells) + f" | {count} |")
    first = next(iter(done.values()))[0]
    return "\n".join([*lines, "", *_sources(report, first["steps"]), *_baselines(report), "", *_seconds(done), ""])


def _cell(estimates: list[dict[str, Any]]) -> str:
    if not estimates:
        return ""
    values = [one["value"] for one in estimates]
    single = f" ({', '.join(f'{value:.3f}' for value in values)})" if len(values) > 1 else ""
    first = estimates[0]
    interval = f"<br>{first['low']:.3f} - {first['high']:.3f}" if first["low"] is not None else ""
    return f"{statistics.mean(values):.3f}{single}{interval}"


def _sources(report: Path, steps: list[dict[str, Any]]) -> list[str]:
    """Tell what limits the test of a preset of photographs, from the sources.json of the videos that the run used."""
    marks = [one["fingerprint"] for one in steps if one["name"] == "make_videos" and one["fingerprint"]]
    path = report.parents[2] / "make_videos" / marks[0] / "sources.json" if marks else None
    if path is None or not path.exists():
        return []
    known = json.loads(path.read_text())
    shared = [name for name, one in known["classes"].items() if one["test_notes_in_training"]]
    phrases = known["classes_without_uninterrupted_test"]
    dropped = len(known.get("dropped", []))
    return [
        "What the videos are made of (`sources.json` of make_videos):",
        "",
        f"- classes without an uninterrupted test recording: {', '.join(phrases) or 'none'}",
        f"- classes whose training phrases may hold notes of the test: {', '.join(shared) or 'none'}",
        f"- files and videos left out because they could not be used: {dropped}",
        "",
    ]


def _baselines(report: Path) -> list[str]:
    path = report.parent / "baselines.json"
    if not path.exists():
        return []
    known = json.loads(path.read_text())
    names = sorted({name for rows in known.values() for name in rows})
    lines = ["Baselines on the same items (first run):", "", "| metric | " + " | ".join(names) + " |"]
    lines.append("| --- |" + " --- |" * len(names))
    for key in sorted(known):
        cells = [f"{known[key][name]['value']:.3f}" if name in known[key] else "" for name in names]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def _seconds(done: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = ["Seconds of each run as it was made (reused steps take none):", ""]
    for recipe, runs in done.items():
        for run in runs:
            parts = ", ".join(f"{one['name']} {one['seconds']:.0f}" for one in run["steps"] if one["state"] == "ran")
            startup = ", ".join(f"{name} {value:.0f}" for name, value in run["startup_seconds"].items())
            what = f"{run['seconds']:.0f} s ({parts or 'all reused'}; start-up: {startup})"
            lines.append(f"- {recipe}, seed {run['seed']}: {what}")
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--runs", nargs="+", default=["ours:0", "ours:1", "ours:2", "paper:0"], help="recipe:seed ...")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
