"""What `benchmarks/gpu_check.py` checks, each a function that returns rows; they run on a CPU too.

"Ours" is the product's step: `TrainWorker` with the device and precision, `stage_one.train_epoch`. The reference's form
and the pairs are those of `speed/training_step.py`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import Size, _shards
from speed.clustering import CLUSTERS, clustered
from speed.training_step import Forms, NoClustering, cases, operations
from torch.profiler import ProfilerActivity

from dsol_core import stage_one
from dsol_core.config import Compute, StageOneConfig
from tasks.adapters import images
from tasks.adapters.faiss_kmeans import FaissKMeans
from tasks.adapters.inputs import Recipe
from tasks.adapters.loader import Loader
from tasks.adapters.trainer import TrainWorker

# Largest difference of map and of loss from float32 on the CPU, and least cosine of all gradients together; random
# weights and inputs. bfloat16 keeps 8 bits; float32 on a GPU may keep 10 inside convolutions (TF32).
TOLERANCE = {"fp32": (0.005, 0.001, 0.999), "bf16": (0.02, 0.01, 0.97)}
INERTIA = 1.02  # most that faiss' k-means may lie above scikit-learn's
FASTER_CLUSTERS = 50.0  # least ratio to scikit-learn's default, faiss on a GPU
FASTER = 4.0  # least ratio to the reference's form in eager float32, on a GPU
IDLE = 0.15  # largest share of an epoch from shards in which the GPU does nothing


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        name: of the row, with its unit.
        value: measured, or a word.
        bound: what it has to keep, such as "at most 0.05", or "".
        holds: whether it does; None: shown, not judged.
    """

    name: str
    value: float | str
    bound: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Setting:
    """Where and how large to check.

    Attributes:
        gpu: on the GPU; else bfloat16 on the CPU stands in for it.
        quick: small pictures and batches.
        folder: for shards and stores.
        compiled: whether ours is compiled.
    """

    gpu: bool
    quick: bool
    folder: Path
    compiled: bool = False

    @property
    def size(self) -> Size:
        """Return the same for the speed measurements."""
        return Size(self.quick, torch.get_num_threads(), self.folder)

    def worker(self, kind: str, *, gpu: bool | None = None) -> TrainWorker:
        """Return the product's worker on the device, or on the CPU with `gpu=False`."""
        on_gpu = self.gpu if gpu is None else gpu
        compute = Compute(0, None, on_gpu, kind, self.compiled and kind == "bf16")  # type: ignore[arg-type]
        return TrainWorker(self.folder, local=True, compute=compute)

    def paper(self) -> StageOneConfig:
        """Return the paper's pair of ResNet-18 with negatives of the batch."""
        return cases(self.size)[0].config

    def forms(self, kind: str, *, gpu: bool | None = None, config: StageOneConfig | None = None) -> Forms:
        """Return both forms of its step."""
        own = config or self.paper()
        return Forms(own, own, 0, self.worker(kind, gpu=gpu))


def at_most(name: str, value: float, bound: float) -> Row:
    """Return a row with an upper bound."""
    return Row(name, value, f"at most {bound:g}", value <= bound)


def at_least(name: str, value: float, bound: float | None) -> Row:
    """Return a row with a lower bound, or with none."""
    return Row(name, value) if bound is None else Row(name, value, f"at least {bound:g}", value >= bound)


def parity(setting: Setting) -> Iterator[Row]:
    """Compare map, loss and gradients of the first step in bfloat16 on the device with float32 on the CPU."""
    config = replace(setting.paper(), batch=4 if setting.quick else 8, pooling="top")  # a maximum jumps between cells
    exact = setting.forms("fp32", gpu=False, config=config)
    for kind in ("fp32", "bf16"):
        map_bound, loss_bound, cosine_bound = TOLERANCE[kind]
        rough = setting.forms(kind, config=config)
        rough.state.net.load_state_dict(exact.state.net.state_dict())
        maps = [stage_one.localise(form.state.net, form.data.batch) for form in (exact, rough)]
        yield at_most(
            f"parity {kind}: largest difference of the map", float(np.abs(maps[0] - maps[1]).max()), map_bound
        )
        start = {name: value.clone() for name, value in exact.state.net.state_dict().items()}
        found = [form.our_loss() for form in (exact, rough)]
        yield at_most(f"parity {kind}: difference of the loss", abs(found[0] - found[1]), loss_bound)
        grown = [gradient(form.state.net) for form in (exact, rough)]
        cosine = float(torch.cosine_similarity(grown[0], grown[1], dim=0))
        yield at_least(f"parity {kind}: cosine of the gradients", cosine, cosine_bound)
        yield Row(f"parity {kind}: ratio of the gradients' lengths", float(grown[1].norm() / grown[0].norm()))
        exact.state.net.load_state_dict(start)


def gradient(net: torch.nn.Module) -> torch.Tensor:
    """Return the gradients that the last step left, as one vector on the CPU."""
    parts = [p.grad.detach().flatten().cpu() for _, p in sorted(net.named_parameters()) if p.grad is not None]
    return torch.cat(parts)


def throughput(setting: Setting) -> Iterator[Row]:
    """Time a step in bfloat16 against the reference's form in eager float32, both on the device; count memory."""
    forms = {"ours": setting.forms("bf16"), "reference": setting.forms("fp32")}
    steps = {"ours": forms["ours"].ours, "reference": forms["reference"].reference}
    if setting.gpu and not setting.compiled:
        steps["ours, compiled"] = replace(setting, compiled=True).forms("bf16").ours
    for step in steps.values():
        for _ in range(1 if setting.quick else 5):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 if setting.quick else 20):
        for name, step in steps.items():
            times[name].append(seconds(step))
    middle = {name: statistics.median(values) for name, values in times.items()}
    batch = setting.paper().batch
    for name, value in middle.items():
        yield Row(f"throughput: {name}, pairs/s", batch / value)
    ratio = middle["reference"] / middle["ours"]
    yield at_least("throughput: ours in bf16 / reference's form in fp32", ratio, FASTER if setting.gpu else None)
    count = operations(forms["reference"])  # those of ours, not compiled
    peak = matmul_peak(forms["ours"].worker.device, 8192 if setting.gpu else 512)
    yield Row("utilisation: GFLOP of a step", count / 1e9)
    yield Row("utilisation: bf16 matmul peak of the run, TFLOP/s", peak / 1e12)
    yield Row("utilisation: model FLOP utilisation of that peak", count / middle["ours"] / peak)
    for name, step in steps.items():
        if setting.gpu:
            torch.cuda.reset_peak_memory_stats()
            step()
            yield Row(f"memory: {name}, peak GiB of a step", torch.cuda.max_memory_allocated() / 2**30)


def seconds(step: Callable[[], Any]) -> float:
    """Return the seconds of a step that ends with a number on the CPU, so that the device has done its work."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def matmul_peak(device: Any, side: int) -> float:
    """Return the operations a second of the product of two large bfloat16 matrices, the best of several."""
    left, right = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)

    def multiply() -> float:
        return float((left @ right)[0, 0])

    multiply()
    return 2 * side**3 / min(seconds(multiply) for _ in range(10))


def feeding(setting: Setting) -> Iterator[Row]:
    """Train epochs from shards of JPEG frames; how long does the device wait?"""
    config = setting.paper()
    folder = setting.folder / "frames"
    count = 3 * config.batch if setting.quick else 64 * config.batch
    side = size_of_frames(config)
    _shards.write(folder, frames(count, side), side)
    worker = setting.worker("bf16")
    state = stage_one.start(replace(config, first_clustering=10**6, epochs=10**6 + 1), 10**6, 0, worker)
    data = Waited(Loader(folder, ["solo"], Recipe.stage_one(config, 0), worker))
    for _ in range(2):  # the first epoch warms up
        data.waited, started, kernels = 0.0, time.perf_counter(), 0.0
        with torch.profiler.profile(
            activities=[ProfilerActivity.CUDA if setting.gpu else ProfilerActivity.CPU]
        ) as seen:
            stage_one.train_epoch(state, data, NoClustering(), worker)
            took = time.perf_counter() - started
        if setting.gpu:
            work = [event for event in seen.key_averages() if not event.key.startswith(("Memcpy", "Memset"))]
            kernels = sum(event.self_device_time_total for event in work) / 1e6
    yield Row("feeding: pairs/s from shards", count / took)
    yield Row("feeding: share of the epoch that the training waits for batches", data.waited / took)
    if setting.gpu:
        yield at_most("feeding: share of the epoch that the GPU is idle", 1 - kernels / took, IDLE)


class Waited:
    """Training data that note how long their batches are waited for."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.waited = loader, 0.0

    def train(self, epoch: int, part: int) -> Iterator[Any]:
        """Give the loader's batches."""
        batches = self.loader.train(epoch, part)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def sequential(self) -> Iterator[Any]:
        """Give the loader's."""
        return self.loader.sequential()


def size_of_frames(config: StageOneConfig) -> int:
    """Return the side of the stored frames for a network's input, as the presets have it (256 for 224)."""
    return config.image.side * 256 // 224


def frames(count: int, side: int) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield JPEGs of a coarse random picture with a second of noise each."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = coarse.repeat(-(-side // 8), 0).repeat(-(-side // 8), 1)[:side, :side]
        sound = generator.normal(0, 3000, 16000).astype(np.int16)
        yield images.encode_jpeg(picture, 92), sound


def clustering(setting: Setting) -> Iterator[Row]:
    """Cluster with faiss where the product does, on the GPU if package and device are there, against scikit-learn."""
    import faiss
    from sklearn.cluster import KMeans

    points = clustered(*((2_000, 16) if setting.quick else (100_000, 512)), seed=0)
    ours = FaissKMeans()
    ours.fit(points[:1000], CLUSTERS, 0)  # a GPU takes a second for the first time
    started = time.perf_counter()
    centers, _ = ours.fit(points, CLUSTERS, 0)
    between = time.perf_counter()
    plain = KMeans(CLUSTERS, random_state=0).fit(points)
    ended = time.perf_counter()
    wanted = setting.gpu and hasattr(faiss, "StandardGpuResources")
    ratio = (ended - between) / (between - started)
    yield at_least("clustering: faiss / scikit-learn's default, speed", ratio, FASTER_CLUSTERS if wanted else None)
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(centers, np.float32))
    inertia = float(index.search(points, 1)[0].astype(np.float64).sum())
    yield at_most("clustering: inertia of faiss / scikit-learn's", inertia / plain.inertia_, INERTIA)
    words = "" if wanted or not setting.gpu else " (faiss-cpu is installed; make setup FAISS=gpu)"
    on_gpu = ours.device == "gpu" if wanted else None
    yield Row(f"clustering: faiss ran on the{words}", str(ours.device), "gpu" if wanted else "", on_gpu)


def pipeline(setting: Setting) -> Iterator[Row]:
    """Run the preset smoke, videos to registry, through Ray, and look that training used device and precision."""
    store = setting.folder / "store"
    words = [
        "run",
        "smoke",
        "--store",
        str(store),
        "--precision",
        "bf16",
        "--json",
        *(["--gpu"] if setting.gpu else []),
    ]
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    answer = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False, env=environment
    )
    if answer.returncode:
        yield Row("end to end: dsol run smoke", answer.stderr.strip()[-300:], "exit status 0", False)
        return
    yield Row("end to end: dsol run smoke, seconds", time.perf_counter() - started)
    record = json.loads(next(store.glob("train_stage_one/*/artifact.json")).read_text())
    used = record["compute"]
    fits = used["precision"] == "bf16" and used["gpu"] == setting.gpu
    yield Row("end to end: stage one trained in", f"{used['precision']}, gpu {used['gpu']}", "as asked", fits)


CHECKS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "parity": parity,
    "throughput": throughput,
    "feeding": feeding,
    "clustering": clustering,
    "pipeline": pipeline,
}
