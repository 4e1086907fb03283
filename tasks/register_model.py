"""Register the trained model in MLflow and move its alias where the gate holds.

Reads: train_stage_two, build_dictionary, evaluate. Writes: registration.json, and a version in MLflow's registry.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dsol_core.config import RegistryConfig
from tasks.adapters.clip_facts import clip_facts
from tasks.adapters.names import given_names
from tasks.adapters.steps import Run, StepOutput, step
from tasks.adapters.store import Artifact, write_json
from tasks.adapters.tracking_store import TrackingError, tracking_uri, version_state, without_password

logger = logging.getLogger(__name__)

# Distributions that dsol_core imports; those of the training environment are required, whatever index they came from.
REQUIREMENTS = ("numpy", "scipy", "torch", "torchaudio", "timm", "safetensors", "opencv-python-headless")
NOTED = ("model", "version", "uri", "alias", "alias_moved", "reason", "run_id")  # of registration.json in the record
_TAGS = {"test": "metric", "validation": "validation"}  # first part of a version's tag, by split


@dataclass(frozen=True)
class Measured:
    """What `evaluate` measured.

    Attributes:
        test: metric -> value on test frames.
        validation: metric -> value on validation frames, on which alone the alias is decided where they have it.
        data: digest of the shards behind both.
    """

    test: Mapping[str, float]
    validation: Mapping[str, float]
    data: str

    @classmethod
    def read(cls, metrics: Artifact, data: str) -> Measured:
        """Read the files of `evaluate`."""
        test, validation = (_values(metrics.file(f"{name}.json")) for name in ("metrics", "validation"))
        return cls(test, validation, data)

    def split(self, metric: str) -> str:
        """Return where a metric is judged: "validation", or "test" where validation frames could not tell it."""
        return "validation" if metric in self.validation else "test"

    def value(self, metric: str) -> float | None:
        """Return the value that is judged, or None where it was not measured."""
        return self.validation.get(metric, self.test.get(metric))

    def tags(self) -> dict[str, str]:
        """Return all values as tags of a version, before MLflow's own rules for names."""
        return {
            f"{_TAGS[split]}/{name}": repr(value)
            for split, values in (("test", self.test), ("validation", self.validation))
            for name, value in values.items()
        }


@dataclass(frozen=True)
class Champion:
    """The version that holds the alias: its number, its value of the gate's metric if known, and the data behind it."""

    version: str
    value: float | None
    data: str


@dataclass(frozen=True)
class Verdict:
    """Whether the alias moves, and why."""

    moved: bool
    reason: str


@step
def register_model(
    run: Run, stage_two: Artifact, dictionary: Artifact, metrics: Artifact, config: RegistryConfig, data_name: str
) -> Artifact:
    """Register `stage_two` with its dictionary; `validation.json` of `metrics` decides about the alias.

    Test metrics decide only where the validation lacks the gate's metric; the reason then says so.

    Args:
        run: must track in MLflow.
        stage_two: train_stage_two.
        dictionary: build_dictionary.
        metrics: evaluate.
        config: model, alias and gate.
        data_name: prefix of the benchmarks, such as "demo".
    """
    names = given_names(dictionary)

    def write(out: StepOutput) -> None:
        measured = Measured.read(metrics, _data_digest(stage_two))
        facts = {"data": data_name, "metrics": measured.test, "validation": measured.validation}
        content = _content(out.work, stage_two, dictionary, names, facts | clip_facts(stage_two))
        registration = _register(out, content, measured, f"{data_name}-{config.metric}", config)
        write_json(out.folder / "registration.json", registration)
        out.rows(read=1, written=1)
        out.note(**{name: registration[name] for name in NOTED})

    def still_valid(record: dict[str, Any]) -> bool:
        return still_registered(record, tracking_uri(run.store.root))

    parents = {"stage_two": stage_two, "dictionary": dictionary, "metrics": metrics}
    settings = {"registry": config, "data": data_name, "names": names}
    return run.step("register_model", settings, parents, write, still_valid=still_valid)


def still_registered(record: Mapping[str, Any], uri: str) -> bool:
    """Tell whether the version of a published registration is still in the registry; True where it does not say."""
    notes = record["notes"]
    state = version_state(uri, notes["model"], notes["version"], notes["run_id"])
    if state is False:
        logger.warning("%s is no longer in MLflow at %s: registering again", notes["uri"], without_password(uri))
    return state is not False


def judge(
    metric: str,
    value: float | None,
    data: str,
    champion: Champion | None,
    config: RegistryConfig,
    split: str = "validation",
) -> Verdict:
    """Decide whether the alias moves.

    Args:
        metric: name of the gate's metric, such as "demo-grid/ciou@0.3".
        value: the new model's value of it; None where it was not measured.
        data: digest of the data it was measured on.
        champion: the alias's holder, with its value on the same split.
        config: the gate.
        split: "validation", or "test" where the validation could not tell the metric.
    """
    if value is None or math.isnan(value):
        return Verdict(False, f"{metric} was not measured; set registry.metric to a metric that was")
    metric = f"{metric} on {split} frames"
    if split == "test":
        metric += " (it is missing in validation.json)"
    if value < config.at_least:
        return Verdict(False, f"{metric} is {value:.4f}, below registry.at_least = {config.at_least:g}")
    held = f"{metric} is {value:.4f}, at least {config.at_least:g}"
    if not config.not_below_champion or champion is None:
        return Verdict(True, held if champion else f"{held}; there was no {config.alias}")
    if champion.data != data:
        return Verdict(True, f"{held}; {config.alias} (version {champion.version}) was measured on other data")
    if champion.value is None:
        return Verdict(True, f"{held}; {config.alias} (version {champion.version}) has no value of it")
    order = "not worse than" if value >= champion.value else "worse than"
    told = f"{held} and {order} version {champion.version} with {champion.value:.4f} on the same data"
    return Verdict(value >= champion.value, told)


def _register(
    out: StepOutput, content: dict[str, Any], measured: Measured, metric: str, config: RegistryConfig
) -> dict[str, Any]:
    """Register a new version, judge it, move the alias; return what happened."""
    from tasks.adapters.registry import Registry, write_pyfunc
    from tasks.adapters.tracking import mlflow_name

    tracker, run_id = out.run.tracker, out.track.run_id if out.track else None
    if tracker is None or run_id is None:
        raise TrackingError(
            "register_model needs MLflow, and it cannot be reached; start its server or unset MLFLOW_TRACKING_URI, "
            "then run the same command again: everything else is reused"
        )
    registry = Registry(tracker)
    split, data = measured.split(metric), measured.data
    holder, champion = registry.holder(config.model, config.alias), None
    if holder:
        told = holder.tags.get(mlflow_name(f"{_TAGS[split]}/{metric}"))
        champion = Champion(holder.number, None if told is None else float(told), holder.tags.get("data", ""))
    tags = {"data": data} | {mlflow_name(key): text for key, text in measured.tags().items()}
    version = registry.register(run_id, config.model, partial(write_pyfunc, **content), tags)
    verdict = judge(metric, measured.value(metric), data, champion, config, split)
    registry.tag(version, {"gate": "holds" if verdict.moved else "does not hold", "gate_reason": verdict.reason})
    if verdict.moved:
        registry.point(config.alias, version)
    alias = f"{config.model}@{config.alias}"
    logger.info("%s: %s %s: %s", version.uri, alias, "moved" if verdict.moved else "stays", verdict.reason)
    return {
        "model": config.model,
        "version": version.number,
        "uri": version.uri,
        "alias": config.alias,
        "alias_moved": verdict.moved,
        "reason": verdict.reason,
        "metric": metric,
        "split": split,
        "value": measured.value(metric),
        "at_least": config.at_least,
        "champion_before": vars(champion) if champion else None,
        "data": data,
        "run_id": run_id,
        "tracking_uri": without_password(tracker.uri),
        "entries": content["metadata"]["entries"],
    }


def _values(path: Path) -> dict[str, float]:
    known = json.loads(path.read_text())
    return {name: float(one["value"]) for name, one in known.items() if one.get("value") is not None}


def _data_digest(stage_two: Artifact) -> str:
    """Return the content of the shards that a model was trained and tested on."""
    parents = stage_two.record["parents"].values()
    return next((str(one["content"]) for one in parents if one["step"] == "write_shards"), "")


def _content(
    work: Path, stage_two: Artifact, dictionary: Artifact, names: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the MLflow model is made of: the arguments of `registry.write_pyfunc`."""
    from importlib.metadata import version

    import numpy as np

    import dsol_core
    from dsol_core import checkpoint
    from dsol_core.localizer import Localizer
    from tasks.adapters import pyfunc_model

    model = stage_two.file("model.safetensors")
    seconds = facts["clip_seconds"]
    localizer = Localizer.load(model, dictionary.file("dictionary.safetensors"), names, seconds)
    checkpoint.save_dictionary(work / "dictionary.safetensors", localizer.dictionary)
    side, rate = localizer.side, localizer.sample_rate_hz
    generator = np.random.default_rng(0)
    sound = 0.1 * generator.standard_normal((1, round(localizer.windows * seconds * rate)))
    return {
        "code": Path(pyfunc_model.__file__),
        "files": {"model": model, "dictionary": work / "dictionary.safetensors"},
        "packages": [Path(dsol_core.__file__).parent],
        "requirements": [f"{one}=={version(one).partition('+')[0]}" for one in REQUIREMENTS],
        "example": {
            "frame": generator.integers(0, 256, (1, side, side, 3), np.uint8),
            "waveform": sound.astype(np.float32),
        },
        "outputs": {
            "maps": ("float32", (-1, -1, -1, -1)),
            "sounding": ("float32", (-1, -1)),
            "agnostic": ("float32", (-1, -1, -1)),
            "entries": ("str", (-1,)),
        },
        "metadata": {
            "entries": list(localizer.entries),
            "side": side,
            "sample_rate_hz": rate,
            "windows": localizer.windows,
            "stage_two": stage_two.fingerprint,
            "dictionary": dictionary.fingerprint,
            **facts,
        },
        "settings": {"clip_seconds": seconds},
    }
