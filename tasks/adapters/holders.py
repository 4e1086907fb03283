"""Ray actors that keep something in memory and are asked together: data stay on the workers, answers travel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dsol_core.config import Compute
from tasks.adapters import cluster


class Holders:
    """One object an item, each made and kept by a Ray actor; satisfies `dsol_core.kmeans_parts.Parts`.

    A context manager: leaving it ends the actors and frees what they hold.
    """

    def __init__(
        self, make: Callable[[Any], Any], items: Iterable[Any], *, compute: Compute, cores: float = 1.0
    ) -> None:
        """Let each actor call `make(item)`.

        Args:
            make: importable on every node; runs where its object stays.
            items: such as paths of shards; one actor each, so give no more than the cluster has cores.
            compute: which cluster; `workers=0` keeps all objects in this process, without Ray.
            cores: CPU cores that an actor reserves.

        Raises:
            ClusterError: the cluster cannot hold so many actors at a time.
        """
        self._local: list[Any] = []
        self._actors: list[Any] = []
        chosen = list(items)
        if compute.workers == 0:
            self._local = [make(item) for item in chosen]
            return
        have = cluster.start(compute)
        if cores * len(chosen) > have:
            raise cluster.ClusterError(
                f"{len(chosen)} holders of {cores:g} cores asked for, the cluster has {have}; give fewer, larger items"
            )
        import ray

        threads = {"env_vars": {"OMP_NUM_THREADS": str(max(1, int(cores)))}}
        remote = ray.remote(num_cpus=cores, runtime_env=threads)(_Holder)
        self._actors = [remote.remote(make, item) for item in chosen]

    def ask(self, question: str, *arguments: Any) -> list[Any]:
        """Call the method of that name of every object at the same time; return the answers in the items' order.

        Raises:
            ClusterError: an actor was lost, and with it what it held.
            Exception: what the method, or `make`, raised there.
        """
        if not self._actors:
            return [getattr(one, question)(*arguments) for one in self._local]
        import ray

        try:
            return list(ray.get([actor.ask.remote(question, *arguments) for actor in self._actors]))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except ray.exceptions.RayActorError as error:
            raise cluster.ClusterError(
                f"a worker that held data was lost while it answered {question!r} ({error}); run the same command again"
            ) from error

    def __enter__(self) -> Holders:
        return self

    def __exit__(self, *_: object) -> None:
        """End the actors."""
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)
        self._actors, self._local = [], []


class _Holder:
    def __init__(self, make: Callable[[Any], Any], item: Any) -> None:
        self._object = make(item)

    def ask(self, question: str, *arguments: Any) -> Any:
        return getattr(self._object, question)(*arguments)
