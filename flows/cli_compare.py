"""The command `dsol compare`: parse, call the flow, print the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Reported = Callable[[bool, dict[str, Any]], AbstractContextManager[None]]
Started = Callable[[str, dict[str, Any]], dict[str, Any]]


def register(app: typer.Typer, reported: Reported, start: Started) -> None:
    """Add the command to the command line.

    Args:
        app: of `dsol`.
        reported: turns errors into one line, or JSON, and an exit status.
        start: calls a flow by its name with progress bars.
    """

    @app.command()
    def compare(
        preset: Annotated[str, typer.Argument(help="A preset (`dsol presets`) or a YAML file.")],
        rows: Annotated[
            list[str] | None,
            typer.Option("--row", help="ours, paper@0 or NAME=RECIPE,key=value,...; the first is compared with."),
        ] = None,
        seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seed of training; may be repeated.")] = None,
        out: Annotated[Path | None, typer.Option(help="Markdown page to write, figures as JSON beside it.")] = None,
        store: Annotated[str, typer.Option(help="Folder of the artifacts, or s3://bucket/prefix.")] = "runs",
        data: Annotated[Path | None, typer.Option(help="Folder of your data set.")] = None,
        settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, for every row.")] = None,
        workers: Annotated[int, typer.Option(min=1, help="Training workers.")] = 1,
        address: Annotated[str | None, typer.Option(help="Ray cluster: auto, ray://host:10001 or host:6379.")] = None,
        gpu: Annotated[bool, typer.Option(help="Train on GPUs.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
    ) -> None:
        """Train recipes from several seeds on the same data and print them side by side."""
        with reported(as_json, {"store": store, "preset": preset}):
            pairs = [one.partition("=") for one in settings or []]
            if not all(key and sign for key, sign, _ in pairs):
                raise typer.BadParameter(f"--set {settings} is not key=value")
            arguments = {
                "preset": preset,
                "rows": rows or None,
                "seeds": seeds or None,
                "store": store,
                "out": str(out) if out else None,
                "data": str(data) if data else None,
                "overrides": {key.strip(): value.strip() for key, _, value in pairs},
                "workers": workers,
                "address": address,
                "gpu": gpu,
            }
            summary = start("compare", arguments)
            if as_json:
                print(
                    json.dumps({key: summary[key] for key in ("store", "preset", "rows", "page", "steps", "seconds")})
                )
            else:
                _show(summary)


def _show(summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    table = Table("metric", *rows, box=None)
    for key in next(iter(rows.values()))["metrics"]:
        found = [one["metrics"][key] for one in rows.values()]
        table.add_row(key, *(f"{one['value']:.3f} ({one['low']:.3f} - {one['high']:.3f})" for one in found))
    Console().print(table)
    if summary["page"]:
        Console().print(f"page     {summary['page']}", soft_wrap=True, highlight=False)
