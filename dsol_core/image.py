"""Pictures: frames -> network input, augmentation, grids of frames, heat-maps on a picture."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
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


def to_input(
    frames: Tensor, cfg: ImageConfig, *, augment: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """Turn frames into the picture network's input, on the CPU, each picture by itself.

    Bytes stay bytes until they have their size; then brightness, saturation and normalisation are one matrix.

    Args:
        frames: uint8 [B, 3, H, W], RGB; fastest where the three values of a pixel lie together (channels last).
        cfg: side of the input, strength of the augmentation.
        augment: draws flips, brightness, saturation and crops; None leaves the pictures as they are.
        out: float [B, 3, side, side] to fill, channels last; default a new one.

    Returns:
        float [B, 3, side, side], channels last, normalised with ImageNet's mean and deviation.

    Raises:
        ShapeError: not uint8 [B, 3, H, W].
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
        raise ShapeError(f"frames are {frames.dtype} {tuple(frames.shape)}; expected uint8 [B, 3, H, W]")
    if out is None:
        out = torch.empty(len(frames), cfg.side, cfg.side, 3).permute(0, 3, 1, 2)
    pixels = frames.permute(0, 2, 3, 1).contiguous()
    drawn = torch.rand(6, len(frames), generator=augment).T.tolist() if augment else None
    for number, picture in enumerate(pixels):
        bright = strong = 1.0
        if drawn:
            bright = 1 + cfg.brightness * (2 * drawn[number][0] - 1)
            strong = 1 + cfg.saturation * (2 * drawn[number][1] - 1)
            picture = _crop_and_flip(picture, cfg, drawn[number][2:])
        _colour(_resized(picture, cfg.side), bright, strong, out[number].permute(1, 2, 0))
    return out


def _resized(picture: Tensor, side: int) -> Tensor:
    """Resize bytes [H, W, 3] to [side, side, 3]: bilinear, over the area of each output pixel."""
    if picture.shape[:2] == (side, side):
        return picture
    planes = picture.contiguous()[None].permute(0, 3, 1, 2)
    planes = F.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return planes[0].permute(1, 2, 0).contiguous()  # it is so already, but for a picture of one pixel


def _crop_and_flip(picture: Tensor, cfg: ImageConfig, drawn: list[float]) -> Tensor:
    """Cut a square share of a picture [H, W, 3] at a random place, in whole pixels, mirrored with probability `flip`.

    A share above 1 shrinks the picture; its mirror images fill the rest, so that a small object does not stand alone.

    Args:
        picture: bytes; those of the result have any size where the share is at most 1, else the network's.
        cfg: the law of the share.
        drawn: share, place across, place down and mirror, each in [0, 1).
    """
    low, high = math.log(1 - cfg.crop), -math.log(cfg.zoom_out)
    share = math.exp(low + (high - low) * drawn[0]) if cfg.crop_law == "uniform" else 1 - cfg.crop
    if share > 1:
        picture = _resized(picture, max(1, round(cfg.side / share)))
    for axis, place in ((1, drawn[1]), (0, drawn[2])):
        there = picture.shape[axis]
        length = cfg.side if share > 1 else max(1, round(share * there))
        picture = _mirrored(picture, axis, round(place * (there - length)), length)
    return picture.flip(1) if drawn[3] < cfg.flip else picture


def _mirrored(picture: Tensor, axis: int, start: int, length: int) -> Tensor:
    """Cut along an axis from the endless row of a picture and its mirror images; `start` may be negative."""
    there = picture.shape[axis]
    start %= 2 * there
    if start + length > there:
        tiles = [picture, picture.flip(axis)] * math.ceil((start + length) / (2 * there))
        picture = torch.cat(tiles, axis)
    return picture.narrow(axis, start, length)


@lru_cache(maxsize=8)
def _shading(side: int) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
    """Return the constants of `_colour`: neighbouring pixels taken at once, their matrices, a row's bound and mean."""
    together = math.gcd(4, side)
    scale = 1 / torch.tensor(DEVIATION)
    each, grey = torch.diag(scale) / 255, torch.tensor(GREY).outer(scale) / 255
    many = torch.eye(together)
    return (
        together,
        torch.kron(many, each),
        torch.kron(many, grey),
        scale.repeat(side),
        (torch.tensor(MEAN) * scale).repeat(side),
    )


def _colour(picture: Tensor, bright: float, strong: float, out: Tensor) -> None:
    """Change brightness, then saturation, values staying in [0, 1], and normalise: bytes [H, W, 3] to floats.

    All that is one matrix of 3 x 3. It is repeated along a diagonal, so that a product takes several pixels at once.
    """
    side = len(picture)
    together, each, grey, bound, mean = _shading(side)
    if bright > 1:
        picture = picture.clamp_max(round(255 / bright))
    rows = out.view(side, 3 * side)
    matrix = bright * strong * each + bright * (1 - strong) * grey
    torch.mm(picture.float().view(-1, 3 * together), matrix, out=rows.view(-1, 3 * together))
    if strong > 1:
        rows.clamp_(torch.zeros_like(bound), bound)
    rows.sub_(mean)


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
        raise ShapeError(f"map {heat.shape} does not fit picture {frame.shape}; resize the map first (binarise.resize)")
    opacity = np.clip(heat, 0, 1)[..., None] * strength
    return np.round(frame * (1 - opacity) + np.asarray(colour) * opacity).astype(np.uint8)
