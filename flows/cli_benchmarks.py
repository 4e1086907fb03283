"""The commands `dsol benchmarks` and `dsol evaluate`: parse, call the tool, print tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.cli_options import AddressOption, Bar, JsonOption, Reported, StoreOption, pairs, print_table

AnnotationsOption = Annotated[Path | None, typer.Option(help="Folder of the annotation files, at any depth.")]
MediaOption = Annotated[Path | None, typer.Option(help="Folder of the media: videos, clips, or frames and sounds.")]


def register(app: typer.Typer, reported: Reported, bar: Bar) -> None:
    """Add the commands to the command line.

    Args:
        app: of `dsol`.
        reported: turns errors into one line, or JSON, and an exit status.
        bar: draws progress.
    """

    @app.command()
    def benchmarks(
        annotations: AnnotationsOption = None, data: MediaOption = None, as_json: JsonOption = False
    ) -> None:
        """List the published benchmarks: what they measure, what they need and where it is, what is on disk."""
        with reported(as_json, {}):
            from tasks.adapters.benchmark_survey import survey

            rows = survey(annotations, data)
            if as_json:
                print(json.dumps({"benchmarks": rows}))
            else:
                _show_benchmarks(rows)

    @app.command()
    def evaluate(
        benchmark: Annotated[str, typer.Argument(help="Its name (`dsol benchmarks`).")],
        annotations: Annotated[Path, typer.Option(help="Folder of the annotation files, at any depth.")],
        data: MediaOption = None,
        model: Annotated[str | None, typer.Option(help="models:/dsol@champion, or the folder of a model.")] = None,
        predictions: Annotated[Path | None, typer.Option(help="Parquet file of maps that any system made.")] = None,
        mode: Annotated[str, typer.Option(help="reference, correct or both.")] = "both",
        names: Annotated[list[str] | None, typer.Option("--map", help="class=benchmark's class; repeatable.")] = None,
        out: Annotated[Path | None, typer.Option(help="Folder of the results; default below the store.")] = None,
        store: StoreOption = "runs",
        workers: Annotated[int, typer.Option(min=0, max=1, help="1: on all cores, by Ray; 0: in this process.")] = 1,
        address: AddressOption = None,
        track: Annotated[bool, typer.Option("--track/--no-track", help="Tell MLflow.")] = True,
        as_json: JsonOption = False,
    ) -> None:
        """Score a model, or maps that another system made, on a published benchmark."""
        with reported(as_json, {"benchmark": benchmark}):
            from dsol_core.config import Compute
            from dsol_core.protocols import MODES
            from dsol_core.types import UsageError
            from tasks.adapters import cluster
            from tasks.adapters.object_store import local_model, open_store
            from tasks.evaluate_benchmark import evaluate as work

            chosen = MODES if mode == "both" else tuple(one for one in MODES if one == mode)
            if not chosen:
                raise UsageError(f"--mode is {mode!r}; expected reference, correct or both")
            try:
                with bar(f"evaluating on {benchmark}", as_json) as tell:
                    done = work(
                        benchmark,
                        annotations,
                        data=data,
                        model=model and local_model(model),
                        predictions=predictions,
                        modes=chosen,
                        names=pairs(names, "--map CLASS=CLASS, such as --map violin=fiddle"),
                        out=out,
                        store=open_store(store).root,
                        compute=Compute(workers=workers, address=address),
                        track=track,
                        on_progress=tell,
                    )
            finally:
                cluster.stop()
            if as_json:
                print(json.dumps(done, default=str))
            else:
                _show_scores(done)


def _show_benchmarks(rows: list[dict[str, Any]]) -> None:
    table = Table("row", "name", "items", "videos", "annotations", "on disk", "metric", box=None)
    for row in rows:
        disk = "" if row["on_disk"] is None else f"{row['on_disk']} of {row['items']}"
        state = row["annotations_state"] if row["annotations_state"] in ("", "found") else "lacking"
        cells = [row["row"], row["name"], row["items"] or "?", row["videos"], state, disk]
        table.add_row(*("" if cell is None else str(cell) for cell in cells), row["metrics"][0])
    print_table(table)
    for row in rows:
        print(f"\n{row['name']}: {row['title']}. {row['measures']}")
        print(f"  needs {', '.join(row['annotations'])}\n  and {row['media']}\n  mind: {row['trap']}")
        if row["annotations_state"] not in ("", "found"):
            print(f"  lacks {row['annotations_state']}")
        if row["missing"]:
            print(f"  missing media: {', '.join(f'{cause} {count}' for cause, count in row['missing'].items())}")


def _show_scores(done: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for mode, one in done["modes"].items():
        mark = f"  PARTIAL: {one['items'] - one['scored']} items are missing" if one["partial"] else ""
        coverage = f"{one['scored']} of {one['items']} items ({one['coverage']:.1%})"
        console.print(f"\n{done['title']}, {mode}: {coverage}{mark}")
        beside = list(one["beside"])
        table = Table("metric", "percent", "95 % interval", "n", *beside, box=None)
        for name, value in one["metrics"].items():
            others = [one["beside"][other].get(name) for other in beside]
            interval = f"{100 * value['low']:.2f} - {100 * value['high']:.2f}"
            told = [f"{100 * other['value']:.2f}" if other else "" for other in others]
            table.add_row(name, f"{100 * value['value']:.2f}", interval, str(value["n"]), *told)
        print_table(table)
        for label, counted in (("missing", one["missing"]), ("left out", one["left_out"]), ("note", one["counts"])):
            for reason, count in counted.items():
                console.print(f"{label}: {reason} {count}")
        for note in one["notes"]:
            console.print(f"note: {note}")
    classes = done["classes"]
    for label, key in (("classes the system does not know", "unknown_to_the_system"), ("classes not used", "unused")):
        if classes[key]:
            console.print(f"{label}: {len(classes[key])} ({', '.join(classes[key][:10])})")
    if done.get("unknown_items", {}).get("count"):
        console.print(f"items that the benchmark does not have: {done['unknown_items']['count']}")
    console.print(f"\nresults {done['folder']}")
