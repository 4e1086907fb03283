"""Presets: YAML -> `ExperimentConfig`, with unknown keys refused by name."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from dsol_core.config import ExperimentConfig
from dsol_core.types import UsageError

_FOLDER = Path(__file__).parent / "presets"


def names() -> list[str]:
    """Return the presets that come with dsol."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def recipes() -> list[str]:
    """Return the recipes that a preset can be run with."""
    return sorted(path.stem for path in (_FOLDER / "recipes").glob("*.yaml"))


def load(
    preset: str, *, recipe: str | None = None, seed: int | None = None, overrides: dict[str, Any] | None = None
) -> ExperimentConfig:
    """Build an experiment: defaults, then the recipe, then the preset, then the overrides.

    What a preset says under `recipes` of the chosen recipe holds for that one alone.

    Args:
        preset: a name of `names()` or the path of a YAML file.
        recipe: a name of `recipes()`; default what the preset says, else "ours".
        seed: of training.
        overrides: dotted key -> value, for example {"stage_one.epochs": 3}; text is read as YAML.

    Raises:
        UsageError: no such preset or recipe, an unknown key, a value of the wrong type.
    """
    own = _without_empty(_read(_find(preset)), ExperimentConfig)
    chosen = recipe or own.pop("recipe", None) or "ours"
    own.pop("recipe", None)
    for_recipes = own.pop("recipes", None) or {}
    if not isinstance(for_recipes, dict) or not all(isinstance(one or {}, dict) for one in for_recipes.values()):
        raise UsageError(f"{preset}: recipes is {for_recipes!r}; expected recipe: {{key: value}}, or leave it out")
    for name in (chosen, *for_recipes):
        if name not in recipes():
            raise UsageError(f"there is no recipe {name!r}; expected one of {', '.join(recipes())}")
    for_chosen = _without_empty(for_recipes.get(chosen) or {}, ExperimentConfig)
    tree = _merge(_merge(_recipe(chosen), own), for_chosen)
    for key, value in (overrides or {}).items():
        branch: dict[str, Any] = {}
        leaf = branch
        for part in (parts := key.split("."))[:-1]:
            leaf = leaf.setdefault(part, {})
        leaf[parts[-1]] = _value(key, value)
        tree = _merge(tree, _without_empty(branch, ExperimentConfig))
    if seed is not None:
        tree["seed"] = seed
    return build(tree, source=preset)


def _recipe(name: str) -> dict[str, Any]:
    """Read a recipe, merged into the one it builds on."""
    own = _read(_FOLDER / "recipes" / f"{name}.yaml")
    base = own.pop("builds_on", None)
    return _merge(_recipe(base), own) if base else own


def build(tree: dict[str, Any], *, source: str = "configuration") -> ExperimentConfig:
    """Build an experiment from nested mappings.

    Raises:
        UsageError: an unknown key or a value of the wrong type; names each.
    """
    from pydantic import TypeAdapter, ValidationError

    unknown = _unknown(tree, ExperimentConfig, "")
    if unknown:
        raise UsageError(f"{source}: {'; '.join(unknown)}")
    if isinstance(first := tree.get("stage_one"), dict) and first.get("clusters") == "auto":
        tree = _merge(tree, {"stage_one": {"clusters": 0}})
    try:
        return TypeAdapter(ExperimentConfig).validate_python(tree)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))} is {one['input']!r}: {one['msg']}"
            if one["type"] != "value_error"
            else one["msg"].removeprefix("Value error, ")
            for one in error.errors()
        )
        raise UsageError(f"{source}: {wrong}") from error


def _find(preset: str) -> Path:
    path = Path(preset)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UsageError(f"{preset} does not exist; expected a YAML file or one of {', '.join(names())}")
        return path
    if preset not in names():
        raise UsageError(f"there is no preset {preset!r}; expected one of {', '.join(names())}, or a YAML file")
    return _FOLDER / f"{preset}.yaml"


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path} holds a {type(tree).__name__}; expected keys such as data: or stage_one:")
    return tree


def _value(key: str, value: Any) -> Any:
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError as error:
        raise UsageError(f"{key} is {value!r}, which is not YAML; expected such as 3, true or [1, 2]") from error


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _unknown(tree: dict[str, Any], kind: type, path: str) -> list[str]:
    known = {one.name for one in fields(kind)}
    found = []
    for key, value in tree.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {path}{close[0]}?" if close else f"expected one of {', '.join(sorted(known))}"
            found.append(f"unknown key {path}{key}; {hint}")
        elif isinstance(value, dict) and (inner := _dataclass_of(get_type_hints(kind)[key])):
            found += _unknown(value, inner, f"{path}{key}.")
    return found


def _without_empty(tree: dict[str, Any], kind: type) -> dict[str, Any]:
    """Leave out sections that say nothing ("stage_one:"); null stays where it is a value ("registry:" is none)."""
    hints = get_type_hints(kind)
    kept = {key: value for key, value in tree.items() if value is not None or not is_dataclass(hints.get(key))}
    return {
        key: _without_empty(value, inner)
        if isinstance(value, dict) and (inner := _dataclass_of(hints.get(key)))
        else value
        for key, value in kept.items()
    }


def _dataclass_of(annotation: Any) -> type | None:
    return next(
        (one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and is_dataclass(one)), None
    )
