"""Trunks: the paper's shapes, weight files by name and in order, normalisation."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dsol_core import backbones
from dsol_core.config import BackboneConfig, StageOneConfig
from dsol_core.stage_one_net import build_stage_one
from dsol_core.types import CheckpointError, DataError

PAPER = BackboneConfig(visual="resnet18", visual_stage="last", frozen=False, norm="batch", audio="resnet18")


def test_shapes_of_the_paper():
    """Method document, 8.2: 512 x 14 x 14 and 512 x 13 x 4, no dilation."""
    visual, audio = backbones.build_visual(PAPER), backbones.build_audio(PAPER)
    assert visual.channels == audio.channels == 512
    with torch.no_grad():
        assert visual(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 14, 14)
        assert audio(torch.zeros(1, 1, 201, 64)).shape == (1, 512, 13, 4)
    for trunk in (visual, audio):
        assert all(m.dilation == (1, 1) for m in trunk.modules() if isinstance(m, nn.Conv2d))


def test_shapes_of_ours():
    visual, audio = backbones.build_visual(BackboneConfig()), backbones.build_audio(BackboneConfig())
    with torch.no_grad():
        assert visual(torch.zeros(1, 3, 128, 128)).shape == (1, 112, 8, 8)
        assert audio(torch.zeros(2, 1, 101, 64)).shape[:2] == (2, audio.channels)
    assert visual.channels == 112
    # Stages behind the used one are gone.
    assert not any("blocks.5" in name for name, _ in visual.named_parameters())


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(1)
    return timm.create_model("tf_efficientnet_lite0", pretrained=False)


def same(trunk, classifier):
    own, all_ = trunk.network.state_dict(), classifier.state_dict()
    return all(torch.equal(tensor, all_[name]) for name, tensor in own.items())


def test_weights_by_name_and_in_order(tmp_path, classifier):
    weights = classifier.state_dict()
    save_file(weights, tmp_path / "named.safetensors")
    torch.save({f"_{i}": tensor for i, tensor in enumerate(weights.values())}, tmp_path / "ordered.pth")
    for name in ("named.safetensors", "ordered.pth"):
        assert same(backbones.build_visual(BackboneConfig(), tmp_path / name), classifier)
    assert not same(backbones.build_visual(BackboneConfig()), classifier)


def test_foreign_weights_are_refused(tmp_path, classifier):
    weights = list(classifier.state_dict().values())
    torch.save({f"_{i}": t for i, t in enumerate(weights[:-1])}, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match="neither by name nor in order"):
        backbones.build_visual(BackboneConfig(), tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        backbones.build_visual(BackboneConfig(), tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        backbones.build_visual(BackboneConfig(), tmp_path / "text.pth")


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_weights_cannot_execute(tmp_path, capsys):
    torch.save({"x": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        backbones.build_visual(BackboneConfig(), tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def test_unknown_network_or_stride():
    with pytest.raises(DataError, match="nonesuch"):
        backbones.build_visual(BackboneConfig(visual="nonesuch"))
    with pytest.raises(DataError, match="none of 10"):
        backbones.build_visual(BackboneConfig(visual="resnet18", visual_stride=10))


def test_normalisation_is_the_chosen_one():
    def kinds(trunk):
        return {type(m).__name__ for m in trunk.modules() if "Norm" in type(m).__name__}

    assert kinds(backbones.build_audio(BackboneConfig(norm="group"))) == {"GroupNorm"}
    assert kinds(backbones.build_audio(BackboneConfig(norm="batch"))) == {"BatchNorm2d"}


def test_group_keeps_the_loaded_statistics_of_pictures():
    fixed = backbones.build_visual(BackboneConfig(visual="resnet18", frozen=False, norm="group")).train()
    moving = backbones.build_visual(BackboneConfig(visual="resnet18", frozen=False, norm="batch")).train()
    for trunk, changes in ((fixed, False), (moving, True)):
        before = trunk.network.bn1.running_mean.clone()
        trunk(torch.randn(2, 3, 64, 64))
        assert torch.equal(before, trunk.network.bn1.running_mean) is not changes


@pytest.mark.parametrize(("visual", "channels"), [("tf_efficientnet_lite0", 80), ("resnet10t", 128)])
def test_a_split_trunk_does_what_the_whole_one_did(visual, channels):
    whole = backbones.build_visual(BackboneConfig(visual=visual)).eval()
    lower, upper = (part.eval() for part in backbones.split(whole, 1))
    pictures = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        between = lower(pictures)
        torch.testing.assert_close(upper(between), whole(pictures))
    assert (lower.channels, upper.channels) == (between.shape[1], whole.channels) == (channels, whole.channels)


def test_the_upper_part_keeps_the_rule_of_statistics():
    for norm, changes in (("group", False), ("batch", True)):
        _, upper = backbones.split(backbones.build_visual(BackboneConfig(visual="resnet18", norm=norm)), 1)
        statistics = next(m for m in upper.train().modules() if isinstance(m, nn.BatchNorm2d)).running_mean
        before = statistics.clone()
        upper(torch.randn(2, 128, 8, 8))
        assert torch.equal(before, statistics) is not changes


def test_a_trunk_without_a_first_part_is_refused():
    with pytest.raises(DataError, match="trainable_blocks is 7; expected fewer than the trunk's 7 stages"):
        backbones.split(backbones.build_visual(BackboneConfig(visual="resnet10t")), 7)


def test_a_sound_trunk_from_the_picture_trunks_weights(tmp_path, classifier):
    """It answers to a spectrogram as the picture network does to a picture that is the spectrogram in every colour."""
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    cfg = BackboneConfig(audio="visual")
    trunk = backbones.build_audio(cfg, tmp_path / "weights.safetensors").train()
    sounds = torch.randn(2, 1, 101, 64, generator=torch.Generator().manual_seed(0))
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True)
    backbones.load_weights(whole, cfg, tmp_path / "weights.safetensors")
    with torch.no_grad():
        heard, expected = trunk(sounds), whole.eval()(sounds.expand(-1, 3, -1, -1))[-1]
    assert heard.shape == (2, trunk.channels, 4, 2) == (2, 320, 4, 2)
    assert torch.allclose(heard, expected, atol=1e-4), "statistics stay as loaded, in training too"
    assert all(parameter.requires_grad for parameter in trunk.parameters())


def test_the_network_gives_its_sound_trunk_the_picture_trunks_weights(tmp_path, classifier):
    path = tmp_path / "weights.safetensors"
    save_file(classifier.state_dict(), path)
    cfg = BackboneConfig(audio="visual")
    own = build_stage_one(StageOneConfig(backbone=cfg), path).sound.state_dict()
    expected = backbones.build_audio(cfg, path).state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())


class Sequence(nn.Module):
    """A convolution and a normalisation that lie one after the other, and work so or the other way round."""

    def __init__(self, *, backwards: bool):
        super().__init__()
        self.convolution, self.norm, self.backwards = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), backwards

    def forward(self, pictures):
        if self.backwards:
            return self.convolution(self.norm(pictures))
        return self.norm(self.convolution(pictures))


def moved(trunk: backbones.FeatureTrunk) -> backbones.FeatureTrunk:
    """Give every normalisation statistics and weights of its own."""
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight.data):
                nn.init.uniform_(values, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return trunk


@pytest.mark.parametrize("visual", ["tf_efficientnet_lite0", "resnet18"])
def test_a_folded_trunk_does_the_same_without_normalisations(visual):
    torch.manual_seed(0)
    trunk = moved(backbones.build_visual(BackboneConfig(visual=visual)))
    quick, pictures = backbones.folded(trunk, 96), torch.randn(2, 3, 96, 96)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
    with torch.no_grad():
        expected = trunk(pictures)
        assert torch.allclose(quick(pictures), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_trunk_that_works_in_another_order_is_not_folded(backwards):
    torch.manual_seed(0)
    trunk = moved(backbones.FeatureTrunk(Sequence(backwards=backwards), 3))
    assert (backbones.folded(trunk, 64) is trunk) == backwards
