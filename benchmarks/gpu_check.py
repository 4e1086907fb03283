"""Check the GPU path: parity with the CPU, speed, memory, feeding from shards, clustering, one run end to end.

    make gpu-check                                              # on a machine with a GPU
    python benchmarks/gpu_check.py --allow-cpu --quick          # the same code with bfloat16 on the CPU

Exit status 0: everything that has a bound keeps it; 1: something does not, or there is no GPU (and no --allow-cpu).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import gpu_checks
import machine
import torch

NO_GPU = (
    "no GPU: torch {version} sees none ({build}). Run this on a machine with an NVIDIA GPU and its driver (dsol doctor "
    "says what is missing; infra/README.md how to bring dsol to a machine without a registry), or give --allow-cpu to "
    "run the same checks with bfloat16 on the CPU."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(gpu_checks.CHECKS)}; default all")
    parser.add_argument("--allow-cpu", action="store_true", help="without a GPU check the CPU against itself")
    parser.add_argument("--quick", action="store_true", help="small inputs: the numbers say only that the code runs")
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    parser.add_argument("--out", type=Path, help="page to write")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.checks) - set(gpu_checks.CHECKS)):
        sys.exit(f"no check {unknown[0]!r}; expected one of {', '.join(gpu_checks.CHECKS)}")
    gpu = torch.cuda.is_available()
    if not gpu and not arguments.allow_cpu:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        sys.exit(NO_GPU.format(version=torch.__version__, build=build))
    with tempfile.TemporaryDirectory() as folder:
        setting = gpu_checks.Setting(gpu, arguments.quick, Path(folder), arguments.compile)
        rows = []
        for name in arguments.checks or gpu_checks.CHECKS:
            for row in gpu_checks.CHECKS[name](setting):
                print(line(row), flush=True)
                rows.append(row)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(page(rows, gpu, arguments))
    if failed := [row.name for row in rows if row.holds is False]:
        sys.exit(f"{len(failed)} of {len(rows)} do not hold: {'; '.join(failed)}")


def line(row: gpu_checks.Row) -> str:
    """Return a row of the table."""
    value = row.value if isinstance(row.value, str) else f"{row.value:.4g}"
    return f"| {row.name} | {value} | {row.bound} | { ({None: '', True: 'yes', False: '**no**'}[row.holds]) } |"


def page(rows: list[gpu_checks.Row], gpu: bool, arguments: argparse.Namespace) -> str:
    """Return the page: where, and all rows."""
    where = torch.cuda.get_device_name() if gpu else "no GPU: bfloat16 on the CPU stands in for it"
    words = "".join(f" --{name}" for name in ("quick", "compile") if getattr(arguments, name))
    head = ["# The GPU path", "", f"    make gpu-check{' # with' + words if words else ''}", ""]
    head += [f"{machine.line(where)} torch {torch.__version__}.", "", "| what | value | bound | holds |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *map(line, rows), ""])


if __name__ == "__main__":
    main()
