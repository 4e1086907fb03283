"""Pictures: frames -> network input, augmentation, grids of frames, heat-maps on a picture."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dsol_core.config import ImageConfig
from dsol_core.types import ShapeError

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
DEVIATION = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)  # luma weights, RGB


def front_of(kind: str, cfg: ImageConfig) -> ImageConfig:
    """Return the front end in training of a kind of sample: "solo", "multi" or "grid"."""
    return cfg if cfg.crop_grids or kind != "grid" else replace(cfg, crop=0.0, crop_law="fixed", zoom_out=1.0)


def scaled(cfg: ImageConfig, factor: float, stride: int) -> ImageConfig:
    """Return the front end with its side times a factor, to the nearest whole number of the map's cells.

    Args:
        cfg: front end of training.
        factor: 1 leaves it as it is.
        stride: pixels of a cell.
    """
    return cfg if factor == 1 else replace(cfg, side=stride * max(1, round(cfg.side * factor / stride)))


def to_input(frames: Tensor, cfg: ImageConfig, *, augment: Generator | None = None) -> Tensor:
    """Turn frames into the picture network's input.

    Args:
        frames: uint8 [B, 3, H, W], RGB.
        cfg: side of the input, strength of the augmentation.
        augment: draws flips, brightness, saturation and crops; None leaves the pictures as they are.

    Returns:
        float [B, 3, side, side], normalised with ImageNet's mean and deviation.

    Raises:
        ShapeError: not uint8 [B, 3, H, W].
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
        raise ShapeError(f"frames are {frames.dtype} {tuple(frames.shape)}; expected uint8 [B, 3, H, W]")
    if augment is None:
        pictures = frames.float() / 255
    else:
        turned = frames.transpose(2, 3).contiguous()  # columns become rows, cheapest while a pixel is a byte
        pictures = _crop_and_flip(_colour(turned.float().div_(255), cfg, augment), cfg, augment)
    if pictures.shape[2:] != (cfg.side, cfg.side):
        pictures = F.interpolate(pictures, (cfg.side, cfg.side), mode="bilinear", antialias=True, align_corners=False)
    mean, deviation = (torch.tensor(v, device=frames.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return torch.sub(pictures, mean).div_(deviation)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _colour(pictures: Tensor, cfg: ImageConfig, generator: Generator) -> Tensor:
    """Change brightness, then saturation, by one factor a picture, in place; values stay in [0, 1]."""
    count = len(pictures)
    bright = _uniform(count, 1 - cfg.brightness, 1 + cfg.brightness, generator).view(-1, 1, 1, 1).to(pictures)
    strong = _uniform(count, 1 - cfg.saturation, 1 + cfg.saturation, generator).view(-1, 1, 1, 1).to(pictures)
    pictures = pictures.mul_(bright).clamp_(0, 1)
    grey = pictures[:, :1] * GREY[0]
    grey.add_(pictures[:, 1:2], alpha=GREY[1]).add_(pictures[:, 2:], alpha=GREY[2])
    return pictures.sub_(grey).mul_(strong).add_(grey).clamp_(0, 1)


def _crop_and_flip(pictures: Tensor, cfg: ImageConfig, generator: Generator) -> Tensor:
    """Turn [B, 3, W, H] upright: cut a square share of each at a random place, mirrored with probability `flip`.

    A share above 1 shrinks the picture; its mirror images fill the rest, so that a small object does not stand alone.
    """
    count = len(pictures)
    size = torch.full((count,), 1 - cfg.crop)
    if cfg.crop_law == "uniform":
        size = _uniform(count, math.log(1 - cfg.crop), -math.log(cfg.zoom_out), generator).exp()
    centre = (1 - size).view(-1, 1) * (2 * torch.rand(count, 2, generator=generator) - 1)  # in [-1, 1] coordinates
    mirror = 1 - 2 * (torch.rand(count, generator=generator) < cfg.flip).float()
    if min(pictures.shape[2:]) > cfg.side * 1.5:  # shrink with a filter first, sampling alone would alias
        full = round(cfg.side / (1 - cfg.crop))
        pictures = F.interpolate(pictures, (full, full), mode="bilinear", antialias=True, align_corners=False)
    finer = 2 if cfg.zoom_out < 1 else 1  # sample finer and average, or shrinking would alias
    across = _resample_rows(pictures, size * mirror, centre[:, 0], cfg.side, finer)
    return _resample_rows(across.transpose(2, 3), size, centre[:, 1], cfg.side, finer)


def _resample_rows(pictures: Tensor, scale: Tensor, centre: Tensor, side: int, finer: int) -> Tensor:
    """Sample rows of pictures bilinearly at an even grid, as `grid_sample` with reflection does along one axis.

    The crops are not turned, so that they are two such passes, each a weighted sum of a few rows.

    Args:
        pictures: [B, C, H, W].
        scale: [B], length of the grid where the picture's is 1; negative mirrors.
        centre: [B], of the grid, in [-1, 1] over the picture.
        side: rows of the result.
        finer: samples averaged for a row.

    Returns:
        [B, C, side, W].
    """
    count, channels, height, width = pictures.shape
    grid = (2 * torch.arange(finer * side) + 1) / (finer * side) - 1
    place = ((scale.view(-1, 1) * grid + centre.view(-1, 1) + 1) * height - 1) / 2  # in rows
    place = (place + 0.5).remainder(2 * height)  # reflected at the outer edges of the outer rows
    place = (torch.where(place > height, 2 * height - place, place) - 0.5).clamp(0, height - 1)
    low = place.floor()
    rows = torch.stack([low, (low + 1).clamp_max(height - 1)], 2) + height * torch.arange(count).view(-1, 1, 1)
    weights = torch.stack([1 - (place - low), place - low], 2) / finer
    table = pictures.permute(0, 2, 1, 3).reshape(count * height, channels * width)
    sums = F.embedding_bag(
        rows.long().reshape(count * side, 2 * finer).to(table.device),
        table,
        mode="sum",
        per_sample_weights=weights.reshape(count * side, 2 * finer).to(table),
    )
    return sums.view(count, side, channels, width).transpose(1, 2)


def grid(frames: Tensor) -> Tensor:
    """Tile four frames two by two, row by row, each at half its size.

    Args:
        frames: uint8 [B, 4, 3, H, W].

    Returns:
        uint8 [B, 3, H, W].

    Raises:
        ShapeError: there are not four frames a scene.
    """
    if frames.ndim != 5 or frames.shape[1] != 4:
        raise ShapeError(f"frames have shape {tuple(frames.shape)}; expected [B, 4, 3, H, W], four parts a scene")
    height, width = frames.shape[3:]
    top, left = height // 2, width // 2
    sizes = [(top, left), (top, width - left), (height - top, left), (height - top, width - left)]
    tiles = [F.adaptive_avg_pool2d(frames[:, i].float(), size) for i, size in enumerate(sizes)]
    rows = torch.cat([torch.cat(tiles[:2], 3), torch.cat(tiles[2:], 3)], 2)
    return rows.round().clamp(0, 255).to(torch.uint8)


def overlay(frame: Any, heat: Any, colour: tuple[int, int, int], strength: float = 0.7) -> Any:
    """Lay a heat-map over a picture.

    Args:
        frame: uint8 [H, W, 3] array.
        heat: [H, W] array in [0, 1]; 0 leaves the picture, 1 shows the colour at `strength`.
        colour: RGB, 0 to 255.
        strength: largest opacity.

    Returns:
        uint8 [H, W, 3] array.

    Raises:
        ShapeError: the map's size is not the picture's.
    """
    if frame.shape[:2] != heat.shape:
        raise ShapeError(f"map {heat.shape} does not fit picture {frame.shape}; resize the map first (maps.resize)")
    opacity = np.clip(heat, 0, 1)[..., None] * strength
    return np.round(frame * (1 - opacity) + np.asarray(colour) * opacity).astype(np.uint8)
