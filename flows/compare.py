"""Recipes x seeds over the same prepared data, in one table: what surpasses what, and by how much."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect import flow

from dsol_core.config import Compute, ExperimentConfig
from dsol_core.types import UsageError
from flows import presets, session
from flows.reproduce import all_steps


@dataclass(frozen=True)
class Plan:
    """One row of a comparison: a recipe, what is changed in it, and the seeds it is trained from."""

    name: str
    preset: str
    recipe: str
    seeds: tuple[int, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str, preset: str, seeds: list[int], overrides: Mapping[str, Any]) -> Plan:
        """Read "ours", "max=ours,stage_one.pooling=max" or "paper@0,1".

        Raises:
            UsageError: it is written in another way.
        """
        row, at, own = text.partition("@")
        name, equals, changed = row.partition("=")
        recipe, *changes = changed.split(",") if equals else [name]
        pairs = [change.partition("=") for change in changes]
        numbers = own.split(",") if at else []
        if not all((name, recipe, *(key and sign for key, sign, _ in pairs), *(n.strip().isdigit() for n in numbers))):
            raise UsageError(
                f"row {text!r} cannot be read; expected such as ours, paper@0,1 or max=ours,stage_one.pooling=max"
            )
        changed_to = {**overrides, **{key: value for key, _, value in pairs}}
        return cls(name, preset, recipe, tuple(map(int, numbers)) or tuple(seeds), changed_to)

    def experiment(self, seed: int) -> ExperimentConfig:
        """Return the experiment of a seed; it registers nothing."""
        made = presets.load(self.preset, recipe=self.recipe, seed=seed, overrides=dict(self.overrides))
        return replace(made, registry=None)


def _check_names(plans: Sequence[Plan]) -> None:
    """Refuse rows that would be averaged as if they were one."""
    for name, count in Counter(plan.name for plan in plans).items():
        if count > 1:
            raise UsageError(
                f"{count} rows are called {name!r}; name them, such as --row other=ours,stage_one.epochs=4"
            )
    for plan in plans:
        if len(set(plan.seeds)) < len(plan.seeds):
            raise UsageError(f"row {plan.name!r} has the seeds {', '.join(map(str, plan.seeds))}; expected each once")


@flow(name="compare")
def compare(
    preset: str = "demo",
    rows: list[str] | None = None,
    seeds: list[int] | None = None,
    store: str = "runs",
    out: str | None = None,
    data: str | None = None,
    solo: str | None = None,
    multi: str | None = None,
    overrides: dict[str, Any] | None = None,
    workers: int = 1,
    address: str | None = None,
    gpu: bool = False,
    precision: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Train every row from every seed and compare them; data and cached features are made once.

    Args:
        preset: name or YAML file.
        rows: "<recipe>", or "<name>=<recipe>,<key>=<value>,..." for a recipe with changes; a row may end in
            "@<seed>,<seed>" to have seeds of its own. The first is what the others are compared with.
        seeds: of training, of every row without its own.
        store: folder of the artifacts; what exists already is reused.
        out: Markdown page to write, figures as JSON beside it.
        data: folder of the user's data set, for presets that do not generate one.
        solo: folder of single-source videos, for the preset folders.
        multi: folder of multi-source videos, for the preset folders.
        overrides: dotted key -> value, for every row.
        workers: of training.
        address: of a Ray cluster.
        gpu: train on GPUs.
        precision: of the trunks in training: "fp32", "bf16" or "auto", bf16 on GPUs.
        compiled: train with torch.compile.

    Returns:
        {"store", "preset", "rows": row -> metrics, differences, seeds; "page", "steps", "seconds"}.
    """
    from tasks import compare_runs

    listed, common = rows or ["ours", "paper"], seeds or [0, 1, 2]
    plans = [Plan.read(text, preset, common, overrides or {}) for text in listed]
    _check_names(plans)
    # All experiments first: a wrong key in the last row is refused before the first row trains.
    planned = [(plan.name, plan.experiment(seed)) for plan in plans for seed in plan.seeds]
    first = planned[0][1]
    compute = Compute(workers, address, gpu, precision, compiled)
    folders, tags = session.Folders(data, solo, multi), {"preset": preset, "rows": " ".join(listed)}
    with session.opened("compare", first, store, folders, compute, tags=tags) as (run, user):
        trained = []
        for name, experiment in planned:
            before = len(run.steps)
            made = all_steps(run, experiment, user)
            steps = run.steps[before:]
            trained.append(compare_runs.Trained(name, experiment.seed, made.report, made.stage_one, steps))
        comparison = compare_runs.Comparison(trained)
        if out:
            command = written(preset, listed, common, folders, overrides or {}, compute)
            compare_runs.write(comparison, Path(out), f"`{preset}`: {', '.join(comparison.rows)}", command)
        return run.finish(preset=preset, rows=comparison.as_dict(), page=out)


def written(
    preset: str,
    rows: Sequence[str],
    seeds: Sequence[int],
    folders: session.Folders,
    overrides: Mapping[str, Any],
    compute: Compute,
) -> str:
    """Return the command that makes the page again; whoever reads it has other folders and another cluster."""
    given = {"--data": folders.data, "--solo": folders.solo, "--multi": folders.multi}
    words = ["dsol", "compare", preset]
    words += [word for option, folder in given.items() if folder for word in (option, "FOLDER")]
    words += [f"--row={one}" for one in rows] + [f"--seed={one}" for one in seeds]
    words += [f"--set={key}={value}" for key, value in overrides.items()]
    words += ["--gpu"] * compute.gpu + ["--compile"] * compute.compiled
    words += [f"--precision={compute.precision}"] * (compute.precision != "auto")
    return shlex.join(words)
