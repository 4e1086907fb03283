"""The command `dsol compare`: parse, call the flow, print the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli_options import (
    AddressOption,
    CompileOption,
    DataOption,
    GpuOption,
    JsonOption,
    MultiOption,
    PrecisionOption,
    PresetArgument,
    Reported,
    SetOption,
    SoloOption,
    Started,
    StoreOption,
    WorkersOption,
    pairs,
    print_table,
    text_of,
)


def register(app: typer.Typer, reported: Reported, start: Started) -> None:
    """Add the command to the command line.

    Args:
        app: of `dsol`.
        reported: turns errors into one line, or JSON, and an exit status.
        start: calls a flow by its name with progress bars.
    """

    @app.command()
    def compare(
        preset: PresetArgument,
        rows: Annotated[
            list[str] | None,
            typer.Option(
                "--row",
                help="ours, paper@0 or NAME=RECIPE,key=value,...; the first is compared with. Default: ours, paper.",
            ),
        ] = None,
        seeds: Annotated[
            list[int] | None, typer.Option("--seed", help="Seed of training; may be repeated. Default: 0, 1 and 2.")
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(
                help="Page to write: all that is printed, single seeds, trivial rows; figures as JSON beside it."
            ),
        ] = None,
        store: StoreOption = "runs",
        data: DataOption = None,
        solo: SoloOption = None,
        multi: MultiOption = None,
        settings: SetOption = None,
        workers: WorkersOption = 1,
        address: AddressOption = None,
        gpu: GpuOption = False,
        precision: PrecisionOption = "auto",
        compiled: CompileOption = False,
        as_json: JsonOption = False,
    ) -> None:
        """Train recipes from several seeds on the same data and print them side by side."""
        from dsol_core.config import Compute
        from flows import plans, session

        with reported(as_json, {"store": store, "preset": preset}):
            arguments = {
                "preset": preset,
                "rows": rows or None,
                "seeds": seeds or None,
                "store": store,
                "out": text_of(out),
                "data": text_of(data),
                "solo": text_of(solo),
                "multi": text_of(multi),
                "overrides": pairs(settings),
                "workers": workers,
                "address": address,
                "gpu": gpu,
                "precision": precision,
                "compiled": compiled,
            }
            # or refuse at once:
            _check_page(out)
            folders = session.Folders(text_of(data), text_of(solo), text_of(multi))
            planned = plans.experiments(rows or plans.ROWS, preset, seeds or plans.SEEDS, pairs(settings))
            for _, experiment in planned:
                session.refuse_early(experiment, store, folders, Compute(workers))
            summary = start("compare", arguments)
            if as_json:
                print(
                    json.dumps({key: summary[key] for key in ("store", "preset", "rows", "page", "steps", "seconds")})
                )
            else:
                _show(summary)


def _check_page(out: Path | None) -> None:
    from dsol_core.types import UsageError

    if out is not None and (out.is_dir() or out.suffix == ".json"):
        raise UsageError(
            f"--out is {str(out)!r}; expected a file for the page, such as comparison.md: its figures go beside it, "
            "into comparison.json"
        )


def _show(summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    table = Table("metric", *map(escape, rows), box=None)
    for key in next(iter(rows.values()))["metrics"]:
        found = [one["metrics"][key] for one in rows.values()]
        table.add_row(key, *(f"{one['value']:.3f} ({one['low']:.3f} - {one['high']:.3f})" for one in found))
    print_table(table)
    first, *others = rows
    if others:
        print(f"\ndifference to {first}, paired by item")
        table = Table("metric", *map(escape, others), box=None)
        for key in rows[first]["metrics"]:
            away = [rows[name]["differences"][key] for name in others]
            table.add_row(key, *(f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" for one in away))
        print_table(table)
    if summary["page"]:
        Console().print(f"page     {summary['page']}", soft_wrap=True, highlight=False, markup=False)
