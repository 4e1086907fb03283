"""One matching step in the reference's form, from its description (../shared/docs/method-and-benchmarks.md, 8.1-8.3).

A batch of B pairs is laid out as [positive, negative, positive, negative, ...]: 2B pictures, and each sound twice; all
of them go through both networks. float32, PyTorch's ordinary memory layout, Adam on everything but the class layers.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from dsol_core.stage_one_net import StageOneNet


class ReferenceStep:
    """The reference's network with the weights of ours, and its optimizer."""

    def __init__(self, net: StageOneNet, learning_rate: float = 1e-4, weight_decay: float = 1e-4) -> None:
        self.net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.net.trunk.requires_grad_(True)
        parts = [p for name, p in self.net.named_parameters() if not name.startswith("class_") and p.requires_grad]
        self.optimizer = torch.optim.Adam(parts, lr=learning_rate, weight_decay=weight_decay)

    def loss(self, pictures: Tensor, others: Tensor, log_mels: Tensor) -> Tensor:
        """Return the localisation loss of pictures and others [B, 3, H, W] with the sounds [B, 1, T, M]."""
        net = self.net
        images = torch.stack([pictures, others], 1).flatten(0, 1)
        sounds = log_mels.repeat_interleave(2, 0)
        targets = torch.tensor([1.0, 0.0], device=images.device).repeat(len(pictures))
        seen = net.trunk(images)
        heard = net.sound(sounds).amax((2, 3))
        cells = F.normalize(net.project_visual(seen), dim=1)
        voices = F.normalize(net.project_audio(heard), dim=1)
        cosines = (cells * voices[:, :, None, None]).sum(1)
        found = torch.sigmoid(net.scale * cosines).flatten(1).amax(1)
        net.class_visual(seen.mean((2, 3))), net.class_audio(heard)  # its forward gives them; this loss uses them not
        return F.binary_cross_entropy(found, targets)

    def __call__(self, pictures: Tensor, others: Tensor, log_mels: Tensor) -> float:
        """Make one step in training mode; return the loss before it."""
        self.net.train()
        self.optimizer.zero_grad()
        loss = self.loss(pictures, others, log_mels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())
