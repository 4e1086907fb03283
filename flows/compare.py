"""Recipes x seeds over the same prepared data, in one table: what surpasses what, and by how much."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from dsol_core.config import Compute
from flows import plans, session
from flows.reproduce import all_steps


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
        gpu: train and make picture features on GPUs.
        precision: of the trunks in training: "fp32", "bf16" or "auto", bf16 on GPUs.
        compiled: train with torch.compile.

    Returns:
        {"store", "preset", "rows": row -> metrics, differences, seeds; "page", "steps", "seconds"}.
    """
    from tasks import compare_runs

    listed, common = rows or plans.ROWS, seeds or plans.SEEDS
    planned = plans.experiments(listed, preset, common, overrides or {})
    first = planned[0][1]
    compute = Compute(workers, address, gpu, precision, compiled)
    folders, tags = session.Folders(data, solo, multi), {"preset": preset, "rows": " ".join(listed)}
    with session.opened("compare", first, store, folders, compute, tags=tags) as (run, user):
        trained = []
        for name, experiment in planned:
            before = len(run.steps)
            made = all_steps(run, experiment, user)
            steps = run.steps[before:]
            videos = [one["fingerprint"] for one in steps if one["name"] == "make_videos" and one["fingerprint"]]
            source = run.store.find("make_videos", videos[0]) if videos else None
            trained.append(compare_runs.Trained(name, experiment.seed, made.report, made.stage_one, steps, source))
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
