"""The two trunks, made by timm: pictures -> feature map, log-mel spectrograms -> feature map."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.layers.norm import GroupNorm
from timm.models import adapt_input_conv
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dsol_core.config import BackboneConfig
from dsol_core.precision import Trunk
from dsol_core.types import CheckpointError, DataError

log = logging.getLogger(__name__)

GROUP = 8  # channels that are normalised together
SLIM = (24, 48, 96, 192)  # widths of the slim sound trunk; its first convolutions are half as wide as its first stage


class FeatureTrunk(Trunk):
    """One feature map of a timm network. Attribute `channels`: C of its output [B, C, h, w]."""

    def __init__(self, network: nn.Module, channels: int, fixed_statistics: bool = False) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.fixed_statistics = fixed_statistics

    def forward(self, pictures: Tensor) -> Tensor:
        """Map [B, 3 or 1, H, W] to [B, C, h, w]."""
        with self.autocast(pictures):
            features = self.network(pictures)
        last: Tensor = features[-1] if isinstance(features, list | tuple) else features
        return self.given_back(last)

    def train(self, mode: bool = True) -> FeatureTrunk:
        """Set the mode; batch statistics stay as loaded where results must not depend on the number of workers."""
        super().train(mode)
        if self.fixed_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def group_norm(channels: int, **_: Any) -> nn.Module:
    """Build the group normalisation of a layer with that many channels."""
    return GroupNorm(channels, num_groups=max(1, channels // GROUP))


def norm_layer(kind: str) -> Callable[..., nn.Module]:
    """Return the constructor (channels -> layer) of "group" or "batch" normalisation."""
    return group_norm if kind == "group" else nn.BatchNorm2d


def build_visual(cfg: BackboneConfig, weights: Path | None = None) -> FeatureTrunk:
    """Build the picture trunk: [B, 3, H, W] normalised frames -> [B, C, H / stride, W / stride].

    Args:
        cfg: name, stride and stage.
        weights: a file of ImageNet weights (.safetensors, .pth, .pt), by name or in timm's order; None: random.

    Raises:
        DataError: timm does not know the network or it has no stage of that stride.
        CheckpointError: the file does not fit the network.
    """
    try:
        probe: Any = timm.create_model(cfg.visual, pretrained=False, features_only=True)
    except RuntimeError as error:
        raise DataError(f"backbone.visual is {cfg.visual!r}, which timm cannot build as a trunk: {error}") from error
    strides = probe.feature_info.reduction()
    if cfg.visual_stage == "natural" and cfg.visual_stride not in strides:
        raise DataError(f"{cfg.visual} has stages of stride {strides}, none of {cfg.visual_stride}; choose one of them")
    natural = cfg.visual_stage == "natural"
    index = len(strides) - 1 - strides[::-1].index(cfg.visual_stride) if natural else len(strides) - 1
    options: dict[str, Any] = {} if natural else {"output_stride": cfg.visual_stride}
    network: Any = timm.create_model(cfg.visual, pretrained=False, features_only=True, out_indices=(index,), **options)
    _undilate(network)
    if weights is not None:
        load_weights(network, cfg, weights)
    _trim(network)
    return FeatureTrunk(network, network.feature_info.channels()[-1], fixed_statistics=cfg.norm == "group")


def split(trunk: FeatureTrunk, stages: int) -> tuple[FeatureTrunk, FeatureTrunk]:
    """Cut a trunk in two: one after the other they do what it did.

    Args:
        trunk: of `build_visual`.
        stages: that the second part gets: blocks of an EfficientNet, layers of a ResNet.

    Raises:
        DataError: the first part would be empty.
    """
    parts: list[nn.Module] = []
    for name, child in trunk.network.named_children():
        parts += child.children() if name == "blocks" else [child]
    if stages >= len(parts):
        raise DataError(f"backbone.trainable_blocks is {stages}; expected fewer than the trunk's {len(parts)} stages")
    lower, upper = nn.Sequential(*parts[:-stages]), nn.Sequential(*parts[-stages:])
    with torch.no_grad():
        channels = lower.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    first, second = ((lower, channels), (upper, trunk.channels))
    return FeatureTrunk(*first, trunk.fixed_statistics), FeatureTrunk(*second, trunk.fixed_statistics)


def folded(trunk: FeatureTrunk, side: int) -> FeatureTrunk:
    """Return a trunk to be evaluated whose convolutions also do the batch normalisation behind them: the same, sooner.

    A network whose modules do not work in the order in which they lie is returned as it is.

    Args:
        trunk: of `build_visual`.
        side: pixels of a picture that it takes, to compare both on.
    """
    trunk, quick = trunk.eval(), copy.deepcopy(trunk).eval()
    _fold(quick)
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = trunk(picture), quick(picture)
    return quick if torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())) else trunk


def _fold(module: nn.Module) -> None:
    children = list(module.named_children())
    for (name, first), (after, second) in pairwise([*children, ("", nn.Identity())]):
        _fold(first)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, after, getattr(second, "act", nn.Identity()))  # timm's normalisations activate too


def _undilate(network: nn.Module) -> None:
    """Where a stride was removed keep plain 3x3 kernels, as the authors' trunk has; timm would dilate them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            module.padding = tuple(
                side * (kernel - 1) // 2 for side, kernel in zip((1, 1), module.kernel_size, strict=True)
            )
            module.dilation = (1, 1)


def _trim(network: Any) -> None:
    """Drop the stages behind the one that is used (timm keeps them in EfficientNets)."""
    used = {feature["stage"] for feature in network.feature_info.get_dicts()} if hasattr(network, "blocks") else set()
    if used:
        network.blocks = network.blocks[: max(used)]


def load_weights(network: nn.Module, cfg: BackboneConfig, path: Path) -> None:
    """Fill a trunk from a file of classifier weights: by timm's names, else in order when every shape agrees.

    Raises:
        CheckpointError: the file is missing, unreadable or made for another network.
    """
    if not path.is_file():
        raise CheckpointError(f"weights file {path} does not exist; give the file of {cfg.visual}'s ImageNet weights")
    try:
        safe = path.suffix == ".safetensors"
        loaded: Any = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a file of weights ({error}); expected tensors only") from error
    loaded = loaded.get("state_dict", loaded.get("model", loaded))
    wanted = network.state_dict()
    if not all(name in loaded and loaded[name].shape == tensor.shape for name, tensor in wanted.items()):
        whole = timm.create_model(cfg.visual, pretrained=False).state_dict()
        named = list(loaded.values())
        if [tensor.shape for tensor in named] != [tensor.shape for tensor in whole.values()]:
            raise CheckpointError(
                f"{path} has {len(loaded)} tensors that fit {cfg.visual} neither by name nor in order (timm has "
                f"{len(whole)}); give weights of {cfg.visual} as timm or the paper behind it saves them"
            )
        loaded = dict(zip(whole, named, strict=True))
    missing, _ = network.load_state_dict({k: v for k, v in loaded.items() if k in wanted}, strict=False)
    if missing:
        raise CheckpointError(f"{path} lacks {len(missing)} tensors of {cfg.visual}, such as {missing[0]}")


def build_audio(cfg: BackboneConfig, weights: Path | None = None) -> FeatureTrunk:
    """Build the sound trunk: [B, 1, T, M] -> [B, C, t, m].

    "resnet_slim" is a ResNet with one block a stage, narrow stages and three narrow 3x3 convolutions in place of the
    wide 7x7 one, which would take most of the time; a timm ResNet's name gives that one with a single input channel
    and the last stride removed (paper: resnet18, 201 x 64 -> 13 x 4). Both start from scratch.

    "visual" is the picture trunk's network, all its stages, which starts from the same ImageNet weights: a spectrogram
    has edges and textures too, and few recordings teach less than a million photographs (Palanisamy 2020,
    arXiv 2007.11154). Its batch statistics stay as loaded.

    Args:
        cfg: name of the trunk, its norm.
        weights: the file of the picture trunk's weights; "visual" starts from it, or from random ones.
    """
    if cfg.audio == "visual":
        return _picture_network(cfg, weights)
    norm = norm_layer(cfg.norm)
    if cfg.audio == "resnet_slim":
        block: Any = BasicBlock
        stem: dict[str, Any] = {"stem_type": "deep", "stem_width": SLIM[0] // 2}
        network: Any = ResNet(block, (1, 1, 1, 1), in_chans=1, channels=SLIM, norm_layer=norm, **stem)
        network.global_pool, network.fc = nn.Identity(), nn.Identity()
        return FeatureTrunk(network, SLIM[-1])
    network = timm.create_model(
        cfg.audio,
        pretrained=False,
        features_only=True,
        out_indices=(4,),
        in_chans=1,
        output_stride=16,
        norm_layer=norm,
    )
    _undilate(network)
    return FeatureTrunk(network, network.feature_info.channels()[-1])


def _picture_network(cfg: BackboneConfig, weights: Path | None) -> FeatureTrunk:
    """Build the picture trunk's network for a single channel, to which it gives the weights of all three."""
    network: Any = timm.create_model(cfg.visual, pretrained=False, features_only=True)
    if weights is not None:
        load_weights(network, cfg, weights)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels, first.weight = 1, nn.Parameter(adapt_input_conv(1, first.weight.detach()))
    return FeatureTrunk(network, network.feature_info.channels()[-1], fixed_statistics=True)


class ResidualBlock(Trunk):
    """The trainable block on a frozen trunk: two 3x3 convolutions beside a 1x1 one."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        convolution = partial(nn.Conv2d, bias=False)
        self.main = nn.Sequential(
            convolution(inputs, outputs, 3, padding=1),
            norm(outputs),
            nn.ReLU(inplace=True),
            convolution(outputs, outputs, 3, padding=1),
            norm(outputs),
        )
        self.side = nn.Sequential(convolution(inputs, outputs, 1), norm(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, C, h, w] to [B, C', h, w]."""
        with self.autocast(features):
            return self.given_back(torch.relu(self.main(features) + self.side(features)))
