"""Batches on their way to a GPU: pinned memory and a stream of its own, so that copies overlap with the training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from dsol_core.types import AVBatch


def staged(batches: Iterator[AVBatch], device: Any) -> Iterator[AVBatch]:
    """Put batches on a GPU while the one before is trained on; give them on unchanged for a CPU.

    To be consumed by another thread than the one that trains (the loader's, which keeps a few batches ready): making
    and copying a batch then wait for nothing but their own stream. What is yielded is complete and may be used on the
    device's default stream.

    Args:
        batches: tensors of a batch may lie on the device already.
        device: of the worker.
    """
    if torch.device(device).type != "cuda":
        yield from batches
        return
    stream, training = torch.cuda.Stream(device), torch.cuda.default_stream(device)  # type: ignore[no-untyped-call]
    while True:
        with torch.cuda.stream(stream):
            batch = next(batches, None)
            if batch is None:
                return
            batch = copied(batch, device)
        stream.synchronize()
        for tensor in tensors(batch).values():
            tensor.record_stream(training)  # its memory is not given out again before the training is through with it
        yield batch


def copied(batch: AVBatch, device: Any) -> AVBatch:
    """Return a batch whose tensors are on a GPU, copied from pinned memory on the current stream."""

    def there(tensor: Tensor) -> Tensor:
        return tensor if tensor.is_cuda else tensor.pin_memory().to(device, non_blocking=True)

    moved: dict[str, Any] = {name: there(tensor) for name, tensor in tensors(batch).items()}
    return replace(batch, **moved)


def tensors(batch: AVBatch) -> dict[str, Tensor]:
    """Return the tensors of a batch by the names of their fields."""
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}
