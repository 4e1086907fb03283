"""The rows of a comparison: recipes with changes and seeds, refused before anything starts where they are wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dsol_core.config import ExperimentConfig
from dsol_core.types import UsageError
from flows import presets

ROWS, SEEDS = ["ours", "paper"], [0, 1, 2]  # where none are given
_BETWEEN = re.compile(r",(?![^\[]*\])")  # changes; the commas of a list part none


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
        recipe, *changes = _BETWEEN.split(changed) if equals else [name]
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


def experiments(
    rows: Sequence[str], preset: str, seeds: Sequence[int], overrides: Mapping[str, Any]
) -> list[tuple[str, ExperimentConfig]]:
    """Return the name and experiment of each row and seed, a row's seeds one after the other.

    Raises:
        UsageError: a row cannot be read, names what does not exist, or would be averaged with another unseen.
    """
    plans = [Plan.read(text, preset, list(seeds), overrides) for text in rows]
    _check_names(plans)
    return [(plan.name, plan.experiment(seed)) for plan in plans for seed in plan.seeds]


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
