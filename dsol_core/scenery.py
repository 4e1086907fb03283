"""What stands behind the instruments of the generated data set: a painted backdrop and clutter.

Coordinates are fractions of the frame, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from dsol_core.shapes import Fill, ellipse

MARGIN = 0.05  # of the frame, painted around it so that the camera can move


@dataclass(frozen=True)
class Background:
    """A backdrop.

    Attributes:
        colours: [2, 3] of the gradient's ends.
        angle: of the gradient, radians.
        floor: height of the horizon and colour [3] below it, or None.
        stripes: frequency, angle and strength, or None.
        grain: [n, n] random values in [-0.5, 0.5], and how strong they are.
        grain_strength: added to the colours.
        clutter: things that are no instruments.
        blur: radius as a fraction of the frame.
    """

    colours: NDArray[Any]
    angle: float
    floor: tuple[float, NDArray[Any]] | None
    stripes: tuple[float, float, float] | None
    grain: NDArray[Any]
    grain_strength: float
    clutter: tuple[Fill, ...]
    blur: float

    def paint(self, side: int) -> NDArray[Any]:
        """Return the backdrop without its clutter, [side, side, 3] in [0, 1]; it covers the frame and `MARGIN`."""
        line = -MARGIN + (np.arange(side) + 0.5) / side * (1 + 2 * MARGIN)
        x, y = line[None, :], line[:, None]
        mix = np.clip(0.5 + np.cos(self.angle) * (x - 0.5) + np.sin(self.angle) * (y - 0.5), 0, 1)[..., None]
        painted = self.colours[0] * (1 - mix) + self.colours[1] * mix
        if self.floor:
            height, colour = self.floor
            painted = np.where((y >= height)[..., None], colour * (0.7 + 0.3 * mix), painted)
        if self.stripes:
            frequency, angle, strength = self.stripes
            wave = np.sign(np.sin(3 * frequency * (np.cos(angle) * x + np.sin(angle) * y)))
            painted = painted * (1 + strength * wave)[..., None]
        weights = interpolation(self.grain.shape[0], side)
        grain = weights @ self.grain @ weights.T
        return np.asarray(np.clip(painted + self.grain_strength * grain[..., None], 0, 1))


def invent_background(rng: Generator) -> Background:
    """Return a random backdrop with one to six things that are no instruments."""
    ends = rng.uniform(0.1, 0.95, (2, 3))
    floor = (rng.uniform(0.45, 0.85), rng.uniform(0.1, 0.8, 3)) if rng.random() < 0.4 else None
    stripes = (rng.uniform(6, 30), rng.uniform(0, np.pi), rng.uniform(0.05, 0.25)) if rng.random() < 0.35 else None
    grains = int(rng.choice([4, 8, 16, 48]))
    clutter = [fill for _ in range(int(rng.integers(1, 7))) for fill in _clutter(rng)]
    return Background(
        colours=0.5 * ends + 0.5 * ends.mean(axis=0),
        angle=rng.uniform(0, 2 * np.pi),
        floor=floor,
        stripes=stripes,
        grain=rng.uniform(-0.5, 0.5, (grains, grains)),
        grain_strength=rng.uniform(0.05, 0.3),
        clutter=tuple(clutter),
        blur=rng.uniform(0, 1.2) / 128,
    )


def _clutter(rng: Generator) -> list[Fill]:
    """Return one thing that is no instrument, somewhere in the frame."""
    size, place = rng.uniform(0.05, 0.28), rng.uniform(0, 1, 2)
    bright = rng.uniform(0.08, 0.94, 3)
    light, dark = tuple(bright.tolist()), tuple((bright / 2).tolist())
    kind = int(rng.integers(7))
    if kind == 0:  # box
        tall = rng.uniform(0.4, 2)
        pieces = [(light, _rectangle(0, 0, 1, tall)), (dark, _rectangle(0, 0, 1, 0.06))]
    elif kind == 1:  # ball
        pieces = [(dark, ellipse(0.5, 0.5, 0.5, 0.5)), (light, ellipse(0.5, 0.5, 0.46, 0.46))]
    elif kind == 2:  # stick
        pieces = [(light, _stick(0, 0, rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0.05, 0.2)))]
    elif kind == 3:  # shard
        pieces = [(light, rng.uniform(-1, 1, (int(rng.integers(3, 7)), 2)))]
    elif kind == 4:  # chair
        legs = [(dark, _rectangle(x, 0, x + 0.08, 1)) for x in (0.06, 0.86)]
        pieces = [(light, _rectangle(0, 0, 1, 0.12)), *legs, (light, _rectangle(0, -0.8, 0.12, 0))]
    elif kind == 5:  # plant
        leaves = [(light, _stick(0.5, 0.6, x, y, 0.12)) for x, y in ((0.1, 0.1), (0.5, 0), (0.9, 0.15))]
        pieces = [(dark, _rectangle(0.35, 0.6, 0.65, 1)), *leaves]
    else:  # person
        coat = np.array([(0, 1.3), (0.2, 0.5), (0.8, 0.5), (1, 1.3)])
        pieces = [(light, ellipse(0.5, 0.22, 0.2, 0.22)), (dark, coat)]
    return [Fill(points * size + place, colour) for colour, points in pieces]


def _rectangle(left: float, top: float, right: float, bottom: float) -> NDArray[Any]:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _stick(x0: float, y0: float, x1: float, y1: float, width: float) -> NDArray[Any]:
    across = np.array([y0 - y1, x1 - x0]) / (np.hypot(x1 - x0, y1 - y0) + 1e-9) * width / 2
    start, end = np.array([x0, y0]), np.array([x1, y1])
    return np.stack([start + across, end + across, end - across, start - across])


def interpolation(cells: int, side: int) -> NDArray[Any]:
    """Return the [side, cells] weights of linear interpolation between the centres of cells."""
    place = np.clip((np.arange(side) + 0.5) / side * cells - 0.5, 0, cells - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells)[None, :])))
