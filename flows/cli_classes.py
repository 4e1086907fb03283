"""The command `dsol classes`: parse, call the flow, print the curve."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.table import Table

from flows.cli_options import (
    AddressOption,
    DataOption,
    JsonOption,
    MultiOption,
    PresetArgument,
    Reported,
    SetOption,
    SoloOption,
    Started,
    StoreOption,
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
    def classes(
        preset: PresetArgument = "folders",
        store: StoreOption = "runs",
        data: DataOption = None,
        solo: SoloOption = None,
        multi: MultiOption = None,
        settings: SetOption = None,
        address: AddressOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Estimate how many classes there are, without labels."""
        from dsol_core.config import Compute
        from flows import presets, session

        with reported(as_json, {"store": store, "preset": preset}):
            experiment = presets.load(preset, overrides=pairs(settings))  # or refuse at once
            folders = session.Folders(text_of(data), text_of(solo), text_of(multi))
            session.refuse_early(experiment, store, folders, Compute())
            summary = start(
                "count_classes",
                {
                    "preset": preset,
                    "store": store,
                    "data": text_of(data),
                    "solo": text_of(solo),
                    "multi": text_of(multi),
                    "overrides": pairs(settings),
                    "address": address,
                },
            )
            if as_json:
                print(json.dumps({key: summary[key] for key in ("store", "preset", "classes", "steps", "seconds")}))
            else:
                _show(summary["classes"])


def _show(found: dict[str, Any]) -> None:
    from tasks.adapters import class_count

    table = Table("classes", "separation", "below the best", "agreement of halves", "", box=None)
    best = max(found["separation"])
    for k, separation, error, agreement in zip(
        found["candidates"], found["separation"], found["error"], found["agreement"], strict=True
    ):
        mark = "<- chosen" if k == found["best"] else "as good" if k in found["plausible"] else ""
        table.add_row(str(k), f"{separation:.3f}", f"{best - separation:.3f} +- {error:.3f}", f"{agreement:.2f}", mark)
    print_table(table)
    print(f"{class_count.advice(found)}; auto (the default of folders) trains with this estimate")
