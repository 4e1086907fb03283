"""Videos -> how many classes of sounding objects there are, without labels and before any training."""

from __future__ import annotations

from typing import Any

from prefect import flow

from dsol_core.config import Compute
from flows import presets, session
from flows.prepare_data import data_steps
from tasks.adapters import class_count


@flow(name="count-classes")
def count_classes(
    preset: str = "folders",
    store: str = "runs",
    data: str | None = None,
    solo: str | None = None,
    multi: str | None = None,
    overrides: dict[str, Any] | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Prepare the data as `reproduce` does and estimate the number of classes; what exists already is reused.

    Args:
        preset: name or YAML file.
        store: folder of the artifacts, or s3://bucket/prefix.
        data: folder of the user's data set, for presets that do not generate one.
        solo: folder of single-source videos, for the preset folders.
        multi: folder of multi-source videos, for the preset folders.
        overrides: dotted key -> value.
        address: of a Ray cluster.

    Returns:
        The run's summary with the fields of `ClassCount` under "classes".
    """
    experiment = presets.load(preset, overrides=overrides)
    folders, tags, compute = session.Folders(data, solo, multi), {"preset": preset}, Compute(address=address)
    with session.opened("count-classes", experiment, store, folders, compute, tags=tags) as (run, user):
        shards = data_steps(run, experiment.data, user).shards
        counted = class_count.class_count(run, shards, experiment.stage_one, experiment.data.seed)
        return run.finish(preset=preset, seed=experiment.data.seed, classes=class_count.read(counted))
