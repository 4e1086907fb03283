"""Ray: a cluster of this machine or one that runs, and many small tasks with bounded backpressure. Owner of ray."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dsol_core.config import Compute
from dsol_core.types import DsolError
from tasks.adapters import transport

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

SETTINGS = {  # set before Ray starts, unless the user has set them
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # an epoch waits this long; Ray's default is 2
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MALLOC_ARENA_MAX": "2",  # or each loader thread of each epoch keeps memory of its own
}
startup: dict[str, float] = {}  # seconds that starting or joining a cluster and starting its trainings took here


_NO_CLUSTER = (
    "no Ray cluster answers at {address!r} ({error}); expected auto, ray://host:10001 or host:6379; start one with "
    "`ray start --head`, or leave --address out to run on this machine"
)


class ClusterError(DsolError):
    """A cluster that cannot be reached or a training that its failure ended."""


def start(compute: Compute) -> int:
    """Start Ray on this machine, or join the cluster of `compute.address`, once a process; return its CPU cores.

    Raises:
        ClusterError: there is no cluster at the address.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # this machine is not taken away node by node; a process less for each training
    _set_where(not compute.address, "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    _check_address(compute.address)
    _use_token(compute.address)
    import ray

    if not ray.is_initialized():
        began = time.perf_counter()
        where: dict[str, Any] = (
            {"address": compute.address}
            if compute.address
            else {
                "address": "local",
                "num_cpus": len(os.sched_getaffinity(0)),
                "include_dashboard": False,
                # finished workers end soon and free their memory, a gigabyte each where they used torch; a second lets
                # the next data step have the last one's, whose start costs a core about as long
                "_system_config": {"num_workers_soft_limit": 0, "idle_worker_killing_time_threshold_ms": 1000},
            }
        )
        _init(where, compute.address)
        startup["ray"] = time.perf_counter() - began
    return int(resources().get("CPU", 1))


def _init(where: Mapping[str, Any], address: str | None) -> None:
    """Call `ray.init`; a machine too busy to start Ray within its fixed 30 s gets another try."""
    import ray

    for last in (False, True):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
            return
        except (ConnectionError, RuntimeError, ValueError) as error:
            _use_token(None)
            raise ClusterError(_NO_CLUSTER.format(address=address, error=error)) from error
        except Exception as error:  # Ray raises a plain one here
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if last:
                raise ClusterError(
                    f"Ray did not start on this machine in two tries of 30 s ({error}); end other jobs here, or give "
                    "the --address of a running cluster"
                ) from error
            logger.warning("Ray did not start within 30 s; this machine is busy, trying once more")


def _check_address(address: str | None, timeout: float = 5.0) -> None:
    """Find out at once that nobody listens; Ray itself tries for more than three minutes."""
    place = (address or "auto").removeprefix("ray://")
    host, colon, port = place.rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except OSError as error:
        raise ClusterError(_NO_CLUSTER.format(address=address, error=error)) from error


_CALLS = 50  # tasks of a process that holds a GPU; Ray's own choice is a new process for each
_set_here: dict[str, str] = {}  # environment variables that this process, not the user, set for one kind of cluster


def _set_where(wanted: bool, name: str, value: str) -> None:
    """Set an environment variable where it is wanted and the user has not; take our own back where it is not."""
    if wanted and name not in os.environ:
        os.environ[name] = _set_here[name] = value
    elif not wanted and name in _set_here and os.environ.get(name) == _set_here.pop(name):
        del os.environ[name]


def _use_token(address: str | None) -> None:
    """Send Ray's token to a cluster where this user has one; a driver does not by itself, and is then refused.

    For a cluster of this process' own it is taken back: its server would ask for a token that the driver, which reads
    the setting once, does not send.
    """
    own = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    _set_where(bool(address) and own.is_file(), "RAY_AUTH_MODE", "token")


def resources() -> dict[str, float]:
    """Return what the started cluster has, such as {"CPU": 2.0}."""
    import ray

    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def threads_each(workers: int, gpu: bool) -> int:
    """Return with how many threads each of some training workers may compute, wherever in the cluster they are put.

    Workers without GPU are spread over the nodes, those with one fill the nodes that have some. One number for all: the
    smallest node's, so that a training goes on with equal bits when it has lost a node.
    """
    import ray

    wanted = "GPU" if gpu else "CPU"
    alive: list[Any] = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    able = [node for node in alive if node.get(wanted, 0) >= 1]
    at_once = [min(workers, node["GPU"]) if gpu else -(-workers // len(able)) for node in able]
    shares = [int(node.get("CPU", 1) // many) for node, many in zip(able, at_once, strict=True)]
    return max(1, min(shares, default=1))


def stop() -> None:
    """End this process' Ray, if it has one."""
    import sys

    if "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            ray.shutdown()


def map_tasks(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    compute: Compute,
    in_flight: int | None = None,
    threads: int = 1,
    gpus: float = 0.0,
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in the items' order, computed by Ray tasks.

    At most `in_flight` tasks are submitted and not yet consumed, so that neither the items nor the results pile up.
    On a cluster with a store of objects, the machines share nothing else: see `transport`.

    Args:
        function: importable on every node (module level).
        items: consumed lazily.
        compute: which cluster; `workers=0` calls the function in this process.
        in_flight: default twice the cluster's cores.
        threads: CPU cores of a task, also the limit of its native threads.
        gpus: share of a GPU that a task takes. Its process does some others before it gives the GPU's memory back.

    Raises:
        ClusterError: there is no such cluster, or no GPU in it where the tasks want one.
    """
    if compute.workers == 0:
        yield from map(function, items)
        return
    cores = start(compute)
    if gpus and not resources().get("GPU"):
        raise ClusterError("a GPU was asked for, the cluster has none; leave out --gpu or give a cluster that has one")
    import ray

    limited = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
    away = bool(compute.address) and transport.active()
    taken: dict[str, Any] = {"num_gpus": gpus, "max_calls": _CALLS} if gpus else {}
    remote: Any = ray.remote(num_cpus=threads, runtime_env=limited, **taken)(transport.call if away else function)
    waiting: deque[Any] = deque()
    limit = in_flight or 2 * max(1, cores // threads)
    try:
        for item in items:
            waiting.append(remote.remote(function, transport.pack(item)) if away else remote.remote(item))
            if len(waiting) >= limit:
                yield _result(waiting.popleft(), away)
        while waiting:
            yield _result(waiting.popleft(), away)
    finally:
        for reference in waiting:
            ray.cancel(reference)


def _result(reference: Any, away: bool) -> Any:
    import ray

    try:
        return transport.receive(ray.get(reference)) if away else ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
