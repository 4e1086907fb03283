"""Pictures: frames -> network input, augmentation, grids of frames, heat-maps on a picture."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from dsol_core.config import ImageConfig
from dsol_core.types import ShapeError

Pixels = NDArray[np.uint8]
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
DEVIATION = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)  # luma weights, RGB
_SAME, _GREYED = np.eye(3), np.array([GREY] * 3)  # colour matrices: a picture as it is and without colour


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
    """Turn frames into pictures of the network's size, on the CPU, each by itself.

    They stay bytes, a quarter of the memory of floats, until they are where they are used: see `normalised`.

    Args:
        frames: uint8 [B, 3, H, W], RGB; fastest where the three values of a pixel lie together (channels last).
        cfg: side of the input, strength of the augmentation.
        augment: draws flips, brightness, saturation and crops; None leaves the pictures as they are.
        out: uint8 [B, 3, side, side] to fill, channels last; default a new one.

    Returns:
        uint8 [B, 3, side, side], channels last.

    Raises:
        ShapeError: not uint8 [B, 3, H, W].
    """
    _check(frames)
    if out is None:
        out = torch.empty(len(frames), cfg.side, cfg.side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    drawn = torch.rand(6, len(frames), generator=augment).T.tolist() if augment else None
    both = zip(frames.numpy().transpose(0, 2, 3, 1), out.numpy().transpose(0, 2, 3, 1), strict=True)
    for number, (picture, place) in enumerate(both):
        if drawn is None:
            place[...] = _resized(picture, cfg.side)
            continue
        bright = 1 + cfg.brightness * (2 * drawn[number][0] - 1)
        strong = 1 + cfg.saturation * (2 * drawn[number][1] - 1)
        _colour(_resized(_crop_and_flip(picture, cfg, drawn[number][2:]), cfg.side), bright, strong, place)
    return out


def normalised(pictures: Tensor) -> Tensor:
    """Turn bytes into the picture network's input, on whichever device they are.

    Args:
        pictures: uint8 [B, 3, H, W], RGB, fastest as channels last.

    Returns:
        float [B, 3, H, W], channels last, normalised with ImageNet's mean and deviation.

    Raises:
        ShapeError: not uint8 [B, 3, H, W].
    """
    _check(pictures)
    pixels = pictures.permute(0, 2, 3, 1)
    scale, shift = _normal(pixels.shape[2], pictures.device)
    # Rows of pixels, since a last dimension of three is slow to go through.
    rows = pixels.flatten(2).float().mul_(scale).sub_(shift)
    return rows.view(pixels.shape).permute(0, 3, 1, 2)


def _check(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
        raise ShapeError(f"frames are {frames.dtype} {tuple(frames.shape)}; expected uint8 [B, 3, H, W]")


@lru_cache(maxsize=8)
def _normal(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset of each value in a row of pixels, [width * 3], on a device."""
    scale = 1 / torch.tensor(DEVIATION)
    return (scale / 255).repeat(width).to(device), (torch.tensor(MEAN) * scale).repeat(width).to(device)


def _resized(picture: Pixels, side: int) -> Pixels:
    """Resize bytes [H, W, 3] to [side, side, 3]: bilinear, over the area of each output pixel."""
    if picture.shape[:2] == (side, side):
        return picture
    planes = torch.from_numpy(np.ascontiguousarray(picture))[None].permute(0, 3, 1, 2)
    planes = F.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy())  # so already, but for a picture of one pixel


def _crop_and_flip(picture: Any, cfg: ImageConfig, drawn: list[float]) -> Any:
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
        free = cfg.side - len(picture)
        left, top = (round(place * free) for place in drawn[1:3])
        picture = cv2.copyMakeBorder(picture, top, free - top, left, free - left, cv2.BORDER_REFLECT)
    else:
        height, width = (max(1, round(share * there)) for there in picture.shape[:2])
        left, top = round(drawn[1] * (picture.shape[1] - width)), round(drawn[2] * (picture.shape[0] - height))
        picture = picture[top : top + height, left : left + width]
    return cv2.flip(picture, 1) if drawn[3] < cfg.flip else picture


def _colour(picture: Any, bright: float, strong: float, out: Pixels) -> None:
    """Change brightness, then saturation, bytes [H, W, 3] that stay bytes; `out` is filled."""
    if bright > 1:
        picture = cv2.threshold(picture, round(255 / bright), 0, cv2.THRESH_TRUNC)[1]
    cv2.transform(picture, bright * (strong * _SAME + (1 - strong) * _GREYED), dst=out)


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
