"""What drawings are made of: parts (polygons, lines, tubes), their colours, and how they become filled polygons.

A shape is a list of `Part` in shape coordinates, about [-1, 1] with y downwards. Every line is turned into polygons, so
that the true box of a drawing is the extent of its vertices.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Points = NDArray[Any]
Colour = tuple[float, float, float]
# Ranges of a body's hue, saturation and value (low, high of each); one row is chosen at random.
Palette = tuple[tuple[float, float, float, float, float, float], ...]
Tone = str | float  # the name of a tone, or a hue in [0, 1]


@dataclass(frozen=True)
class Fill:
    """One filled polygon: vertices [N, 2] and a colour (red, green, blue in [0, 1])."""

    points: Points
    colour: Colour


@dataclass(frozen=True)
class Shading:
    """Light and surface of a drawing: direction in radians, strengths as factors, texture [n, n] in [-0.5, 0.5]."""

    angle: float
    strength: float
    texture: Points
    roughness: float
    shadow: bool


@dataclass(frozen=True)
class Drawing:
    """An instrument ready to be rasterised: its extent is centred on the origin, the longer side has length 1."""

    fills: tuple[Fill, ...]
    shading: Shading

    @cached_property
    def vertices(self) -> Points:
        """All vertices, [N, 2]."""
        return np.concatenate([fill.points for fill in self.fills])


@dataclass(frozen=True)
class Part:
    """A piece of a shape: a filled polygon, or a line of the given width(s) through the points."""

    tone: Tone
    points: Points
    width: float | Points | None = None  # in shape units; one a point for a tube


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360, n: int = 20) -> Points:
    """Return n points [n, 2] of an elliptic arc; angles in degrees, clockwise as seen since y is downwards."""
    angle = np.radians(np.linspace(start, end, n))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def fill(tone: Tone, points: Sequence[Sequence[float]] | Points) -> Part:
    """Return a filled polygon."""
    return Part(tone, np.asarray(points, float))


def disc(tone: Tone, x: float, y: float, rx: float, ry: float) -> Part:
    """Return a filled ellipse."""
    return Part(tone, ellipse(x, y, rx, ry))


def bar(tone: Tone, left: float, top: float, right: float, bottom: float) -> Part:
    """Return a filled rectangle."""
    return fill(tone, [(left, top), (right, top), (right, bottom), (left, bottom)])


def line(tone: Tone, width: float, points: Sequence[Sequence[float]] | Points) -> Part:
    """Return a line of constant width."""
    return Part(tone, np.asarray(points, float), width)


def ring(tone: Tone, width: float, points: Sequence[Sequence[float]] | Points) -> Part:
    """Return the outline of a polygon."""
    closed = np.asarray(points, float)
    return Part(tone, np.concatenate([closed, closed[:1]]), width)


def tube(tone: Tone, points: Sequence[Sequence[float]] | Points, widths: Sequence[float] | Points) -> Part:
    """Return a line whose width is given at each point."""
    return Part(tone, np.asarray(points, float), np.asarray(widths, float))


def mirrored(half: Sequence[Sequence[float]] | Points) -> Points:
    """Return the polygon whose right half is given from top to bottom."""
    right = np.asarray(half, float)
    return np.concatenate([right, right[::-1] * [-1, 1]])


def tones(palette: Palette, rng: Generator) -> dict[str, Colour]:
    """Choose the colours of one instance: a body from its palette, and what goes with it."""
    row = palette[int(rng.integers(len(palette)))]
    body = np.array(colorsys.hsv_to_rgb(rng.uniform(*row[:2]) % 1, rng.uniform(*row[2:4]), rng.uniform(*row[4:])))
    tones = {
        "body": body,
        "shade": body * 0.55,
        "light": body * 1.25 + 0.1,
        "fold": body * 1.1 + 0.05,
        "black": np.full(3, 0.06 + rng.uniform(0, 0.08)),
        "white": np.array([0.93, 0.92, 0.88]) * rng.uniform(0.85, 1),
        "metal": np.array([0.78, 0.78, 0.8]) * rng.uniform(0.7, 1.1),
        "string": np.array([0.85, 0.83, 0.75]),
        "hide": np.array([0.82, 0.68, 0.45]) * rng.uniform(0.6, 1.1),
    }
    return {name: tuple(np.clip(value, 0, 1).tolist()) for name, value in tones.items()}


def bend(tilt: float, turn: float, rng: Generator) -> Callable[[Points], Points]:
    """Return a map of points: a smooth warp, then aspect, shear, mirror and a turn around `tilt` degrees."""
    angle = np.radians(tilt + rng.uniform(-30, 30) + rng.uniform(-turn, turn))
    mirror, aspect, shear = (
        (-1 if rng.random() < 0.5 else 1),
        np.exp(rng.uniform(-0.12, 0.12)),
        rng.uniform(-0.15, 0.15),
    )
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[mirror * aspect, shear], [0, 1 / aspect]])
    wave, phase = rng.uniform(-0.04, 0.04, 4), rng.uniform(0, 2 * np.pi, 2)

    def warp(points: Points) -> Points:
        x, y = points[:, 0], points[:, 1]
        moved_x = x + wave[0] * np.sin(3 * y + phase[0]) + wave[1] * x * y
        moved_y = y + wave[2] * np.sin(3 * x + phase[1]) + wave[3] * x**2
        bent: Points = np.stack([moved_x, moved_y], axis=1) @ matrix.T
        return bent

    return warp


def polygons(part: Part, thickness: float) -> list[Points]:
    """Turn a part into filled polygons: a line becomes a quadrilateral a segment and a disc a joint."""
    if part.width is None:
        return [part.points]
    tube = isinstance(part.width, np.ndarray)
    half = np.broadcast_to(np.asarray(part.width) * (thickness**0.5 if tube else thickness) / 2, len(part.points))
    step = np.diff(part.points, axis=0)
    across = np.stack([-step[:, 1], step[:, 0]], axis=1) / (np.linalg.norm(step, axis=1, keepdims=True) + 1e-9)
    start, end = across * half[:-1, None], across * half[1:, None]
    first, last = part.points[:-1], part.points[1:]
    quads = np.stack([first + start, last + end, last - end, first - start], axis=1)
    # The wide end of a tube (the bell of a horn) stays flat.
    joints = range(1, len(part.points) - (2 if tube else 1))
    return [*quads, *(ellipse(x, y, half[i], half[i], n=12) for i, (x, y) in enumerate(part.points) if i in joints)]
