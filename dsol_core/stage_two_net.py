"""The network of stage two: stage one, its maps by dictionary entry, gated by what is heard (paper section 3.3)."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsol_core.config import StageTwoConfig
from dsol_core.losses import top_mean
from dsol_core.stage_one_net import StageOneNet
from dsol_core.types import CheckpointError

SEEN_SHARE = 0.05  # of the cells whose mean says how clearly an entry is seen (ours)


class StageTwoOutput(NamedTuple):
    """What stage two says about B frames with their sounds; letters as in `StageOneOutput`.

    Attributes:
        visual: [B, E, h, w] unit vectors of the cells.
        audio: [B, E] unit vectors of the sounds.
        map: [B, h, w] audio-visual map in (0, 1).
        class_maps: [B, K, h, w] where each entry is seen: softmax over the entries, or affine inner products.
        gated: [B, K, h, w] the same, gated by the sound.
        presence: [B, K] logits, which entries sound.
        heard: [B, K] in (0, 1), which entries are heard, whatever is seen.
        sounding: [B, K] in (0, 1), which entries sound, considering which are seen.
        scale: scalar, the factor inside `map`.
        other_map: [B, h, w] map of other pictures with these sounds, or None.
        mixed_presence: [B * n, K] logits of the mixtures, or None.

    Where several windows of sound are given, `heard` and what follows of it, `sounding` and `gated`, consider all of
    them, the rest the first.
    """

    visual: Tensor
    audio: Tensor
    map: Tensor
    class_maps: Tensor
    gated: Tensor
    presence: Tensor
    heard: Tensor
    sounding: Tensor
    scale: Tensor
    other_map: Tensor | None = None
    mixed_presence: Tensor | None = None


class Heard(NamedTuple):
    """What stage two hears in B sounds of one or more windows; letters as in `StageOneOutput`.

    Attributes:
        features: [B, C] of the first window.
        audio: [B, E] its unit vectors.
        presence: [B, K] its logits, which entries sound.
        likely: [B, K] in (0, 1), how likely each entry sounds: mean over the windows, or softmax of the class layer.
    """

    features: Tensor
    audio: Tensor
    presence: Tensor
    likely: Tensor


class Gated(NamedTuple):
    """What is left of B pictures' class maps when their sounds are heard.

    Attributes:
        map: [B, h, w] audio-visual map in (0, 1).
        sounding: [B, K] in (0, 1), which entries sound.
        maps: [B, K, h, w] gated class maps.
    """

    map: Tensor
    sounding: Tensor
    maps: Tensor


def seen_clearly(class_maps: Tensor) -> Tensor:
    """Return how clearly each entry is seen, [B, K], from class maps [B, K, h, w]: mean of the best cells."""
    return top_mean(class_maps.flatten(2), SEEN_SHARE)


class StageTwoNet(nn.Module):
    """Stage one, continued against a fixed object dictionary (paper section 3.3)."""

    dictionary: Tensor

    def __init__(self, cfg: StageTwoConfig, stage_one: StageOneNet, centers: Tensor) -> None:
        super().__init__()
        self.config = cfg
        self.stage_one = stage_one
        backbone = stage_one.config.backbone
        width = stage_one.channels if cfg.class_maps == "inner" else backbone.embedding
        if centers.ndim != 2 or centers.shape != (stage_one.config.clusters, width):
            raise CheckpointError(
                f"dictionary has centers {tuple(centers.shape)}, stage two with {cfg.class_maps} class maps needs "
                f"{(stage_one.config.clusters, width)}; rebuild it from this stage one (dictionary.space)"
            )
        self.register_buffer("dictionary", centers.clone().float())
        # The authors' 1x1x1 convolution on the class maps.
        self.factor = nn.Parameter(torch.tensor(1.0), requires_grad=cfg.class_maps == "inner")
        self.offset = nn.Parameter(torch.tensor(0.0), requires_grad=cfg.class_maps == "inner")
        for module in self.picture_branch():
            module.requires_grad_(not cfg.freeze_visual)
        if stage_one.config.pooling == "learned":
            stage_one.log_sharpness.requires_grad_(False)
        if backbone.frozen:
            stage_one.trunk.requires_grad_(False)
        stage_one.prototypes.requires_grad_(False)
        stage_one.presence.requires_grad_(cfg.teacher == "presence")
        stage_one.class_visual.requires_grad_(False)
        stage_one.class_audio.requires_grad_(False)

    def train(self, mode: bool = True) -> StageTwoNet:
        """Set the mode; a picture branch that is kept fixed keeps its batch statistics too."""
        super().train(mode)
        for module in self.picture_branch() if self.config.freeze_visual else ():
            module.eval()
        return self

    def picture_branch(self) -> tuple[nn.Module, ...]:
        """Return the trunk of pictures and what follows it."""
        base = self.stage_one
        return base.trunk, base.upper, base.adapter, base.project_visual

    def class_maps(self, features: Tensor, visual: Tensor) -> Tensor:
        """Return where each entry is seen, [B, K, h, w], from [B, C, h, w] features and [B, E, h, w] unit vectors."""
        if self.config.class_maps == "agnostic":
            return visual.new_ones(len(visual), len(self.dictionary), *visual.shape[2:])
        if self.config.class_maps == "cosine":
            cosines = torch.einsum("behw,ke->bkhw", visual, F.normalize(self.dictionary, dim=1))
            heat = self.config.map_temperature
            if self.config.background is None:
                return torch.softmax(cosines / heat, 1)
            background = torch.full_like(cosines[:, :1], self.config.background)
            return torch.softmax(torch.cat([cosines, background], 1) / heat, 1)[:, :-1]
        return self.factor * torch.einsum("bchw,kc->bkhw", features, self.dictionary) + self.offset

    def hear(self, log_mels: Tensor) -> Heard:
        """Listen to A windows of sound, [B, A, T, M], of which the first is that of the picture."""
        base, count = self.stage_one, log_mels.shape[1]
        features, audio = base.hear(log_mels.flatten(0, 1).unsqueeze(1))
        presence = base.presence(features)
        if self.config.teacher == "presence":
            likely = torch.sigmoid(presence).view(-1, count, presence.shape[1]).mean(1)
        else:  # hears one window (see the config)
            likely = torch.softmax(base.class_audio(features[::count]), 1)
        return Heard(features[::count], audio[::count], presence[::count], likely)

    def sounding(self, class_maps: Tensor, heard: Tensor) -> Tensor:
        """Return which entries sound, [B, K] in (0, 1): heard, and seen where somebody could be (ours).

        Args:
            class_maps: [B, K, h, w], non-negative.
            heard: [B, K] in (0, 1), how likely each entry is heard.
        """
        cfg = self.config
        if cfg.seen_exponent > 0:
            seen = seen_clearly(class_maps)
            heard = heard * (seen / seen.amax(1, keepdim=True).clamp_min(1e-6)).pow(cfg.seen_exponent)
        if cfg.presence_midpoint is None:
            return heard
        raised = heard.pow(cfg.presence_power)
        gate: Tensor = raised / (raised + cfg.presence_midpoint**cfg.presence_power)
        return gate

    def gate(self, class_maps: Tensor, cells: Tensor, heard: Heard) -> Gated:
        """Gate what is seen by what is heard, as config says.

        Args:
            class_maps: [B, K, h, w].
            cells: [B, E, h, w], their unit vectors.
            heard: in the B sounds.
        """
        base, kind = self.stage_one, self.config.gating
        heat = base.audio_visual_map(cells, heard.audio)
        sounding = self.sounding(class_maps, heard.likely) if self.config.teacher == "presence" else heard.likely
        if kind == "presence":
            return Gated(heat, sounding, class_maps * sounding[:, :, None, None])
        if kind == "product":
            return Gated(heat, sounding, class_maps * heat.unsqueeze(1))
        return Gated(heat, sounding, torch.minimum(class_maps, heat.unsqueeze(1)) if kind == "min" else class_maps)

    def shown(self, maps: Tensor) -> Tensor:
        """Return class maps [B, K, h, w], gated or not, as they are predicted: in [0, 1]."""
        return torch.softmax(maps / self.config.map_temperature, 1) if self.config.class_maps == "inner" else maps

    def forward(
        self,
        visual: Tensor,
        log_mels: Tensor,
        *,
        features: bool = False,
        other: Tensor | None = None,
        mixed: Tensor | None = None,
    ) -> StageTwoOutput:
        """Run the network; arguments as in `StageOneNet.forward`, but of a sound A windows, [B, A, T, M], may be given.

        The mixtures are then as long: [B * n, A, T, M].
        """
        count, base = len(visual), self.stage_one
        seen, cells = base.see(visual if other is None else torch.cat([visual, other]), features=features)
        both = self.hear(log_mels if mixed is None else torch.cat([log_mels, mixed]))
        heard = Heard(*(one[:count] for one in both))
        class_maps = self.class_maps(seen[:count], cells[:count])
        heat, sounding, gated = self.gate(class_maps, cells[:count], heard)
        return StageTwoOutput(
            visual=cells[:count],
            audio=heard.audio,
            map=heat,
            class_maps=class_maps,
            gated=gated,
            presence=heard.presence,
            heard=heard.likely,
            sounding=sounding,
            scale=base.scale * 1.0,
            other_map=None if other is None else base.audio_visual_map(cells[count:], heard.audio),
            mixed_presence=None if mixed is None else both.presence[count:],
        )


def build_stage_two(cfg: StageTwoConfig, stage_one: StageOneNet, centers: Tensor) -> StageTwoNet:
    """Build stage two around a copy of a trained stage one and the dictionary's centers [K, D].

    Raises:
        CheckpointError: the dictionary does not fit.
    """
    return StageTwoNet(cfg, copy.deepcopy(stage_one), centers.to(stage_one.mel_mean.device))
