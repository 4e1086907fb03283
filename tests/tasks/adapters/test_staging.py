"""Batches on their way to a GPU: unchanged for a CPU; on a GPU complete, equal, and made on a stream of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dsol_core.types import AVBatch
from tasks.adapters import staging


def batches(count: int) -> Iterator[AVBatch]:
    for number in range(count):
        keys = (f"{number}-a", f"{number}-b")
        visual, mels = torch.full((2, 3, 4, 4), float(number)), torch.full((2, 1, 5, 6), float(number))
        yield AVBatch(keys, keys, keys, keys, visual, mels, mixed=mels * 2 if number % 2 else None)


def test_a_cpu_gets_the_very_batches_as_they_are_made():
    made: list[AVBatch] = []

    def noted() -> Iterator[AVBatch]:
        for batch in batches(3):
            made.append(batch)
            yield batch

    stream = staging.staged(noted(), "cpu")
    assert next(stream) is made[0] and len(made) == 1
    assert [one is other for one, other in zip(list(stream), made[1:], strict=True)] == [True, True]


def test_tensors_are_found_by_their_fields():
    first, second = batches(2)
    assert set(staging.tensors(first)) == {"visual", "log_mels"}
    assert set(staging.tensors(replace(second, other=second.visual))) == {"visual", "log_mels", "other", "mixed"}


@pytest.mark.gpu
def test_a_gpu_gets_equal_batches_while_it_computes():
    expected = list(batches(8))
    got = []
    for batch in staging.staged(batches(8), "cuda"):
        torch.cuda._sleep(1_000_000)  # the training's stream is busy
        assert all(tensor.is_cuda for tensor in staging.tensors(batch).values())
        got.append({name: tensor.clone() for name, tensor in staging.tensors(batch).items()})
        assert batch.keys == expected[len(got) - 1].keys
    for one, other in zip(got, expected, strict=True):
        for name, tensor in staging.tensors(other).items():
            assert torch.equal(one[name].cpu(), tensor), name
