"""dsol on a machine with torch and no registry: pack a few packages, install them without an index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "infra/offline/build.sh"


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    cleaned = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        env=cleaned | {"PYTHON": sys.executable} | environment,
        cwd="/",  # not where dsol_core lies
    )


@pytest.mark.slow
def test_packed_here_installed_there(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    for names in (["pyyaml", "torch"], ["packaging", "pyyaml"]):  # the second completes the folder
        if names[0] == "packaging":
            (packed / "pinned.txt").write_text("pyyaml==5.0\n")  # of an earlier constraints.txt
        answer = run(BUILD, packed, *names)
        assert answer.returncode == 0, answer.stderr
    pinned = (packed / "pinned.txt").read_text().split()
    assert [one.split("==")[0] for one in pinned] == ["packaging", "PyYAML"]
    wheels = sorted(path.name.split("-")[0] for path in packed.glob("wheels/*.whl"))
    assert wheels == ["dsol", "packaging", "pyyaml"], "torch stays out"
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_EXTRA_INDEX_URL": ""}
    answer = run(packed / "install.sh", tmp_path / "there", **nowhere)
    assert answer.returncode == 0, answer.stderr
    code = "import dsol_core, yaml, torch; print(dsol_core.__file__, yaml.__file__, torch.__file__)"
    *ours, torch = run(tmp_path / "there/bin/python", "-c", code).stdout.split()
    assert all(path.startswith(str(tmp_path / "there")) for path in ours)
    assert not torch.startswith(str(tmp_path)), "torch is the machine's own"
    assert (tmp_path / "there/dsol/benchmarks/gpu_check.py").is_file()
    next(packed.glob("wheels/dsol-*.whl")).write_bytes(b"")
    answer = run(packed / "install.sh", tmp_path / "again", **nowhere)
    assert answer.returncode == 1 and "incomplete: copy it again" in answer.stderr


def test_torch_and_the_other_faiss_are_left_out(tmp_path: Path) -> None:
    answer = run(BUILD, tmp_path, "torch", "nvidia-cublas", "faiss-gpu", "torchvision")
    assert answer.returncode == 1 and "without torch's packages" in answer.stderr
    assert run(BUILD).returncode == 2, "usage"


def test_without_torch_the_installer_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "install.sh").write_bytes((BUILD.parent / "install.sh").read_bytes())
    (tmp_path / "SHA256SUMS").write_text(run("sha256sum", tmp_path / "install.sh").stdout.replace(f"{tmp_path}/", ""))
    answer = run("bash", tmp_path / "install.sh", tmp_path / "there", PYTHON="false")
    assert answer.returncode == 1 and "give PYTHON=" in answer.stderr
