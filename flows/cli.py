"""The console command `dsol`: parses, calls a flow, draws progress and tables; heavy imports wait."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import cli_benchmarks, cli_classes, cli_compare, environment
from flows.cli_options import (
    AddressOption,
    CompileOption,
    DataOption,
    ForceOption,
    FromOption,
    GpuOption,
    JsonOption,
    MultiOption,
    OnlyOption,
    PrecisionOption,
    PresetArgument,
    RecipeOption,
    SeedOption,
    SetOption,
    SoloOption,
    StoreOption,
    WorkersOption,
    pairs,
    print_table,
    text_of,
)

app = typer.Typer(
    help="From a folder of raw videos to a class-aware sounding-object localiser.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_started = time.time()
screen = Console(stderr=True)  # progress and messages; standard output holds results only


@app.command()
def demo(
    store: StoreOption = "runs",
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    only: OnlyOption = None,
    start: FromOption = None,
    force: ForceOption = None,
    workers: WorkersOption = 1,
    address: AddressOption = None,
    gpu: GpuOption = False,
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate the orchestra videos and run the whole pipeline on them."""
    run(
        "demo",
        store=store,
        seed=seed,
        recipe=recipe,
        settings=settings,
        only=only,
        start=start,
        force=force,
        workers=workers,
        address=address,
        gpu=gpu,
        precision=precision,
        compiled=compiled,
        as_json=as_json,
    )


@app.command()
def run(
    preset: PresetArgument,
    store: StoreOption = "runs",
    data: DataOption = None,
    solo: SoloOption = None,
    multi: MultiOption = None,
    seed: SeedOption = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    only: OnlyOption = None,
    start: FromOption = None,
    force: ForceOption = None,
    workers: WorkersOption = 1,
    address: AddressOption = None,
    gpu: GpuOption = False,
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline from videos to the registry; what exists already is reused."""
    with _reported(as_json, {"store": store, "preset": preset, "seed": seed}):
        arguments = {
            "preset": preset,
            "store": store,
            "recipe": recipe,
            "seed": seed,
            "data": text_of(data),
            "solo": text_of(solo),
            "multi": text_of(multi),
            "overrides": pairs(settings),
            "only": only,
            "start": start,
            "force": force,
            "workers": workers,
            "address": address,
            "gpu": gpu,
            "precision": precision,
            "compiled": compiled,
        }
        _refuse_early(arguments)
        summary = _call_flow("reproduce", arguments)
        if as_json:
            print(json.dumps(_public(summary)))
        else:
            _show(summary)


@app.command()
def steps(store: StoreOption = "runs", as_json: JsonOption = False) -> None:
    """List the artifacts of a store: state, fingerprint, when, how long, rows."""
    with _reported(as_json, {"store": store}):
        _list_steps(store, as_json)


def _list_steps(place: str, as_json: bool) -> None:
    from tasks.adapters.object_store import open_store
    from tasks.adapters.steps import CACHES, STEPS

    store = open_store(place)
    current = {
        one["name"]: one["fingerprint"] for run in store.summaries() for one in run["steps"] if one["fingerprint"]
    }

    def state(step: str, mark: str) -> str:
        return "cache" if step in CACHES else "current" if current.get(step) == mark else "kept"

    rows = [
        {
            "step": one.step,
            "state": state(one.step, one.fingerprint),
            "fingerprint": one.fingerprint,
            "when": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.record["started"])),
            "seconds": one.record["seconds"],
            "rows": one.record["rows"].get("written"),
            "dropped": sum(one.record["rows"].get("dropped", {}).values()),
            "peak_memory_bytes": one.record["peak_memory_bytes"],
        }
        for one in store.artifacts()
    ]
    left = [{"step": step, "state": state, "fingerprint": mark} for step, state, mark in store.leftovers()]
    order = {name: place for place, name in enumerate(STEPS)}
    rows.sort(key=lambda row: (order.get(row["step"], len(order)), row["state"] != "current"))
    missing = [name for name in STEPS if name not in {row["step"] for row in rows}]
    rows += [*left, *({"step": name, "state": "missing"} for name in missing)]
    if as_json:
        print(json.dumps({"store": place, "steps": rows}))
        return
    table = Table("step", "state", "fingerprint", "when", "seconds", "rows", "dropped", "peak memory", box=None)
    for row in rows:
        memory = row.get("peak_memory_bytes")
        cells = [row["step"], row["state"], row.get("fingerprint"), row.get("when"), row.get("seconds")]
        cells += [row.get("rows"), row.get("dropped"), f"{memory / 2**30:.2f} GiB" if memory else None]
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    print_table(table)


@app.command()
def presets(as_json: JsonOption = False) -> None:
    """List the presets and recipes that come with dsol."""
    from flows import presets as known

    if as_json:
        print(json.dumps({"presets": known.names(), "recipes": known.recipes()}))
    else:
        print(f"presets: {', '.join(known.names())}\nrecipes: {', '.join(known.recipes())}")


@app.command()
def localize(
    video: Annotated[Path, typer.Argument(help="Any video with sound.")],
    model: Annotated[str, typer.Option(help="models:/dsol@champion, or the folder of a trained model.")],
    out: Annotated[Path, typer.Option(help="Folder for the annotated video and localizations.parquet.")],
    frames_per_second: Annotated[float, typer.Option(help="Frames that are localised in a second.")] = 4.0,
    threshold: Annotated[
        float,
        typer.Option(
            help="Probability from which a class counts as sounding. A higher one misses more and leaves more "
            "off-screen sounds dark; the report tells one that was chosen on validation."
        ),
    ] = 0.5,
    store: StoreOption = "runs",
    as_json: JsonOption = False,
) -> None:
    """Draw one heat-map per sounding class over a video and write them as a table."""
    with _reported(as_json, {"video": str(video), "model": model}):
        from tasks.adapters.object_store import local_model
        from tasks.localize_video import localize as work

        with _bar(f"localising {video.name}", as_json) as tell:
            done = work(
                video,
                local_model(model),
                out,
                frames_per_second=frames_per_second,
                threshold=threshold,
                store=_folder_of(store),
                on_progress=tell,
            )
        print(json.dumps(done, default=str) if as_json else f"{done['video']}\n{done['table']}")


@app.command()
def name(
    dictionary: Annotated[str, typer.Argument(help="Folder of a dictionary: STORE/build_dictionary/FINGERPRINT.")],
    names: Annotated[list[str], typer.Argument(help="cluster-03=cello ...")],
    as_json: JsonOption = False,
) -> None:
    """Name the entries of a dictionary that was learnt without labels; the next run uses the names."""
    with _reported(as_json, {"dictionary": dictionary}):
        from tasks.adapters.names import give_names
        from tasks.adapters.object_store import local_model

        given = give_names(Path(local_model(dictionary)), pairs(names, "ENTRY=NAME, such as cluster-03=cello"))
        print(json.dumps(given) if as_json else "\n".join(f"{entry} = {known}" for entry, known in given.items()))


@app.command()
def doctor(
    store: StoreOption = "runs",
    deep: Annotated[bool, typer.Option(help="Also start Ray and Prefect; takes half a minute.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what works on this machine, what is missing and how to mend it."""
    with _reported(as_json, {}):
        from tasks.doctor import check

        checks = check(store=_folder_of(store), deep=deep)
        counted = {state: sum(one.state == state for one in checks) for state in ("broken", "missing")}
        if as_json:
            print(json.dumps({"checks": [vars(one) for one in checks], **counted}))
        else:
            table = Table("", "check", "detail", "remedy", box=None)
            marks = {"ok": "[green]ok", "note": "[cyan]note", "missing": "[yellow]missing", "broken": "[red]broken"}
            for one in checks:
                table.add_row(marks[one.state], *map(escape, (one.name, one.detail, one.remedy)))
            print_table(table)
        if counted["broken"]:
            raise typer.Exit(1)


def main() -> None:
    """Run the command; exit status 0, 1 (failed) or 2 (wrong use)."""
    _refuse_foreign_packages()
    environment.prepare()
    app()


def _refuse_early(arguments: dict[str, Any]) -> None:
    """Raise what the flow would raise of its arguments, without waiting for Prefect to start."""
    from dsol_core.config import Compute
    from flows import presets, session
    from tasks.adapters.steps import Scope

    chosen = {name: arguments[name] for name in ("recipe", "seed", "overrides")}
    experiment = presets.load(arguments["preset"], **chosen)
    scope = Scope(arguments["only"], arguments["start"], tuple(arguments["force"] or ()))
    folders = session.Folders(arguments["data"], arguments["solo"], arguments["multi"])
    session.refuse_early(experiment, arguments["store"], folders, Compute(arguments["workers"]), scope)


def _call_flow(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from importlib import import_module

    from flows import session

    session.called_at = _started
    if os.environ.get("PREFECT_API_URL"):
        environment.check_server()
    else:
        environment.leave_no_orphans()
    from tasks.adapters.steps import set_listener

    with _Progress() as progress:
        set_listener(progress)
        flow = getattr(import_module(f"flows.{name}"), name)
        environment.say_own_errors_once()
        result: dict[str, Any] = flow(**arguments)
        return result


class _Progress:
    """Draws a bar for the running step and a line for each that ended; plain lines where nobody watches a terminal."""

    def __enter__(self) -> _Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            TextColumn("{task.fields[text]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._bars.start()
        self._now: Any = None
        self._said = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, step: str) -> None:
        self._now = self._bars.add_task(step, total=None, text="")
        self._said = time.monotonic()
        if not screen.is_terminal:
            screen.print(f"  {step} ...")

    def progress(self, step: str, done: float, total: float, text: str) -> None:
        if self._now is not None:
            self._bars.update(self._now, completed=round(done, 1), total=round(total, 1), text=text)
        if not screen.is_terminal and time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            screen.print(f"  {step}: {text} {done:.0f}/{total:.0f}")

    def finished(self, step: str, state: str, seconds: float, artifact: Any) -> None:
        if self._now is not None:
            self._bars.remove_task(self._now)
            self._now = None
        colour = {"ran": "green", "reused": "cyan", "skipped": "dim", "failed": "red"}[state]
        rows = (artifact.record if artifact else {}).get("rows", {})
        counted = f"{rows['written']} rows" if rows else ""
        lost = sum(rows.get("dropped", {}).values()) if rows else 0
        counted += f", {lost} dropped" if lost else ""
        screen.print(f"  [{colour}]{state:8}[/] {step:18} {seconds:7.1f} s  {counted}", highlight=False)


@contextmanager
def _bar(text: str, quiet: bool) -> Iterator[Callable[[float, float], None]]:
    from rich.progress import Progress

    with Progress(console=screen, transient=True, disable=quiet or not screen.is_terminal) as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def _reported(as_json: bool, facts: dict[str, Any]) -> Iterator[None]:
    """Turn dsol's own errors into one clear line and an exit status; others keep their traceback."""
    from dsol_core.types import DsolError, UsageError

    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if as_json:
            summary = getattr(error, "dsol_summary", {})
            steps = {"steps": summary["steps"]} if summary else {}
            print(json.dumps({**facts, **steps, "error": str(error), "kind": type(error).__name__}))
        if not isinstance(error, DsolError):
            raise
        screen.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


def _show(summary: dict[str, Any]) -> None:
    if summary["metrics"]:
        table = Table("benchmark", "metric", "value", "95 % interval", "n", box=None)
        for key, one in sorted(summary["metrics"].items()):
            benchmark, _, metric = key.partition("/")
            interval = f"{one['low']:.3f} - {one['high']:.3f}" if one["low"] is not None else ""
            table.add_row(benchmark, metric, f"{one['value']:.3f}", interval, str(one["n"]))
        print_table(table)
    took = ", ".join(f"{name} {value:.1f}" for name, value in summary["startup_seconds"].items())
    lines = [(name, summary[name]) for name in ("classes", "report", "model")]
    if alias := summary["alias"]:
        said = f"{alias['name']}, since" if alias["moved"] else f"not {alias['name']}:"
        lines.append(("alias", f"{said} {alias['reason']}"))
    lines.append(("MLflow", summary["tracking"]))
    for label, value in [*lines, ("seconds", f"{summary['seconds']:.0f}, of which start-up: {took}")]:
        if value:
            Console().print(f"{label:8} {value}", soft_wrap=True, highlight=False, markup=False)


def _public(summary: dict[str, Any]) -> dict[str, Any]:
    keys = "store preset seed classes steps metrics model alias report tracking seconds startup_seconds"
    return {key: summary.get(key) for key in keys.split()}


def _folder_of(store: str) -> Path:
    """Return this machine's folder of a store, where its own MLflow database lies."""
    from tasks.adapters.object_store import open_store

    return open_store(store).root


def _refuse_foreign_packages() -> None:
    """Say so when another distribution's `tasks` or `dsol_core` hides ours; the names are generic."""
    import importlib.util

    home = Path(__file__).resolve().parents[1]
    for package in ("tasks", "dsol_core"):
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None or Path(found.origin).resolve().parents[1] != home:
            place = found.origin if found else "nowhere"
            print(
                f"error: Python finds the package {package!r} at {place}, not at {home}: another distribution or the "
                "current folder hides dsol's own; run dsol from another folder or in an environment of its own",
                file=sys.stderr,
            )
            sys.exit(1)


cli_classes.register(app, _reported, _call_flow)
cli_compare.register(app, _reported, _call_flow)
cli_benchmarks.register(app, _reported, _bar)


if __name__ == "__main__":
    main()
