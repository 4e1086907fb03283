"""The whole system, in order: videos -> registered model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from prefect import flow

from dsol_core.config import Compute, ExperimentConfig
from flows import presets, session
from flows.prepare_data import data_steps
from tasks.adapters import class_count
from tasks.adapters.steps import Run, Scope
from tasks.adapters.store import Artifact
from tasks.adapters.user_folders import External
from tasks.build_dictionary import build_dictionary
from tasks.evaluate import evaluate
from tasks.predict_maps import predict_maps
from tasks.register_model import register_model
from tasks.train_stage_one import train_stage_one
from tasks.train_stage_two import train_stage_two


class Made(NamedTuple):
    """What the steps made; no registration where the experiment registers nothing."""

    classes: int | None  # K of the dictionary, given or estimated; None where stage one was left out
    stage_one: Artifact
    report: Artifact
    registration: Artifact | None


def all_steps(run: Run, experiment: ExperimentConfig, user: External | None) -> Made:
    """Every step in order."""
    data = data_steps(run, experiment.data, user)
    first = class_count.resolved(run, data.shards, experiment.stage_one, experiment.data.seed)
    experiment = replace(experiment, stage_one=first)
    stage_one = train_stage_one(run, data.shards, experiment.stage_one, experiment.seed)
    classes = None if stage_one.state == "skipped" else first.clusters
    dictionary = build_dictionary(run, data.clips, data.shards, stage_one, experiment.dictionary, experiment.seed)
    stage_two = train_stage_two(run, data.shards, stage_one, dictionary, experiment.stage_two, experiment.seed)
    predictions = predict_maps(run, data.shards, stage_one, stage_two, dictionary)
    report = evaluate(run, predictions, data, stage_one, dictionary, stage_two, experiment)
    if experiment.registry is None:
        return Made(classes, stage_one, report, None)
    model = register_model(run, stage_two, dictionary, report, experiment.registry, experiment.data.name)
    return Made(classes, stage_one, report, model)


@flow(name="reproduce")
def reproduce(
    preset: str = "demo",
    store: str = "runs",
    recipe: str | None = None,
    seed: int | None = None,
    data: str | None = None,
    solo: str | None = None,
    multi: str | None = None,
    overrides: dict[str, Any] | None = None,
    only: str | None = None,
    start: str | None = None,
    force: list[str] | None = None,
    workers: int = 1,
    address: str | None = None,
    gpu: bool = False,
    precision: str = "auto",
    compiled: bool = False,
) -> dict[str, Any]:
    """Turn videos into a benchmarked, registered localiser; whatever exists already is reused.

    Args:
        preset: name or YAML file.
        store: folder of the artifacts, or s3://bucket/prefix.
        recipe: "ours", "paper", "paper_fixed", "ez_vsl" or "class_tokens"; default what the preset says.
        seed: of training.
        data: folder of the user's data set, for presets that do not generate one.
        solo: folder of single-source videos, for the preset folders.
        multi: folder of multi-source videos, for the preset folders.
        overrides: dotted key -> value.
        only: run this step alone.
        start: run this step and those after it.
        force: steps to build again.
        workers: of training.
        address: of a Ray cluster.
        gpu: train and make picture features on GPUs.
        precision: of the trunks in training: "fp32", "bf16" or "auto", bf16 on GPUs.
        compiled: train with torch.compile.

    Returns:
        The run's summary: steps with their states, metrics, model and report.
    """
    experiment = presets.load(preset, recipe=recipe, seed=seed, overrides=overrides)
    scope, compute = Scope(only, start, tuple(force or ())), Compute(workers, address, gpu, precision, compiled)
    folders, tags = session.Folders(data, solo, multi), {"preset": preset, "recipe": experiment.stage_one.recipe}
    with session.opened("reproduce", experiment, store, folders, compute, scope, tags=tags) as (run, user):
        classes, _, report, registration = all_steps(run, experiment, user)
        outcome = _outcome(report, registration)
        summary = run.finish(preset=preset, seed=experiment.seed, classes=classes, **outcome)
        if report.state == "ran":
            session.show_in_prefect(summary, report)
        return summary


def _outcome(report: Artifact, registration: Artifact | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"metrics": {}, "report": None, "model": None, "alias": None, "tracking": None}
    if report.state != "skipped":
        facts["metrics"] = json.loads(report.file("metrics.json").read_text())
        facts["report"] = str(report.file("report.html"))
    if registration and registration.state != "skipped":
        known = json.loads(registration.file("registration.json").read_text())
        facts["model"], facts["tracking"] = known["uri"], known.get("tracking_uri")
        facts["alias"] = {"name": known["alias"], "moved": known["alias_moved"], "reason": known["reason"]}
    return facts
