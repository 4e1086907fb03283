"""In which numbers the trunks compute: float32, or bfloat16 where a GPU has it. Heads and losses stay in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Trunk(nn.Module):
    """A costly part of a network, whose convolutions may run in bfloat16. Takes and returns float32.

    Attributes:
        working: type of the convolutions under autocast (weights stay float32), or None: the inputs' own.
    """

    working: torch.dtype | None = None

    def autocast(self, inputs: Tensor) -> torch.autocast:
        """Return the context in which the work is to be done."""
        kind = inputs.device.type
        return torch.autocast(kind, self.working or torch.bfloat16, enabled=self.working is not None)

    def given_back(self, outputs: Tensor) -> Tensor:
        """Return the result as the rest of the network takes it."""
        return outputs if self.working is None else outputs.float()


def chosen(precision: str, device: Any) -> torch.dtype | None:
    """Return what the trunks are to compute in on a device: bfloat16, or None for float32.

    "auto" is bfloat16 on GPUs that have it in hardware and float32 elsewhere; "bf16" is bfloat16 anywhere.
    """
    if precision == "auto":
        on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if on_gpu else None
    return torch.bfloat16 if precision == "bf16" else None


def set_precision(net: nn.Module, working: torch.dtype | None) -> None:
    """Let all trunks of a network compute in a type; it is no part of its weights and is not saved."""
    for module in net.modules():
        if isinstance(module, Trunk):
            module.working = working


def compile_trunks(net: nn.Module, backend: str = "inductor") -> None:
    """Compile all trunks with `torch.compile`, in place: names of parameters and saved weights stay the same."""
    for module in net.modules():
        if isinstance(module, Trunk):
            module.compile(backend=backend)  # type: ignore[no-untyped-call]
