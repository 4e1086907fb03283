"""Threads that make the rows of a batch side by side, and items before they are asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def compute_alone() -> None:
    """Let torch use one thread in the calling one from here on; its default becomes one too, until it is set again."""
    torch.get_num_threads()  # the first question gives a thread the default, which would undo what was set before
    torch.set_num_threads(1)


class Pool:
    """Threads that make the rows of a batch side by side; each computes with one thread, so that cores are not shared.

    Decoding a JPEG and torch's operations let other threads run.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._like = threads, dict[Callable[..., Tensor], Tensor]()
        self._executor = ThreadPoolExecutor(threads, "dsol-rows") if threads > 1 else None
        if self._executor:
            own, together = torch.get_num_threads(), threading.Barrier(threads)

            def alone() -> None:
                compute_alone()
                together.wait()

            for future in [self._executor.submit(alone) for _ in range(threads)]:
                future.result()
            torch.set_num_threads(own)

    def stack(self, function: Callable[..., Tensor], calls: Sequence[tuple[Any, ...]]) -> Tensor:
        """Return `function(*call, out=row)` for each call, at least one, stacked in their order.

        The row is to be filled; it is None for the first call of a function, whose result tells what rows are like.
        """
        unknown = function not in self._like
        if unknown:
            (self._like[function],) = self._each([lambda: function(*calls[0], out=None)])
        like = self._like[function]
        rows = torch.empty_strided((len(calls), *like.shape), (like.numel(), *like.stride()), dtype=like.dtype)
        if unknown:
            rows[0] = like
        left = iter(range(int(unknown), len(calls)))  # shared: a thread takes the next row when it is through with one

        def work() -> None:
            for number in left:
                function(*calls[number], out=rows[number])

        self._each([work] * self._threads)
        return rows

    def _each(self, functions: Sequence[Callable[[], T]]) -> list[T]:
        if self._executor is None:
            return [function() for function in functions]
        return [future.result() for future in [self._executor.submit(function) for function in functions]]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor:
            self._executor.shutdown()


def ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Make items in a thread, `depth` ahead; an error there is raised here, an early end here ends the thread."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()
    end = object()

    def put(value: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(value, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(end)
        except Exception as error:
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (value := ready.get()) is not end:
            if isinstance(value, Exception):
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()
