"""The network of stage two: a copy of stage one around a dictionary, and what of it trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsol_core.config import StageTwoConfig
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import StageTwoNet, build_stage_two
from dsol_core.types import CheckpointError
from tests.core.tiny_pairs import BINS, CHANNELS, OURS, STEPS


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_stage_one(OURS)


def test_stage_two_is_a_copy(net):
    second = build_stage_two(StageTwoConfig(), net, torch.randn(3, 16))
    assert second.stage_one is not net and second.dictionary.shape == (3, 16)
    out = second(torch.randn(2, CHANNELS, 4, 4), torch.randn(2, 1, STEPS, BINS), features=True)
    assert out.class_maps.shape == out.gated.shape == (2, 3, 4, 4) and out.presence.shape == (2, 3)
    assert net.project_visual[0].weight.requires_grad
    assert not second.stage_one.project_visual[0].weight.requires_grad


@pytest.mark.parametrize("shape", [(4, 16), (3, 15)])
def test_dictionary_must_fit(net, shape):
    with pytest.raises(CheckpointError, match=r"\(3, 16\)"):
        StageTwoNet(StageTwoConfig(), net, torch.zeros(shape))


@pytest.mark.parametrize("freeze", [True, False])
def test_a_fixed_picture_branch_keeps_its_batch_statistics(freeze):
    first = build_stage_one(replace(OURS, backbone=replace(OURS.backbone, norm="batch", frozen=False)))
    second = build_stage_two(StageTwoConfig(freeze_visual=freeze), first, torch.randn(first.config.clusters, 16))
    before = {name: one.clone() for name, one in second.named_buffers() if name.endswith("running_mean")}
    second.train()(torch.randn(2, 3, 64, 64), torch.randn(2, 1, STEPS, BINS))
    moved = {
        name.split(".")[1] for name, one in second.named_buffers() if name in before and (one != before[name]).any()
    }
    assert moved == ({"sound"} if freeze else {"sound", "trunk", "adapter"})


@pytest.mark.parametrize("freeze", [True, False])
def test_the_trunks_last_stages_are_fixed_with_the_picture_branch(freeze):
    split = build_stage_one(replace(OURS, backbone=replace(OURS.backbone, trainable_blocks=1)))
    second = build_stage_two(StageTwoConfig(freeze_visual=freeze), split, torch.randn(3, 16))
    assert list(second.stage_one.upper.parameters())
    assert all(one.requires_grad is not freeze for one in second.stage_one.upper.parameters())
    assert not any(one.requires_grad for one in second.stage_one.trunk.parameters())
