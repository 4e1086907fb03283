"""What the doctor says about a sound machine, and about faults that are put in its way."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dsol_core
from tasks import doctor
from tasks.doctor import Check, check


def named(checks: Any, name: str) -> Check:
    (found,) = [one for one in checks if one.name == name]
    return found


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions that override the installed ones."""
    versions: dict[str, str | None] = {}
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: versions[name] if name in versions else real(name))
    return versions


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Modules that are imported instead of the installed ones; a text is the reason why an import fails."""
    fakes: dict[str, Any] = {}
    real = doctor._import

    def load(name: str) -> tuple[Any, str]:
        fake = fakes.get(name)
        if fake is None:
            return real(name)
        return (None, fake) if isinstance(fake, str) else (fake, "")

    monkeypatch.setattr(doctor, "_import", load)
    return fakes


def torch(*, cuda: str | None, available: bool = False) -> SimpleNamespace:
    device = SimpleNamespace(is_available=lambda: available, device_count=lambda: 1, get_device_name=lambda _: "H200")
    return SimpleNamespace(version=SimpleNamespace(cuda=cuda), cuda=device)


def test_this_environment_has_nothing_broken_and_every_fault_names_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "DSOL_FFMPEG"):
        monkeypatch.delenv(name, raising=False)
    checks = check(tmp_path / "not" / "yet")
    assert not [one for one in checks if one.state == "broken"]
    assert {"python", "ffmpeg", "ffmpeg decoders", "torch", "faiss", "ray", "mlflow", "prefect", "disk"} <= {
        one.name for one in checks
    }
    assert not (tmp_path / "not").exists()


def test_a_check_that_dies_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def dies() -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(doctor, "check_ffmpeg", dies)
    checks = check(tmp_path)
    assert named(checks, "ffmpeg").state == "broken" and "out of luck" in named(checks, "ffmpeg").detail
    assert named(checks, "disk")


@pytest.mark.parametrize(("version", "state"), [((3, 10, 2), "broken"), ((3, 13, 0), "ok"), ((3, 14, 0), "broken")])
def test_python_version(version: tuple[int, ...], state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", version)
    assert named(doctor.check_python(), "python").state == state


def test_it_tells_which_dsol_runs() -> None:
    detail = named(doctor.check_dsol(), "dsol").detail
    assert detail == f"{dsol_core.__version__} in {Path(doctor.__file__).parents[1].resolve()}"


def test_an_ffmpeg_without_a_codec_and_one_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = tmp_path / "ffmpeg"
    poor.write_text(
        "#!/bin/sh\necho 'ffmpeg version 4.0 Copyright x'\necho ' V....D h264  H.264'\necho ' A....D aac AAC'\n"
    )
    poor.chmod(0o755)
    monkeypatch.setenv("DSOL_FFMPEG", str(poor))
    checks = list(doctor.check_ffmpeg())
    assert named(checks, "ffmpeg").detail.startswith("ffmpeg version 4.0 (")
    assert named(checks, "ffmpeg decoders").detail == "lacks hevc, vp9, opus, mp3"
    assert named(checks, "ffmpeg encoders").detail == "lacks libx264"
    monkeypatch.setenv("DSOL_FFMPEG", str(tmp_path / "nowhere"))
    (only,) = doctor.check_ffmpeg()
    assert only.state == "broken" and "nowhere" in only.detail


@pytest.mark.parametrize(
    ("build", "available", "driver", "state", "part"),
    [
        ("13.0", True, "590.1", "ok", "H200; driver 590.1"),
        ("13.0", False, None, "note", "no NVIDIA driver"),
        ("13.0", False, "470.0", "missing", "driver 470.0, but torch built for CUDA 13.0"),
        (None, False, "590.1", "missing", "CPU build"),
    ],
)
def test_gpu(
    build: str | None, available: bool, driver: str | None, state: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    found = doctor._gpu(torch(cuda=build, available=available), build)
    assert found.state == state and part in found.detail


def test_torchaudio_mismatch_is_explained(installed: dict, modules: dict) -> None:
    modules |= {"torch": torch(cuda=None), "torchaudio": "libtorchaudio.so: undefined symbol"}
    installed |= {"torch": "2.14.1+cpu", "torchaudio": "2.11.0"}
    found = named(doctor.check_torch(), "torchaudio")
    assert found.state == "broken" and "CPU-only build" in found.detail and "ordinary build" in found.remedy
    modules |= {"torch": torch(cuda="13.0"), "torchaudio": SimpleNamespace()}
    assert named(doctor.check_torch(), "torchaudio").state == "note"
    installed["torch"] = "2.11.3"
    assert named(doctor.check_torch(), "torchaudio").state == "ok"


def test_two_faiss_packages_are_broken_whatever_imports(installed: dict) -> None:
    installed |= {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"}
    found = named(doctor.check_faiss(), "faiss")
    assert found.state == "broken" and "uninstall" in found.remedy


@pytest.mark.parametrize(
    ("packages", "module", "state", "part"),
    [
        ({}, "No module named 'faiss'", "missing", "No module"),
        ({"faiss-gpu": "1.15.1"}, SimpleNamespace(), "broken", "empty module"),
        (
            {"faiss-gpu": "1.15.1"},
            SimpleNamespace(Kmeans=1, StandardGpuResources=1, get_num_gpus=lambda: 0),
            "note",
            "no GPU",
        ),
        (
            {"faiss-gpu": "1.15.1"},
            SimpleNamespace(Kmeans=1, StandardGpuResources=1, get_num_gpus=lambda: 2),
            "ok",
            "2 GPU",
        ),
        ({"faiss-cpu": "1.15.1"}, SimpleNamespace(Kmeans=1, get_num_gpus=lambda: 2), "ok", "on the CPU"),
    ],
)
def test_faiss(packages: dict, module: Any, state: str, part: str, installed: dict, modules: dict) -> None:
    installed |= {"faiss-cpu": None, "faiss-gpu": None, **packages}
    modules["faiss"] = module
    found = named(doctor.check_faiss(), "faiss")
    assert found.state == state and part in found.detail


def test_ray_missing_or_of_another_release(installed: dict) -> None:
    installed["ray"] = None
    assert named(doctor.check_ray(), "ray").state == "broken"
    installed["ray"] = "2.61.0"
    assert named(doctor.check_ray(), "ray").state == "note"


@pytest.mark.parametrize(("fastapi", "sqlalchemy"), [("0.151.0", "2.0.58"), ("0.150.0", "2.1.0")])
def test_the_releases_that_break_prefect_silently(fastapi: str, sqlalchemy: str, installed: dict) -> None:
    installed |= {"fastapi": fastapi, "sqlalchemy": sqlalchemy}
    checks = list(doctor.check_prefect())
    assert [named(checks, f"prefect's {name}").state for name in ("fastapi", "sqlalchemy")] == [
        "broken" if fastapi == "0.151.0" else "ok",
        "broken" if sqlalchemy == "2.1.0" else "ok",
    ]


def test_servers_that_do_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    assert named(doctor.check_prefect(), "prefect server").state == "broken"
    found = named(doctor.check_mlflow(tmp_path), "mlflow")
    assert found.state == "broken" and "unset" in found.remedy and "secret" not in found.detail


def test_a_damaged_mlflow_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert named(doctor.check_mlflow(tmp_path), "mlflow").state == "ok"
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, and long enough to be read as one" * 50)
    found = named(doctor.check_mlflow(tmp_path), "mlflow")
    assert found.state == "broken" and "not a database" in found.detail


def test_little_disk_and_a_container_with_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    found = named(doctor.check_disk(tmp_path / "store"), "disk")
    assert found.state == "missing" and found.detail.startswith("1.0 GiB free")
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    found = named(doctor.check_memory(tmp_path / "memory.max"), "memory")
    assert found.state == "missing" and "of 2.0 GiB free" in found.detail
    (tmp_path / "memory.max").write_text("max\n")
    assert "of 2.0 GiB" not in named(doctor.check_memory(tmp_path / "memory.max"), "memory").detail


def test_demo_extra(installed: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    installed["symusic"] = "0.6.0"
    assert named(doctor.check_demo(), "demo symusic").state == "broken"
    installed["symusic"] = None
    assert named(doctor.check_demo(), "demo symusic").state == "missing"
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    checks = list(doctor.check_demo())
    assert [named(checks, f"demo {name}").state for name in ("SoundFont", "weights")] == ["missing", "missing"]


def test_a_probe_reports_the_last_line_of_a_failure() -> None:
    assert doctor._probe("x", "print(1)", "none").state == "ok"
    found = doctor._probe("x", "raise ValueError('no port')", "free a port")
    assert (found.state, found.detail, found.remedy) == ("broken", "exit 1: ValueError: no port", "free a port")


def test_a_probe_has_the_settings_that_the_user_did_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSOL_MINE", "mine")
    code = "import os; assert (os.environ['DSOL_MINE'], os.environ['DSOL_OURS']) == ('mine', 'ours')"
    assert doctor._probe("x", code, "none", {"DSOL_MINE": "ours", "DSOL_OURS": "ours"}).state == "ok"


@pytest.mark.slow
def test_a_deep_check_starts_ray_and_prefect(tmp_path: Path) -> None:
    code = "from tasks.doctor import *; print([c.state for c in [*check_ray(deep=True), *check_prefect(deep=True)]])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "broken" not in done.stdout
