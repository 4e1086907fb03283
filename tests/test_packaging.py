"""The wheel holds what it should, works in an empty environment, and the files of infra/ parse."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"dsol_core", "tasks", "flows"}
    tracked = subprocess.run(
        ["git", "ls-files", "dsol_core", "tasks", "flows"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert set(tracked.stdout.split()) <= set(names), "every module and preset is shipped"


def test_the_command_line_answers_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "typer", "pyyaml"], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    for words, expected in ((["--help"], "sounding-object"), (["presets"], "real_av")):
        answer = subprocess.run(
            [python.with_name("dsol"), *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0 and expected in answer.stdout, answer.stderr


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in _constraints()}
    names = {_name(one) for one in wanted}
    assert names <= pinned, f"constraints.txt lacks {sorted(names - pinned)}"


def test_the_constraints_hold_versions_only() -> None:
    for line in _constraints():
        assert line.count("==") == 1 and " " not in line and "/" not in line, line


@pytest.mark.parametrize("path", sorted((ROOT / "infra").rglob("*.yaml")), ids=lambda p: p.name)
def test_infra_yaml_parses(path: Path) -> None:
    assert yaml.safe_load(path.read_text())


def test_the_image_copies_what_exists() -> None:
    for line in (ROOT / "infra" / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name


def test_no_advice_takes_dsol_from_a_package_index_that_does_not_have_it() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    files = [name for name in listed if Path(name).suffix in {".py", ".md", ".yaml", ".sh"} and name[:6] != "tests/"]
    advice = re.compile(r"pip install (?:[^\n]*['\" ])?dsol\b(?!-)")
    for wrong in ("pip install dsol", "pip install dsol[demo]", "pip install -U 'dsol[cpu]'"):
        assert advice.search(wrong), wrong
    assert [name for name in files if advice.search((ROOT / name).read_text())] == []


def _constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _name(requirement: str) -> str:
    name = requirement
    for stop in "[<>=!~ ;":
        name = name.split(stop)[0]
    return name.lower().replace("_", "-")
