"""Workers that are threads of this process, for what only gathers objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsol_core.kmeans_parts import LocalParts, Part, fit
from dsol_core.types import LocalWorker


class _Group:
    def __init__(self, world: int) -> None:
        self.values: list[Any] = [None] * world
        self.barrier = threading.Barrier(world)


@dataclass
class ThreadWorker(LocalWorker):
    group: Any = None

    def gather_objects(self, value: Any) -> list[Any]:
        self.group.values[self.rank] = value
        self.group.barrier.wait(60)
        found = list(self.group.values)
        self.group.barrier.wait(60)
        return found

    def share(self, make: Callable[[], Any]) -> Any:
        return self.gather_objects(make() if self.rank == 0 else None)[0]


class PartsKMeans:
    """Satisfies `dsol_core.dictionary.KMeans` with all points in one part: what any number of parts must equal."""

    def fit(self, x: Any, k: int, seed: int, *, spherical: bool = False, restarts: int = 1) -> tuple[Any, Any]:
        """See `KMeans.fit`."""
        part = Part(x, np.arange(len(x)))
        centers, _ = fit(LocalParts([part]), k, seed, spherical=spherical, restarts=restarts)
        return centers, part.labels


def on_workers(world: int, work: Callable[[ThreadWorker], Any]) -> list[Any]:
    """Return what `work` gives on each of `world` workers."""
    group, found = _Group(world), [None] * world

    def one(rank: int) -> None:
        try:
            found[rank] = work(ThreadWorker(rank=rank, world_size=world, group=group))
        except BaseException as error:
            found[rank] = error  # type: ignore[call-overload]
            group.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [
        one for one in found if isinstance(one, BaseException) and not isinstance(one, threading.BrokenBarrierError)
    ]
    if failed:
        raise failed[0]
    return found
