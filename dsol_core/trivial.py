"""Predictors that neither look nor listen, and the best that a perfect one could reach: printed beside every result.

Each gives `Maps` of 224 x 224 pixels a picture, as many as the item has targets, all without a class, so that they are
scored like any system's. The shapes have a gap between inside (0.9 to 1) and outside (0 to 0.04), wherefore every mask
rule that cuts in between finds the same mask; inside and outside, pixels keep their order by distance from the centre,
wherefore rules by rank do too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from dsol_core import truths
from dsol_core.protocols import SIDE, Item, Maps, Protocol, Switches

_QUADRANTS = ((0, 0), (0, 1), (1, 0), (1, 1))
_TIE = 2.0**-23  # step of float32 at 1 to 2


def centred_disk(item: Item, protocol: Protocol) -> Maps:
    """Say the middle: the higher half of -((r - 111.5)^2 + (c - 111.5)^2) (method-and-benchmarks, 7; 25,100 pixels)."""
    return _repeat(item, protocol, lambda _: _disk())


def whole_frame(item: Item, protocol: Protocol) -> Maps:
    """Say everywhere: a map of ones (nothing where the mask rule is strict and by rank)."""
    return _repeat(item, protocol, lambda _: np.ones((SIDE, SIDE), dtype=np.float32))


def random_quadrant(item: Item, protocol: Protocol, seed: int = 0) -> Maps:
    """Say one of the four quarters of the frame, drawn for each map and picture from the seed and the item's key."""
    generator = np.random.default_rng((seed, zlib.crc32(item.key.encode())))
    return _repeat(item, protocol, lambda _: _quadrant(*_QUADRANTS[generator.integers(len(_QUADRANTS))]))


def ceiling(item: Item, protocol: Protocol, switches: Switches) -> Maps:
    """Rank every pixel of the truth above every other, without ties: what no method can surpass under the mask rule.

    One map a source, with its class; one for all boxes where the protocol is no "multi". Confidence is 1 for items with
    sources, 0 for negatives.
    """
    unit, pictures = protocol.box_unit, len(item.pictures)
    canvas = Switches(**{**vars(switches), "canvas": "horizontal"})
    multi = protocol.kind == "multi"
    targets = (truths.by_source if multi else truths.by_canvas)(item, canvas, unit)
    shape = (SIDE, SIDE * pictures)
    if not targets:
        return Maps(item.key, np.zeros((1, *shape), dtype=np.float32), (None,), (0.0,))
    ties = np.arange(shape[0] * shape[1], dtype=np.float32)[::-1].reshape(shape) * np.float32(_TIE)
    maps = np.stack([_steep(target.weights) + ties for target in targets])
    classes = tuple(target.category if multi else None for target in targets)
    return Maps(item.key, maps, classes, (1.0,) * len(maps))


PREDICTORS: dict[str, Callable[[Item, Protocol], Maps]] = {
    "centred disk": centred_disk,
    "whole frame": whole_frame,
    "random quadrant": random_quadrant,
}


def _steep(weights: Any) -> Any:
    """Put every pixel of a truth at 1 or above, the weightier the higher, and the rest at 0, float32 [H, W]."""
    share = weights.astype(np.float32) / max(1.0, float(weights.max()))
    return (share > 0) + share / np.float32(2)


def _repeat(item: Item, protocol: Protocol, draw: Callable[[int], Any]) -> Maps:
    count = max(1, len(truths.groups(item))) if protocol.kind == "multi" else 1
    pictures = range(len(item.pictures))
    maps = np.stack([np.concatenate([draw(picture) for picture in pictures], axis=1) for _ in range(count)])
    return Maps(item.key, maps, (None,) * count, (1.0,) * count)


@lru_cache(maxsize=8)
def _disk() -> Any:
    middle = (SIDE - 1) / 2
    distance = _distance(middle, middle)
    return _shape(distance, -distance >= np.sort(-distance, axis=None)[SIDE * SIDE // 2])


@lru_cache(maxsize=8)
def _quadrant(row: int, column: int) -> Any:
    half = SIDE // 2
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[half * row : half * (row + 1), half * column : half * (column + 1)] = True
    return _shape(_distance(half * row + (half - 1) / 2, half * column + (half - 1) / 2), inside)


def _distance(row: float, column: float) -> Any:
    """Squared distance of each pixel from a point, float64 [224, 224]."""
    rows, columns = np.arange(SIDE, dtype=np.float64) - row, np.arange(SIDE, dtype=np.float64) - column
    return rows[:, None] ** 2 + columns**2


def _shape(distance: Any, inside: Any) -> Any:
    near = 1 - distance / distance.max()
    return np.where(inside, 0.9 + 0.1 * near, 0.04 * near).astype(np.float32)
