"""Maps: boxes -> mask, thresholds, object masks and averages inside them (`binarise.resize` resizes them)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dsol_core.types import Box, ShapeError


def boxes_to_mask(boxes: Sequence[Box], size: tuple[int, int]) -> Any:
    """Mark the pixels inside any of the boxes, rasterised as the authors' code does.

    Fractions times pixels are truncated toward zero and taken as half-open ranges; the far edge is the truncated sum
    `int(W * x + W * width)`, not a sum of truncated numbers.

    Args:
        boxes: fractions of the frame.
        size: (H, W) pixels.

    Returns:
        bool [H, W] array; empty without boxes.
    """
    height, width = size
    mask = np.zeros(size, dtype=bool)
    for box in boxes:
        top, bottom = int(height * box.y), int(height * box.y + height * box.height)
        left, right = int(width * box.x), int(width * box.x + width * box.width)
        mask[top:bottom, left:right] = True
    return mask


def relative_mask(maps: Any, fraction: float) -> Any:
    """Mark what is above a fraction of each map's own maximum (the authors' rule).

    Args:
        maps: [..., H, W] array, not negative.
        fraction: of the maximum.

    Returns:
        bool of the same shape; empty for a map of zeros.
    """
    return np.asarray(maps > fraction * maps.max((-2, -1), keepdims=True))


def scene_mask(maps: Any, fraction: float) -> Any:
    """Mark what is above one threshold for a whole scene: a fraction of the maximum over all its maps (ours, strict).

    Args:
        maps: [..., C, H, W] array, not negative: all classes of a scene.
        fraction: of the maximum.

    Returns:
        bool of the same shape; empty for a scene of zeros.
    """
    return np.asarray(maps > fraction * maps.max((-3, -2, -1), keepdims=True))


def object_mask(maps: Tensor, threshold: float, *, dilate: bool) -> Tensor:
    """Mark the cells of an object: above the threshold, and their 4 neighbours.

    Args:
        maps: [B, 1, h, w] float.
        threshold: absolute; a cell above it is set.
        dilate: grow the mask as the authors' code does: a set cell that is not on the border sets its 4 neighbours.

    Returns:
        bool [B, 1, h, w].
    """
    mask = maps > threshold
    if not dilate or min(maps.shape[2:]) < 3:
        return mask
    inner = torch.zeros_like(mask)
    inner[:, :, 1:-1, 1:-1] = mask[:, :, 1:-1, 1:-1]
    grown = mask.clone()
    for shift, dim in ((1, 2), (-1, 2), (1, 3), (-1, 3)):
        grown |= inner.roll(shift, dim)  # the border of `inner` is empty, so nothing wraps round
    return grown


def masked_mean(features: Tensor, mask: Tensor, *, over: Literal["mask", "map"]) -> Tensor:
    """Average the features inside each object mask.

    Args:
        features: [B, D, h, w] float.
        mask: [B, 1, h, w] bool.
        over: divide by the mask's area, or by h * w as the authors' code does.

    Returns:
        [B, D] float; zeros where a mask is empty.

    Raises:
        ShapeError: the two differ in B, h or w.
    """
    if features.ndim != 4 or mask.shape != (features.shape[0], 1, *features.shape[2:]):
        raise ShapeError(
            f"mask {tuple(mask.shape)} does not fit features {tuple(features.shape)}; expected [B, 1, h, w] of them"
        )
    total = (features * mask).sum((2, 3))
    if over == "map":
        return total / (features.shape[2] * features.shape[3])
    return total / mask.sum((2, 3)).clamp_min(1)
