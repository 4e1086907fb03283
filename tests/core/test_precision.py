"""Trunks in bfloat16: close to float32, float32 outside, weights and gradients stay float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsol_core import precision, stage_one
from dsol_core.backbones import build_audio
from dsol_core.config import BackboneConfig, Compute
from dsol_core.stage_one_net import build_stage_one
from dsol_core.stage_two_net import build_stage_two
from dsol_core.types import DataError, LocalWorker

from .tiny_pairs import OURS, OURS_TWO, TinyPairs


def pictures_and_sounds():
    batch = next(iter(TinyPairs(OURS).train(0, 0)))
    return batch.visual, batch.log_mels


def test_trunks_compute_in_bfloat16_and_give_float32():
    torch.manual_seed(0)
    net = build_stage_one(OURS)
    visual, sounds = pictures_and_sounds()
    exact = net(visual, sounds, features=True)
    seen: list[torch.dtype] = []
    net.adapter.main[0].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    precision.set_precision(net, torch.bfloat16)
    rough = net(visual, sounds, features=True)
    assert seen == [torch.bfloat16]
    for name, one, other in zip(exact._fields, exact, rough, strict=True):
        if one is not None:
            assert other.dtype == torch.float32, name
    error = (exact.map - rough.map).abs().max()
    assert 0 < error < 0.03, "bfloat16 has 8 bits; a cosine of 1 is 5 inside the sigmoid"
    precision.set_precision(net, None)
    assert torch.equal(net(visual, sounds, features=True).map, exact.map)


def test_weights_and_gradients_stay_float32():
    torch.manual_seed(0)
    trunk = build_audio(BackboneConfig())
    sounds = torch.randn(2, 1, 33, 64)
    gradients = []
    for working in (None, torch.bfloat16):
        precision.set_precision(trunk, working)
        trunk.zero_grad()
        trunk(sounds).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trunk.parameters()]))
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in trunk.parameters())
    cosine = torch.cosine_similarity(*gradients, dim=0)
    assert 0.96 < cosine < 1, "in 8 bits some units change sides of their ReLU"


@torch.backends.mkldnn.flags(enabled=False)  # as training on CPUs does in bfloat16: see trainer.py
def test_a_step_in_bfloat16_gives_nearly_the_same_loss():
    figures = []
    for working in (None, torch.bfloat16):
        state = stage_one.start(replace(OURS, first_labels="none"), 8, 0, LocalWorker())
        precision.set_precision(state.net, working)
        figures.append(stage_one.train_epoch(state, TinyPairs(OURS), None, LocalWorker())["matching"])
    assert figures[0] != figures[1]
    assert figures[1] == pytest.approx(figures[0], rel=0.05)


def test_a_copy_keeps_the_precision_and_saved_weights_do_not_hold_it():
    net = build_stage_one(OURS)
    names = list(net.state_dict())
    precision.set_precision(net, torch.bfloat16)
    copied = build_stage_two(OURS_TWO, net, torch.zeros(OURS.clusters, OURS.backbone.embedding)).stage_one
    assert copied.sound.working == copied.adapter.working == torch.bfloat16
    assert list(net.state_dict()) == names


@pytest.mark.parametrize(
    ("wanted", "device", "expected"),
    [("auto", "cpu", None), ("fp32", "cpu", None), ("bf16", "cpu", torch.bfloat16), ("fp32", "cuda:0", None)],
)
def test_what_is_chosen(wanted, device, expected):
    assert precision.chosen(wanted, device) == expected


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_asks_the_gpu(monkeypatch, has, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert precision.chosen("auto", "cuda:0") == expected


def test_an_unknown_precision_is_refused():
    with pytest.raises(DataError, match="'fp16'; expected one of auto, fp32, bf16"):
        Compute(precision="fp16")


def test_the_optimizer_is_fused_on_a_gpu_only():
    state = stage_one.start(OURS, 1, 0, LocalWorker())
    assert not state.optimizer.param_groups[0]["fused"]


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_that_on_a_cpu():
    figures = []
    for device in ("cpu", "cuda"):
        worker = LocalWorker(device=device)
        state = stage_one.start(replace(OURS, first_labels="none"), 8, 0, worker)
        assert bool(state.optimizer.param_groups[0]["fused"]) == (device == "cuda")
        figures.append(stage_one.train_epoch(state, TinyPairs(OURS), None, worker)["matching"])
    assert figures[1] == pytest.approx(figures[0], rel=0.01)


@pytest.mark.slow  # also with the backend that only traces; inductor takes minutes on a CPU
def test_compiled_trunks_keep_names_and_values():
    torch.manual_seed(0)
    net = build_stage_one(OURS).eval()
    visual, sounds = pictures_and_sounds()
    names, exact = list(net.state_dict()), net(visual, sounds, features=True)
    precision.compile_trunks(net, backend="eager")
    precision.set_precision(net, torch.bfloat16)
    compiled = net(visual, sounds, features=True)
    assert list(net.state_dict()) == names
    assert net.adapter._compiled_call_impl is not None
    assert 0 < (compiled.map - exact.map).abs().max() < 0.03
    precision.set_precision(net, None)
    torch.testing.assert_close(net(visual, sounds, features=True).map, exact.map, rtol=1e-4, atol=1e-4)
