"""The layers and the owners: flows -> tasks -> dsol_core, and each outside library has one file that imports it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE_LIBRARIES = {"numpy", "scipy", "torch", "torchaudio", "timm", "safetensors", "cv2"}
OWNERS = {
    "pyarrow": {"tasks/adapters/tables.py", "tasks/adapters/objects.py"},
    "ffmpeg": {"tasks/adapters/media.py"},
    "imageio_ffmpeg": {"tasks/adapters/media.py"},
    "webdataset": {"tasks/adapters/shards.py"},
    "faiss": {"tasks/adapters/faiss_kmeans.py"},
    "ray": {"tasks/adapters/cluster.py", "tasks/adapters/trainer.py"},
    "mlflow": {"tasks/adapters/tracking.py", "tasks/adapters/pyfunc_model.py"},
    "symusic": {"tasks/adapters/soundfont.py"},
    "PIL": {"tasks/adapters/images.py", "tasks/adapters/lettering.py"},
    "torchvision": {"tasks/adapters/images.py"},
    "cv2": {"dsol_core/image.py"},
    "matplotlib": {"tasks/adapters/report.py"},
}
TOOLS = {"compare_runs", "evaluate_benchmark", "localize_video", "doctor"}  # called by the command line, no steps


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules("dsol_core"), ids=name)
def test_core_imports_only_its_libraries(path: Path) -> None:
    foreign = roots(path) - CORE_LIBRARIES - set(sys.stdlib_module_names) - {"dsol_core"}
    assert not foreign, f"{name(path)} imports {sorted(foreign)}; the library may use {sorted(CORE_LIBRARIES)}"


def test_a_registered_model_requires_what_the_library_imports() -> None:
    from tasks.register_model import REQUIREMENTS

    distributions = {"cv2": "opencv-python-headless"}
    assert {distributions.get(library, library) for library in CORE_LIBRARIES} == set(REQUIREMENTS)


@pytest.mark.parametrize("path", modules("tasks"), ids=name)
def test_tasks_import_no_flow_and_no_other_step(path: Path) -> None:
    from tasks.adapters.steps import STEPS

    assert "flows" not in roots(path)
    steps = {one.split(".")[1] for one in imports(path) if one.startswith("tasks.") and one.split(".")[1] in STEPS}
    assert steps <= {path.stem}, f"{name(path)} imports the steps {sorted(steps)}; a step knows no other step"


@pytest.mark.parametrize("path", [p for f in ("dsol_core", "tasks", "flows") for p in modules(f)], ids=name)
def test_each_outside_library_has_one_owner(path: Path) -> None:
    for library in roots(path) & set(OWNERS):
        assert name(path) in OWNERS[library], f"{name(path)} imports {library}; only {sorted(OWNERS[library])} may"


def test_owners_exist_and_import_what_they_own() -> None:
    for library, owners in OWNERS.items():
        for owner in owners:
            assert library in roots(ROOT / owner), f"{owner} no longer imports {library}; drop the row"


def test_prefect_stays_in_flows_and_the_step_decorator() -> None:
    users = {name(path) for folder in ("dsol_core", "tasks") for path in modules(folder) if "prefect" in roots(path)}
    assert users <= {"tasks/adapters/steps.py", "tasks/doctor.py"}


def test_the_docstring_of_tasks_lists_the_steps_in_order() -> None:
    import tasks
    from tasks.adapters.steps import STEPS

    assert tasks.__doc__ is not None
    listed = [line.split()[0] for line in tasks.__doc__.splitlines() if line.startswith("    ")]
    assert tuple(one for one in listed if one not in TOOLS) == STEPS
    files = {path.stem for path in (ROOT / "tasks").glob("*.py")} - {"__init__"}
    assert files == set(STEPS) | TOOLS


def test_the_docstring_of_the_library_lists_its_modules() -> None:
    import dsol_core

    assert dsol_core.__doc__ is not None
    listed = {line.split()[0] for line in dsol_core.__doc__.splitlines() if line.startswith("    ")}
    assert listed == {path.stem for path in (ROOT / "dsol_core").glob("*.py")} - {"__init__"}


def test_a_run_that_builds_nothing_imports_no_heavy_library() -> None:
    heavy = "torch mlflow ray pyarrow timm webdataset faiss matplotlib PIL".split()
    code = f"import flows.reproduce, sys; print([one for one in {heavy} if one in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_each_setting_of_the_environment_has_one_owner() -> None:
    from flows import environment
    from tasks.adapters import cluster, tracking

    named = [*environment.SETTINGS, *cluster.SETTINGS, *tracking._DEFAULTS]
    assert sorted(named) == sorted(set(named))
    code = "import os; before = dict(os.environ); import tasks.adapters.shards; print(dict(os.environ) == before)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "True", "importing sets nothing"


def test_no_file_hides_what_it_does_in_a_name() -> None:
    vague = {"utils", "helpers", "base", "common", "misc"}
    assert not [name(path) for f in ("dsol_core", "tasks", "flows") for path in modules(f) if path.stem in vague]
