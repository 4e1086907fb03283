"""Data-parallel training with Ray Train: workers, checkpoints, messages, failures. Owner of ray.train."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dsol_core.config import Compute
from dsol_core.types import DataError, DsolError
from tasks.adapters import cluster, transport
from tasks.adapters.cluster import ClusterError


class TrainWorker:
    """A training worker: satisfies `dsol_core.types.Worker`, reports epochs and hands back the last checkpoint.

    Without Ray (`local`) it keeps its checkpoints in the storage folder itself, so that loops resume in tests too.
    """

    def __init__(self, storage: Path, *, local: bool, compute: Compute | None = None, mail: Any = None) -> None:
        self._storage, self._local, self._last, self._mail = storage, local, 0.0, mail
        self._compute = compute or Compute()
        self.rank, self.world_size = 0, 1
        self.device: Any = "cuda" if self._compute.gpu else "cpu"
        if not local:
            import ray.train
            import ray.train.torch

            context = ray.train.get_context()
            self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
            self.device = ray.train.torch.get_device()

    def wrap(self, module: Any) -> Any:
        """Return the module on its device, its trunks in the run's precision, in DDP when there are several workers."""
        import torch

        from dsol_core import precision

        working = precision.chosen(self._compute.precision, self.device)
        # oneDNN's bfloat16 convolutions read memory that nobody wrote, at times NaN.
        torch.backends.mkldnn.enabled = not (working and torch.device(self.device).type == "cpu")  # type: ignore[assignment]
        precision.set_precision(module, working)
        if self._compute.compiled:
            precision.compile_trunks(module)
        if self.world_size == 1:
            return module.to(self.device)
        import ray.train.torch

        return ray.train.torch.prepare_model(module, parallel_strategy_kwargs={"find_unused_parameters": True})

    def gather(self, tensor: Any) -> Any:
        """Concatenate the workers' rows, differentiably."""
        if self.world_size == 1:
            return tensor
        import torch
        from torch.distributed.nn.functional import all_gather

        rows: Any = all_gather(tensor.contiguous())  # type: ignore[no-untyped-call]
        return torch.cat(list(rows))

    def gather_objects(self, value: Any) -> list[Any]:
        """Give every worker the list of all workers' values, in rank order."""
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def share(self, make: Callable[[], Any]) -> Any:
        """Call `make` on rank 0 only and give every worker its result."""
        if self.world_size == 1:
            return make()
        import torch.distributed as dist

        values = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextmanager
    def resume(self) -> Iterator[Path | None]:
        """Give the folder of the last checkpoint, or None at the first start; a copy of it goes with the context."""
        if self._local:
            yield self.kept()
            return
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        with checkpoint.as_directory() if checkpoint else nullcontext() as folder:
            yield Path(folder) if folder else None

    def kept(self) -> Path | None:
        """Return the folder of the last checkpoint of a training without Ray, or None."""
        found = sorted(self._storage.glob("epoch-*/done"))
        return found[-1].parent if found else None

    def report(self, epoch: int, figures: Mapping[str, float], save: Callable[[Path], None]) -> None:
        """Finish an epoch on every worker: rank 0 saves a checkpoint, all of them wait for each other.

        They wait for Ray's controller too. It learns of a checkpoint by asking the workers, and an answer on its way
        is lost with a worker that dies then: the training would go on from an older epoch than the one it finished.
        """
        name = f"epoch-{epoch:05d}"
        if self._local:
            folder = self._storage / name
            folder.mkdir(parents=True, exist_ok=True)
            save(folder)
            (folder / "done").touch()
        else:
            import tempfile

            import ray.train

            with tempfile.TemporaryDirectory() as folder_name:
                checkpoint = None
                if self.rank == 0:
                    save(Path(folder_name))
                    checkpoint = ray.train.Checkpoint.from_directory(folder_name)
                ray.train.report(dict(figures), checkpoint=checkpoint, checkpoint_dir_name=name)
            ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)
        self.tell({"epoch": epoch, "figures": dict(figures)})

    def progress(self, done: float, total: float, text: str) -> None:
        """Tell the driver how far training is."""
        if time.monotonic() - self._last >= 0.5:
            self._last = time.monotonic()
            self.tell({"done": done, "total": total, "text": text})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to the driver; only rank 0 speaks."""
        if self.rank == 0 and self._mail is not None:
            self._mail.put(dict(message))
        elif self.rank == 0:
            with (self._storage / "messages.jsonl").open("a") as file:
                file.write(json.dumps(message) + "\n")


def fit(
    loop: Callable[[dict[str, Any], TrainWorker], None],
    config: dict[str, Any],
    *,
    compute: Compute,
    name: str,
    storage: Path,
    on_message: Callable[[dict[str, Any]], None],
) -> Path:
    """Run a training loop on `compute.workers` workers and return the folder of its last checkpoint.

    The same `name` and `storage` continue from the last checkpoint of a run that was killed; a worker that dies is
    restarted from it too, twice at most. `compute.workers == 0` runs the loop in this process, without Ray.

    Args:
        loop: module-level function; calls `worker.report` once an epoch on every worker.
        config: handed to the loop; picklable.
        compute: cluster and number of workers.
        name: of the training, such as "stage-one"; it need not tell one run from another, as `storage` does.
        storage: folder of this training alone (its path holds the step's fingerprint) that every node sees, or one in
            the cache of a store of objects: on a cluster, checkpoints then lie in that store and messages come through
            Ray.
        on_message: called in this process with {"epoch", "figures"} and {"done", "total", "text"}
            and with whatever else the loop tells.

    Raises:
        ClusterError: the workers failed more often than they may.
        DataError: more workers are asked for than the cluster has cores (or GPUs).
    """
    storage.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    waiting = [True]

    def hear(message: dict[str, Any]) -> None:
        if waiting:
            waiting.clear()
            cluster.startup["ray_train"] = cluster.startup.get("ray_train", 0.0) + time.perf_counter() - began
        on_message(message)

    if compute.address and transport.store_of(storage):
        cluster.start(compute)
        with _Mail(hear) as mail:
            return _fit_on_ray(loop, config, compute, name, storage, mail)
    with _Messages(storage / "messages.jsonl", hear):
        if compute.workers == 0:
            worker = TrainWorker(storage, local=True, compute=compute)
            loop(config, worker)
            return worker.kept() or storage
        return _fit_on_ray(loop, config, compute, name, storage)


def _fit_on_ray(
    loop: Callable[[dict[str, Any], TrainWorker], None],
    config: dict[str, Any],
    compute: Compute,
    name: str,
    storage: Path,
    mail: Any = None,
) -> Path:
    cores = cluster.start(compute)
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    have = cluster.resources().get("GPU", 0) if compute.gpu else cores
    if compute.workers > have:
        raise DataError(
            f"{compute.workers} workers asked for, the cluster has {have:g} {'GPUs' if compute.gpu else 'CPU cores'}; "
            "give fewer --workers or a larger cluster with --address"
        )
    threads = cluster.threads_each(compute.workers, compute.gpu)
    settings = {"loop": loop, "storage": str(storage), "threads": threads, "compute": compute, "mail": mail}
    place, system = str(storage.resolve()), None
    if mail is not None and (store := transport.store_of(storage)):  # the nodes share nothing but the store
        system, prefix = store.objects.filesystem()
        place = f"{prefix}/{store.shared(str(storage.relative_to(store.root)))}"
    trainer = TorchTrainer(
        _loop_on_ray,
        train_loop_config={**settings, "config": transport.pack(config) if mail is not None else config},
        torch_config=TorchConfig(backend="nccl" if compute.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpu,
            resources_per_worker=None if compute.gpu else {"CPU": 1},
            placement_strategy="PACK" if compute.gpu else "SPREAD",  # a worker computes with several cores
        ),
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=place,
            storage_filesystem=system,
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=[_no_retry()],
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        if own := _own_error([error]):
            raise own from None
        raise ClusterError(f"training failed on its workers: {error}") from error
    if result.checkpoint is None:
        raise ClusterError(f"training {name} ended without a checkpoint in {storage}; see Ray's logs")
    last = Path(result.checkpoint.path)
    return last if last.is_dir() else Path(result.checkpoint.to_directory(str(storage / "last")))


def _no_retry() -> Any:
    """Return a callback that ends a training at once when a worker raised an error of dsol's own.

    Such an error comes back in every try; deaths of workers and nodes are left to `FailureConfig`.
    """
    from ray.train import UserCallback

    class NoRetry(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            if own := _own_error(worker_exceptions.values()):
                raise own  # in Ray's controller, which does not try again after an error of a callback

    return NoRetry()


def _own_error(errors: Iterable[object]) -> DsolError | None:
    """Return the first error of dsol's own among errors and what they wrap; Ray wraps several times."""
    todo = list(errors)
    while todo:
        error = todo.pop(0)
        if isinstance(error, DsolError):
            return error
        inner = [getattr(error, name, None) for name in ("cause", "_base_exc", "controller_failure", "__cause__")]
        inner += getattr(error, "worker_failures", {}).values()
        todo += [one for one in inner if one is not None]
    return None


def _loop_on_ray(settings: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(settings["threads"])
    worker = TrainWorker(Path(settings["storage"]), local=False, compute=settings["compute"], mail=settings["mail"])
    worker.progress(0, 1, "starting")
    config = settings["config"]
    settings["loop"](transport.Desk().unpack(config) if settings["mail"] is not None else config, worker)


class _Messages:
    """Follows the file in which rank 0 tells its progress, from another thread."""

    def __init__(self, path: Path, listener: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._listener, self._stop = path, listener, Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._path.write_text("")  # what an earlier try said has been heard
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        with self._path.open() as file:
            last, line = False, ""
            while True:
                line += file.readline()
                if line.endswith("\n"):
                    self._listener(json.loads(line))
                    line = ""  # else it was read while it was being written: its rest follows
                elif last:
                    return
                else:
                    last = self._stop.wait(0.3)


class _Mail:
    """The same for workers that see no file of ours: a queue of Ray's, in an actor beside the driver."""

    def __init__(self, listener: Callable[[dict[str, Any]], None]) -> None:
        self._listener, self._stop = listener, Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Any:
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()  # outlives the workers' nodes; a soft wish for it is not heard
        here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._thread.start()
        return self._queue

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._queue.shutdown()

    def _follow(self) -> None:
        last = False
        while True:
            waiting = self._queue.qsize()
            for message in self._queue.get_nowait_batch(waiting) if waiting else []:
                self._listener(message)
            if last:
                return
            last = self._stop.wait(0.3)
