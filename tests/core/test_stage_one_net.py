"""The network of stage one: shapes, what trains, and what a wrong input says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsol_core.stage_one_net import build_stage_one
from dsol_core.types import ShapeError
from tests.core.tiny_pairs import BINS, CHANNELS, OURS, PAPER, STEPS


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_stage_one(OURS)


def test_shapes_of_stage_one(net):
    pictures, mels = torch.randn(2, 3, 64, 64), torch.randn(2, 1, STEPS, BINS)
    out = net(pictures, mels, other=pictures, mixed=torch.randn(6, 1, STEPS, BINS))
    assert out.features.shape == (2, 16, 4, 4) and out.visual.shape == (2, 16, 4, 4)
    assert out.audio.shape == (2, 16) and out.map.shape == out.other_map.shape == (2, 4, 4)
    assert out.visual_logits.shape == out.audio_logits.shape == out.presence.shape == (2, 3)
    assert out.mixed_presence.shape == (6, 3) and out.prototypes.shape == (3, 16)
    torch.testing.assert_close(out.visual.norm(dim=1), torch.ones(2, 4, 4))
    torch.testing.assert_close(out.audio.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(out.map, torch.sigmoid(5 * torch.einsum("behw,be->bhw", out.visual, out.audio)))
    plain = net(pictures, mels)
    assert plain.other_map is None and plain.mixed_presence is None


def test_cached_features_give_the_same(net):
    net.eval()
    pictures, mels = torch.randn(2, 3, 64, 64), torch.randn(2, 1, STEPS, BINS)
    cached = net.trunk(pictures)
    assert cached.shape == (2, CHANNELS, 4, 4)
    torch.testing.assert_close(net(cached, mels, features=True).map, net(pictures, mels).map, atol=1e-5, rtol=1e-4)


def test_frozen_trunk_neither_trains_nor_counts(net):
    net.train()
    assert not net.trunk.training and net.adapter.training
    assert not any(p.requires_grad for p in net.trunk.parameters())
    paper = build_stage_one(replace(PAPER, backbone=replace(PAPER.backbone, frozen=False, adapter=0)))
    assert all(p.requires_grad for p in paper.trunk.parameters())
    assert paper.channels == CHANNELS and paper.train().trunk.training


def test_the_trunks_last_stages_train_and_the_cache_ends_before_them():
    torch.manual_seed(0)
    plain = build_stage_one(OURS).eval()
    torch.manual_seed(0)
    split = build_stage_one(replace(OURS, backbone=replace(OURS.backbone, trainable_blocks=1)))
    assert not any(one.requires_grad for one in split.trunk.parameters())
    assert all(one.requires_grad for one in split.upper.parameters()) and list(split.upper.parameters())
    assert not split.train().trunk.training and split.upper.training
    split.eval()
    pictures, mels = torch.randn(2, 3, 64, 64), torch.randn(2, 1, STEPS, BINS)
    cached = split.trunk(pictures)
    assert cached.shape == (2, split.trunk.channels, 4, 4) and split.trunk.channels != CHANNELS
    for out in (split(cached, mels, features=True), split(pictures, mels)):
        torch.testing.assert_close(out.map, plain(pictures, mels).map, atol=1e-5, rtol=1e-4)
    whole = plain.trunk(pictures)
    torch.testing.assert_close(split.whole_trunk(cached, features=True), whole, atol=1e-5, rtol=1e-4)


def test_each_recipe_trains_its_own_layers(net):
    assert net.presence.weight.requires_grad and net.prototypes.requires_grad
    assert not net.class_audio.weight.requires_grad
    paper = build_stage_one(PAPER)
    assert paper.class_audio.weight.requires_grad
    assert not paper.presence.weight.requires_grad and not paper.prototypes.requires_grad


def test_standardises_with_its_buffers(net):
    net.eval()
    mels = torch.randn(2, 1, STEPS, BINS)
    plain = net.hear(mels)[1]
    net.mel_mean.fill_(-3.0)
    net.mel_deviation.fill_(2.0)
    try:
        torch.testing.assert_close(net.hear(2 * mels - 3)[1], plain, atol=1e-5, rtol=1e-4)
    finally:
        net.mel_mean.zero_()
        net.mel_deviation.fill_(1.0)


def test_fresh_class_layers_come_from_the_seed(net):
    net.renew_class_layers(1)
    first = net.class_audio.weight.clone()
    net.renew_class_layers(2)
    assert not torch.equal(first, net.class_audio.weight)
    net.renew_class_layers(1)
    assert torch.equal(first, net.class_audio.weight) and net.class_audio.bias.abs().max() == 0
    assert first.std() == pytest.approx(0.01, rel=0.2)


def test_wrong_inputs_are_explained(net):
    with pytest.raises(ShapeError, match=rf"features \[B, {CHANNELS}, h, w\]"):
        net.see(torch.zeros(1, 3, 64, 64), features=True)
    with pytest.raises(ShapeError, match=r"frames \[B, 3, h, w\]"):
        net.see(torch.zeros(1, CHANNELS, 4, 4))
    with pytest.raises(ShapeError, match=rf"\[B, 1, T, {BINS}\]"):
        net.hear(torch.zeros(1, 1, STEPS, BINS + 1))


def test_what_a_sound_shows_of_the_tokens_is_added_to_its_vector():
    made = []
    for matching in ("contrastive", "tokens"):
        torch.manual_seed(0)
        made.append(build_stage_one(replace(OURS, matching=matching)).eval())
    mels, tokens = torch.randn(2, 1, STEPS, BINS), torch.nn.functional.normalize(made[1].prototypes, dim=1)
    (_, plain), (_, found) = (net.hear(mels) for net in made)
    shown = torch.softmax(plain @ tokens.T / OURS.prototype_temperature, 1)
    torch.testing.assert_close(found, torch.nn.functional.normalize(plain + shown @ tokens, dim=1))
