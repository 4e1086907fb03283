"""Measure every stage against the physical limit and against the plain way, and write the table of ratios.

    python benchmarks/bench.py                      # everything: docs/results/speed.md and speed.json
    python benchmarks/bench.py decoding loading     # these modules of benchmarks/speed; the other rows stay
    python benchmarks/bench.py --quick --out /tmp   # seconds; the numbers say only that the code runs

Each module runs in a process of its own with fixed thread counts. The ways of a stage take turns, and the ratio is
taken within a turn, so that what else the machine does hits both.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine
import speed
import speed_page
from speed import Size, Stage, Way

ROOT = Path(__file__).resolve().parents[1]
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main() -> None:
    args = _arguments()
    if args.child:
        Path(args.child).write_text(json.dumps(measure_module(args.modules[0], args)))
        return
    known = module_names()
    wanted = args.modules or known
    if unknown := sorted(set(wanted) - set(known)):
        sys.exit(f"no benchmarks/speed/{unknown[0]}.py; expected one of {', '.join(known)}")
    failed = []
    for name in wanted:
        print(f"== {name}", flush=True)
        try:
            sections = run_child(name, args)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"{name} failed with exit status {error.returncode}; its old rows stay", file=sys.stderr)
            continue
        speed_page.update(args.out, name, sections)
    rows = json.loads((args.out / speed_page.ROWS).read_text()) if (args.out / speed_page.ROWS).exists() else []
    print(speed_page.table(rows))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="of benchmarks/speed; default all")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, one turn")
    parser.add_argument("--repeats", type=int, help="turns that every way takes (default 5; quick 1)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="that every way may use")
    parser.add_argument("--folder", type=Path, help="for inputs and outputs (default: the temporary folder)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results", help="folder of speed.md and speed.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def module_names() -> list[str]:
    """Return the modules of benchmarks/speed; an underscore in front marks shared code."""
    return sorted(one.name for one in pkgutil.iter_modules(speed.__path__) if not one.name.startswith("_"))


def run_child(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one module in a process of its own and return the sections it wrote."""
    environment = {**os.environ, **{limit: str(args.threads) for limit in THREAD_LIMITS}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "sections.json"
        command = [sys.executable, __file__, name, "--child", str(answer), "--threads", str(args.threads)]
        command += ["--quick"] if args.quick else []
        command += ["--repeats", str(args.repeats)] if args.repeats else []
        command += ["--folder", str(args.folder)] if args.folder else []
        subprocess.run(command, check=True, env=environment)
        return list(json.loads(answer.read_text()))


def measure_module(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the sections of a module's stages."""
    module = importlib.import_module(f"speed.{name}")
    words = [name, *(["--quick"] if args.quick else []), *(["--repeats", str(args.repeats)] if args.repeats else [])]
    command = shlex.join(["python", "benchmarks/bench.py", *words, "--threads", str(args.threads)])
    where = {"command": command, "machine": machine.line(), "threads": args.threads, "quick": args.quick}
    if args.folder:
        Path(args.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        size = Size(args.quick, args.threads, Path(folder))
        repeats = args.repeats or (1 if args.quick else 5)
        return [measure_stage(stage, stage.repeats or repeats) | where for stage in module.stages(size)]


def measure_stage(stage: Stage, repeats: int) -> dict[str, Any]:
    """Time the ways of a stage in turn and return its section: rows for the table, speeds, words."""
    names = list(stage.ways)
    for _ in range(stage.warm_up):
        for name in names:
            one_speed(stage.ways[name])
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            speeds[name].append(one_speed(stage.ways[name]))
            print(f"  turn {turn + 1} of {repeats}, {name}: {speeds[name][-1]:.4g} {stage.unit}", flush=True)
    rows = [_row(r.name, _quotients(speeds, r.of, r.to), r.target, r.at_most) for r in stage.ratios]
    rows += [_row(v.name, [float(v.measure())], v.target, v.at_most) for v in stage.values]
    return {
        "title": stage.title,
        "unit": stage.unit,
        "about": stage.about,
        "speeds": speeds,
        "rows": rows,
        "notes": stage.notes() if stage.notes else "",
    }


def one_speed(way: Way) -> float:
    """Run a way once and return its units a second."""
    os.sync()  # what another way wrote is not written back in this one's time
    started = time.perf_counter()
    done = way()
    elapsed = time.perf_counter() - started
    units, seconds = done if isinstance(done, tuple) else (done, elapsed)
    return units / seconds


def _quotients(speeds: dict[str, list[float]], of: str, to: str) -> list[float]:
    return [above / below for above, below in zip(speeds[of], speeds[to], strict=True)]


def _row(name: str, values: list[float], target: float | None, at_most: bool) -> dict[str, Any]:
    value = median(values)
    holds = None if target is None else value <= target if at_most else value >= target
    bound = "at most" if at_most else "at least"
    return {
        "name": name,
        "ratio": value,
        "target": target,
        "holds": holds,
        "bound": bound,
        "low": min(values),
        "high": max(values),
        "repeats": len(values),
    }


if __name__ == "__main__":
    main()
