"""The command `dsol classes`: parse, call the flow, print the curve."""

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
    def classes(
        preset: Annotated[str, typer.Argument(help="A preset (`dsol presets`) or a YAML file.")] = "folders",
        store: Annotated[str, typer.Option(help="Folder of the artifacts, or s3://bucket/prefix.")] = "runs",
        data: Annotated[Path | None, typer.Option(help="Folder of your data set.")] = None,
        solo: Annotated[Path | None, typer.Option(help="Folder of single-source videos (preset folders).")] = None,
        multi: Annotated[Path | None, typer.Option(help="Folder of multi-source videos (preset folders).")] = None,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="key=value, for example stage_one.cluster_range=[2,40].")
        ] = None,
        address: Annotated[str | None, typer.Option(help="Ray cluster: auto, ray://host:10001 or host:6379.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
    ) -> None:
        """Estimate how many classes there are, without labels; `--set stage_one.clusters=auto` trains with it."""
        with reported(as_json, {"store": store, "preset": preset}):
            pairs = [one.partition("=") for one in settings or []]
            if not all(key and sign for key, sign, _ in pairs):
                raise typer.BadParameter(f"--set {settings} is not key=value")
            summary = start(
                "count_classes",
                {
                    "preset": preset,
                    "store": store,
                    "data": str(data) if data else None,
                    "solo": str(solo) if solo else None,
                    "multi": str(multi) if multi else None,
                    "overrides": {key.strip(): value.strip() for key, _, value in pairs},
                    "address": address,
                },
            )
            if as_json:
                print(json.dumps({key: summary[key] for key in ("store", "preset", "classes", "steps", "seconds")}))
            else:
                _show(summary["classes"])


def _show(found: dict[str, Any]) -> None:
    table = Table("classes", "separation", "below the best", "agreement of halves", "", box=None)
    best = max(found["separation"])
    for k, separation, error, agreement in zip(
        found["candidates"], found["separation"], found["error"], found["agreement"], strict=True
    ):
        mark = "<- chosen" if k == found["best"] else "as good" if k in found["plausible"] else ""
        table.add_row(str(k), f"{separation:.3f}", f"{best - separation:.3f} +- {error:.3f}", f"{agreement:.2f}", mark)
    Console().print(table)
    print(
        f"{found['best']} classes, from {found['units']} units; train with --set stage_one.clusters=auto, or a number"
    )
