"""What the trainings of both stages share: optimizer, learning rate, a step, means of what it tells."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 0.2  # share of the steps in which a one-cycle learning rate rises


def make_optimizer(config: Any, named: Iterable[tuple[str, nn.Parameter]], block_rate: float) -> torch.optim.Optimizer:
    """Build the optimizer that a stage's config names.

    Args:
        config: of the stage.
        named: parameters by name; those that train are taken.
        block_rate: learning rate of the trunk's trained stages, as a share of that of all others.
    """
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    chosen = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    blocks = [parameter for name, parameter in chosen if "upper" in name.split(".")]
    others = [parameter for name, parameter in chosen if "upper" not in name.split(".")]
    groups = [{"params": others, "share": 1.0}] + ([{"params": blocks, "share": block_rate}] if blocks else [])
    fused = bool(chosen) and all(parameter.is_cuda for _, parameter in chosen)  # one kernel for all of them
    return kind(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused or None)


def learning_rate(config: Any, step: int, steps: int, peak: float | None = None) -> float:
    """Return the rate of a step: constant, or one cycle (cosine up from 1/25 in the first fifth, cosine down to 0)."""
    peak = float(config.learning_rate) if peak is None else peak
    if config.schedule == "constant":
        return peak
    done = min(1.0, step / steps)
    if done < WARM_UP:
        return peak * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / WARM_UP)) / 2)
    return peak * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def update(
    state: Any,
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Tensor,
    out: Sequence[Tensor | None],
    idle: Sequence[str],
    rate: float,
) -> None:
    """Make one step at a learning rate. Parameters under the names in `idle` took no part in it and stay as they are.

    Every output enters the graph with factor 0, since data-parallel wrappers wait for the gradient of each.
    """
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    whole = loss + sum((0.0 * t.sum() for t in out if t is not None and t.requires_grad), loss.new_zeros(()))
    whole.backward()  # type: ignore[no-untyped-call]
    for name, parameter in state.net.named_parameters():
        if name.startswith(tuple(idle)):
            parameter.grad = None
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["share"]
    for optimizer in optimizers:
        optimizer.step()
    state.step += 1


class Means:
    """Means of named numbers. Scalars of a GPU stay there until `result`, so that no step waits for one."""

    def __init__(self) -> None:
        self.values: dict[str, list[float | Tensor]] = defaultdict(list)

    def add(self, numbers: Mapping[str, float | Tensor]) -> None:
        """Add one observation of each; of a tensor, its value without its history."""
        for name, number in numbers.items():
            self.values[name].append(number.detach() if isinstance(number, Tensor) else number)

    def result(self) -> dict[str, float]:
        """Return the means."""
        return {name: sum(map(float, numbers)) / len(numbers) for name, numbers in self.values.items()}
