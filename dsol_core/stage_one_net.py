"""The network of stage one: pictures and sounds in one space (paper section 3.1)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsol_core.backbones import ResidualBlock, build_audio, build_visual, norm_layer, split
from dsol_core.config import StageOneConfig
from dsol_core.losses import token_presence
from dsol_core.types import ShapeError

HEAD_DEVIATION = 0.01  # of freshly made class layers (code)
MAP_SCALE = 5.0  # first factor of the audio-visual map (code)
SHARPNESS = 10.0  # first sharpness of a learned pooling, that of `losses.attention_pool` (ours)


class StageOneOutput(NamedTuple):
    """What stage one says about B pairs. C channels of the trunk, E of the common space, n mixtures a pair.

    Attributes:
        features: [B, C, h, w] picture features.
        visual: [B, E, h, w] unit vectors of the cells.
        audio: [B, E] unit vectors of the sounds.
        map: [B, h, w] audio-visual map in [0, 1], as `StageOneConfig.map_law` says.
        visual_logits: [B, K] classes of the picture (global average).
        audio_logits: [B, K] classes of the sound.
        presence: [B, K] logits, which entries sound.
        prototypes: [K, E] unit vectors shared by pictures and sounds.
        scale: scalar, the factor inside `map`.
        other_map: [B, h, w] map of the other videos' pictures with these sounds, or None.
        mixed_presence: [B * n, K] logits of the mixtures, or None.
        sharpness: scalar, of the pooling "learned", or None.
    """

    features: Tensor
    visual: Tensor
    audio: Tensor
    map: Tensor
    visual_logits: Tensor
    audio_logits: Tensor
    presence: Tensor
    prototypes: Tensor
    scale: Tensor
    other_map: Tensor | None = None
    mixed_presence: Tensor | None = None
    sharpness: Tensor | None = None


class StageOneNet(nn.Module):
    """Picture and sound networks with a common space (method: paper section 3.1, figure 2)."""

    mel_mean: Tensor
    mel_deviation: Tensor
    centers: Tensor

    def __init__(self, cfg: StageOneConfig, weights: Path | None = None) -> None:
        super().__init__()
        self.config = cfg
        backbone, size, bins = cfg.backbone, cfg.backbone.embedding, cfg.audio.mel_bins
        self.trunk = build_visual(backbone, weights)
        width = self.trunk.channels
        self.upper: nn.Module = nn.Identity()  # the last stages of the trunk, where they train and the others do not
        if backbone.trainable_blocks:
            self.trunk, self.upper = split(self.trunk, backbone.trainable_blocks)
        if backbone.frozen:
            self.trunk.requires_grad_(False)
        self.channels = backbone.adapter or width
        self.adapter: nn.Module = nn.Identity()
        if backbone.adapter:
            self.adapter = ResidualBlock(width, backbone.adapter, norm_layer(backbone.norm))
        self.sound = build_audio(backbone, weights)
        self.project_visual = nn.Sequential(
            nn.Conv2d(self.channels, size, 1), nn.ReLU(inplace=True), nn.Conv2d(size, size, 1)
        )
        self.project_audio = nn.Sequential(
            nn.Linear(self.sound.channels, size), nn.ReLU(inplace=True), nn.Linear(size, size)
        )
        self.scale = nn.Parameter(torch.tensor(MAP_SCALE))
        if cfg.pooling == "learned":
            self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.class_visual = nn.Linear(self.channels, cfg.clusters)
        self.class_audio = nn.Linear(self.sound.channels, cfg.clusters)
        self.presence = nn.Linear(self.sound.channels, cfg.clusters)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(cfg.clusters, size), dim=1))
        self.register_buffer("mel_mean", torch.zeros(bins))
        self.register_buffer("mel_deviation", torch.ones(bins))
        # Layers that the recipe never uses do not train.
        self.class_visual.requires_grad_(cfg.classification_passes > 0)
        self.class_audio.requires_grad_(cfg.classification_passes > 0)
        self.presence.requires_grad_(cfg.presence_weight > 0)
        self.prototypes.requires_grad_(cfg.prototype_weight > 0)
        # Centers of the last clustering, in the space that was clustered: the dictionary of the authors' code.
        joint = cfg.cluster_space == "joint"
        self.register_buffer("centers", torch.zeros(cfg.clusters, size if joint else self.channels))

    def train(self, mode: bool = True) -> StageOneNet:
        """Set the mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.config.backbone.frozen:
            self.trunk.eval()
        return self

    def sharpness(self) -> Tensor | None:
        """Return the sharpness of the pooling "learned", scalar; None with another one."""
        return self.log_sharpness.exp() if self.config.pooling == "learned" else None

    def whole_trunk(self, visual: Tensor, *, features: bool = False) -> Tensor:
        """Return the output of the trunk with its trained stages [B, C, h, w]; arguments as in `see`."""
        seen: Tensor = self.upper(visual if features else self.trunk(visual))
        return seen

    def see(self, visual: Tensor, *, features: bool = False) -> tuple[Tensor, Tensor]:
        """Return the picture features [B, C, h, w] and the cells' unit vectors [B, E, h, w].

        Args:
            visual: [B, 3, H, W] normalised frames, or [B, C', h, w] outputs of the trunk's fixed stages.
            features: whether it is the latter.
        """
        expected = self.trunk.channels if features else 3
        if visual.ndim != 4 or visual.shape[1] != expected:
            kind = "trunk features" if features else "frames"
            raise ShapeError(f"visual has shape {tuple(visual.shape)}; expected {kind} [B, {expected}, h, w]")
        visual = visual.contiguous(memory_format=torch.channels_last)
        seen: Tensor = self.adapter(self.whole_trunk(visual, features=features))
        return seen, F.normalize(self.project_visual(seen), dim=1)

    def hear(self, log_mels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sound features [B, C] (global maximum) and their unit vectors [B, E] from [B, 1, T, M].

        With the matching "tokens" the tokens that a sound shows are added to its vector.
        """
        if log_mels.ndim != 4 or log_mels.shape[1] != 1 or log_mels.shape[3] != len(self.mel_mean):
            raise ShapeError(f"log_mels has shape {tuple(log_mels.shape)}; expected [B, 1, T, {len(self.mel_mean)}]")
        standard = (log_mels - self.mel_mean) / self.mel_deviation
        heard = self.sound(standard.contiguous(memory_format=torch.channels_last)).amax((2, 3))
        audio = F.normalize(self.project_audio(heard), dim=1)
        if self.config.matching == "tokens":
            tokens = F.normalize(self.prototypes, dim=1)
            named = token_presence(audio.unsqueeze(2), tokens, self.config.prototype_temperature).exp()
            audio = F.normalize(audio + named @ tokens, dim=1)
        return heard, audio

    def audio_visual_map(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Return the map in [0, 1], [B, h, w], of cells [B, E, h, w] and sounds [B, E]."""
        cosines = torch.einsum("behw,be->bhw", visual, audio)
        if self.config.map_law == "sigmoid":
            return torch.sigmoid(self.scale * cosines)
        low, high = (edge[:, None, None] for edge in cosines.flatten(1).aminmax(dim=1))
        return (cosines - low) / (high - low).clamp_min(1e-6)

    def forward(
        self,
        visual: Tensor,
        log_mels: Tensor,
        *,
        features: bool = False,
        other: Tensor | None = None,
        mixed: Tensor | None = None,
    ) -> StageOneOutput:
        """Run both networks.

        Args:
            visual: [B, 3, H, W] frames or [B, C', h, w] trunk features.
            log_mels: [B, 1, T, M].
            features: whether `visual` (and `other`) are trunk features.
            other: pictures of other videos, like `visual`; their map with the same sounds is made too.
            mixed: [B * n, 1, T, M] mixtures.
        """
        count = len(visual)
        seen, cells = self.see(visual if other is None else torch.cat([visual, other]), features=features)
        heard, audio = self.hear(log_mels if mixed is None else torch.cat([log_mels, mixed]))
        heard, audio, mixed_heard = heard[:count], audio[:count], heard[count:]
        return StageOneOutput(
            features=seen[:count],
            visual=cells[:count],
            audio=audio,
            map=self.audio_visual_map(cells[:count], audio),
            visual_logits=self.class_visual(seen[:count].mean((2, 3))),
            audio_logits=self.class_audio(heard),
            presence=self.presence(heard),
            prototypes=F.normalize(self.prototypes, dim=1),
            scale=self.scale * 1.0,  # a result, not the parameter: data-parallel wrappers follow results
            other_map=None if other is None else self.audio_visual_map(cells[count:], audio),
            mixed_presence=None if mixed is None else self.presence(mixed_heard),
            sharpness=self.sharpness(),
        )

    @torch.no_grad()
    def renew_class_layers(self, seed: int) -> None:
        """Draw both class layers anew, as the authors' code does after each clustering."""
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.class_visual, self.class_audio):
            layer.weight.copy_(HEAD_DEVIATION * torch.randn(layer.weight.shape, generator=generator))
            layer.bias.zero_()


def build_stage_one(cfg: StageOneConfig, weights: Path | None = None) -> StageOneNet:
    """Build stage one, its picture trunk from a file of ImageNet weights where one is given."""
    return StageOneNet(cfg, weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
