"""Options that several commands have, and what a command gets from the command line it is added to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

PresetArgument = Annotated[str, typer.Argument(help="A preset (`dsol presets`) or a YAML file.")]
StoreOption = Annotated[str, typer.Option(help="Folder of the artifacts, or s3://bucket/prefix.")]
DataOption = Annotated[Path | None, typer.Option(help="Folder of your data set.")]
SoloOption = Annotated[Path | None, typer.Option(help="Folder of single-source videos (preset folders).")]
MultiOption = Annotated[Path | None, typer.Option(help="Folder of multi-source videos (preset folders).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of training.")]
RecipeOption = Annotated[str | None, typer.Option(help="A recipe (`dsol presets`); default the preset's.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key=value, for example stage_one.epochs=3.")]
OnlyOption = Annotated[str | None, typer.Option(help="Run this step alone; those before it must exist.")]
FromOption = Annotated[str | None, typer.Option("--from", help="Run this step and those after it.")]
ForceOption = Annotated[list[str] | None, typer.Option(help="Build this step or cache again; may be repeated.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Training workers.")]
AddressOption = Annotated[str | None, typer.Option(help="Ray cluster: auto, ray://host:10001 or host:6379.")]
GpuOption = Annotated[bool, typer.Option(help="Train on GPUs, and make picture features there.")]
PrecisionOption = Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="Of training; auto: bf16 on GPUs.")]
CompileOption = Annotated[bool, typer.Option("--compile", help="Train with torch.compile.")]

Pairs = dict[str, str]
Reported = Callable[[bool, dict[str, Any]], AbstractContextManager[None]]  # errors -> a line or JSON, an exit status
Started = Callable[[str, dict[str, Any]], dict[str, Any]]  # calls a flow by its name, with progress bars
Bar = Callable[[str, bool], AbstractContextManager[Callable[[float, float], None]]]  # draws progress


def pairs(texts: Sequence[str] | None, expected: str = "--set KEY=VALUE, such as --set stage_one.epochs=3") -> Pairs:
    """Read "key=value" texts; `expected` says in an error how they are written.

    Raises:
        UsageError: one is written in another way.
    """
    from dsol_core.types import UsageError

    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise UsageError(f"{text!r} cannot be read; expected {expected}")
        found[key.strip()] = value.strip()
    return found


def text_of(path: Path | None) -> str | None:
    """Return a path as flows take it."""
    return None if path is None else str(path)


def print_table(table: Table) -> None:
    """Print a table to standard output; in a file or pipe, a row a line, however wide."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100_000)
        console.width = console.measure(table).maximum
    console.print(table)
