"""What an artifact is made from, as a digest: configuration, parents, and the code of its step."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.adapters.store import Artifact

_ROOT = Path(__file__).resolve().parents[2]
# Modules that move bytes without shaping them, or whose values are hashed as configuration: an edit reruns nothing.
_NEUTRAL = {
    "dsol_core",
    "dsol_core.config",
    "tasks",
    "tasks.adapters",
    "tasks.adapters.fingerprints",
    "tasks.adapters.object_store",
    "tasks.adapters.objects",
    "tasks.adapters.provenance",
    "tasks.adapters.store",
    "tasks.adapters.steps",
    "tasks.adapters.tracking",
    "tasks.adapters.transport",
    "tasks.adapters.user_folders",
}


def sha256(path: Path) -> str:
    """Return a file's sha256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Turn dataclasses, tuples and paths into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def digest(value: Any) -> str:
    """Hash a JSON value or dataclass to 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_digest(module: str) -> str:
    """Hash a module and the core and adapter modules that it imports, transitively; comments and docstrings excepted.

    Imports inside functions count, since steps import lazily. Modules in `_NEUTRAL` do not: they move results without
    shaping them.
    """
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        path = _module_file(name)
        if name in seen or path is None:
            continue
        seen[name], imported = _read(path)
        todo += [one for one in imported if one not in _NEUTRAL]
    return digest(sorted(seen.items()))


@cache
def _read(path: Path) -> tuple[str, frozenset[str]]:
    """Return the hash of a module's own code and the names that it imports; steps share most modules."""
    tree = ast.parse(path.read_text())
    imported = frozenset(_imports(tree))
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), imported


def _module_file(name: str) -> Path | None:
    stem = _ROOT.joinpath(*name.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"dsol_core", "tasks"}}


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = node.body[1:]
    return tree


def fingerprint(
    step: str, config: Any, parents: Mapping[str, Artifact], seed: int | None = None, module: str | None = None
) -> str:
    """Return what an artifact is made from as 16 hexadecimal digits.

    Args:
        step: name of the step; its code is `tasks/<step>.py` unless `module` names another.
        config: dataclass or JSON value; every field counts.
        parents: artifacts by role; their fingerprints and contents count, their paths do not.
        seed: of the step.
        module: dotted name of the module whose code counts.
    """
    return digest(
        {
            "step": step,
            "config": plain(config),
            "seed": seed,
            "parents": {role: [one.fingerprint, one.content] for role, one in parents.items()},
            "code": code_digest(module or f"tasks.{step}"),
        }
    )
