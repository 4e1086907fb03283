"""The generated data set "orchestra": videos of drawn instruments that move a little and play, with their true boxes.

Nothing here draws pixels or renders notes. A `Script` says what is seen and heard at each time; `film.shoot` and
`film.play` of the tasks make it a video. Coordinates are fractions of the frame, y downwards, times seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from dsol_core.config import OrchestraConfig
from dsol_core.instruments import CATEGORIES, draw
from dsol_core.phrases import Phrase, improvise
from dsol_core.scenery import Background, invent_background
from dsol_core.shapes import Drawing
from dsol_core.types import Box, DataError

SAMPLE_RATE_HZ = 16000

Matrix = NDArray[Any]


@dataclass(frozen=True)
class Wave:
    """A slow swing around 0: amplitude * sin(2 pi (frequency_hz * time + phase))."""

    amplitude: float
    frequency_hz: float
    phase: float

    def at(self, time: float | NDArray[Any]) -> Any:
        """Return the value at a time, or at each of several."""
        return self.amplitude * np.sin(2 * np.pi * (self.frequency_hz * time + self.phase))


@dataclass(frozen=True)
class Actor:
    """One visible instrument: where it is and how it drifts, turns and breathes. `size` is its longer side."""

    category: str
    sounding: bool
    drawing: Drawing
    x: float
    y: float
    size: float
    drift_x: Wave
    drift_y: Wave
    turn: Wave  # radians
    breath: Wave  # factor minus 1

    def pose(self, time: float) -> Matrix:
        """Return the [2, 3] matrix that maps the drawing's coordinates to the stage at this time."""
        angle, scale = self.turn.at(time), self.size * (1 + self.breath.at(time))
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        return np.array([[cos, -sin, self.x + self.drift_x.at(time)], [sin, cos, self.y + self.drift_y.at(time)]])


@dataclass(frozen=True)
class Script:
    """A whole video: what is seen and heard, and the truth about it.

    Attributes:
        seconds: length.
        background: behind everything.
        actors: the instruments; they do not overlap.
        camera_x: shake of background and actors together.
        camera_y: the same.
        exposure: factor on all colours.
        haze: added to all colours.
        light: slow change of the exposure.
        phrases: one for each sounding actor, in their order.
        noise_db: distance of the added noise below the sound.
        noise_seed: of that noise.
    """

    seconds: float
    background: Background
    actors: tuple[Actor, ...]
    camera_x: Wave
    camera_y: Wave
    exposure: float
    haze: float
    light: Wave
    phrases: tuple[Phrase, ...]
    noise_db: float
    noise_seed: int

    @property
    def sounding(self) -> tuple[str, ...]:
        """The categories that are heard, in alphabetical order."""
        return tuple(sorted(actor.category for actor in self.actors if actor.sounding))

    def pose(self, actor: Actor, time: float) -> Matrix:
        """Return the [2, 3] matrix that maps the actor's drawing to the frame at this time."""
        moved = actor.pose(time)
        moved[:, 2] += self.camera_x.at(time), self.camera_y.at(time)
        return moved

    def brightness(self, time: float) -> float:
        """Return the factor on all colours at this time."""
        return float(self.exposure * (1 + self.light.at(time)))

    def boxes(self, time: float) -> tuple[Box, ...]:
        """Return the exact extent of each actor's drawing at this time, cut at the edge of the frame."""
        return tuple(_box(actor, self.pose(actor, time)) for actor in self.actors)


def compose_solo(category: str, config: OrchestraConfig, rng: Generator) -> Script:
    """Return a video of one instrument that plays."""
    return _script([category], 1, config, rng)


def compose_free(config: OrchestraConfig, rng: Generator) -> Script:
    """Return a cocktail-party video: four different instruments on one background, two of which sound."""
    chosen = [CATEGORIES[int(i)] for i in rng.permutation(len(CATEGORIES))[:4]]
    return _script(chosen, 2, config, rng)


def _script(categories: Sequence[str], sounding: int, config: OrchestraConfig, rng: Generator) -> Script:
    camera = [Wave(rng.uniform(0.002, 0.01), rng.uniform(0.3, 1.2), rng.uniform()) for _ in range(2)]
    background = invent_background(rng)
    cells = _cells(rng) if len(categories) == 4 else [(0.0, 0.0, 1.0, 1.0)]
    actors = []
    for i, (category, cell) in enumerate(zip(categories, cells, strict=True)):
        span = min(cell[2] - cell[0], cell[3] - cell[1])
        low, high = config.solo_size if len(categories) == 1 else (0.76, 0.94)
        actors.append(_actor(category, i < sounding, rng.uniform(low, high) * span, cell, config.seconds, rng))
    order = rng.permutation(len(actors))
    return Script(
        seconds=config.seconds,
        background=background,
        actors=tuple(actors[int(i)] for i in order),
        camera_x=camera[0],
        camera_y=camera[1],
        exposure=rng.uniform(0.75, 1.2),
        haze=rng.uniform(-0.06, 0.06),
        light=Wave(rng.uniform(0, 0.06), rng.uniform(0.1, 0.5), rng.uniform()),
        phrases=tuple(
            improvise(actors[int(i)].category, config.seconds, SAMPLE_RATE_HZ, rng)
            for i in order
            if actors[int(i)].sounding
        ),
        noise_db=rng.uniform(20, 40),
        noise_seed=int(rng.integers(2**63)),
    )


def _cells(rng: Generator) -> list[tuple[float, float, float, float]]:
    """Cut the frame into four cells (left, top, right, bottom), in random order."""
    x, y = rng.uniform(0.42, 0.58, 2)
    cells = [(0.0, 0.0, x, y), (x, 0.0, 1.0, y), (0.0, y, x, 1.0), (x, y, 1.0, 1.0)]
    return [cells[int(i)] for i in rng.permutation(4)]


_SHAKE = 0.01  # largest amplitude of the camera


def _actor(
    category: str,
    sounding: bool,
    size: float,
    cell: tuple[float, float, float, float],
    seconds: float,
    rng: Generator,
) -> Actor:
    """Draw an instrument and put it somewhere inside the cell so that it stays there while it moves."""
    drawing = draw(category, rng)
    motion = {
        "drift_x": Wave(size * rng.uniform(0.01, 0.05), rng.uniform(0.1, 0.5), rng.uniform()),
        "drift_y": Wave(size * rng.uniform(0.01, 0.05), rng.uniform(0.1, 0.5), rng.uniform()),
        "turn": Wave(np.radians(rng.uniform(1, 5)), rng.uniform(0.1, 0.6), rng.uniform()),
        "breath": Wave(rng.uniform(0.005, 0.03), rng.uniform(0.1, 0.6), rng.uniform()),
    }
    for _ in range(8):
        still = Actor(category, sounding, drawing, 0.0, 0.0, size, **motion)
        low, high = _envelope(still, seconds)
        room = np.array(cell[2:]) - high - (np.array(cell[:2]) - low)
        if room.min() >= 0:
            x, y = np.array(cell[:2]) - low + rng.uniform(size=2) * room
            return Actor(category, sounding, drawing, float(x), float(y), size, **motion)
        size *= 0.94
    raise DataError(f"{category} of size {size:.2f} does not fit into the cell {cell}; choose a smaller solo_size")


def _envelope(actor: Actor, seconds: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and largest coordinates [2] that the actor reaches, camera shake included."""
    poses = np.stack([actor.pose(time) for time in np.arange(0, seconds + 0.125, 0.125)])
    points = np.einsum("tij,nj->tin", poses[:, :, :2], actor.drawing.vertices) + poses[:, :, 2:]
    return points.min(axis=(0, 2)) - _SHAKE, points.max(axis=(0, 2)) + _SHAKE


def _extent(actor: Actor, pose: Matrix) -> tuple[NDArray[Any], NDArray[Any]]:
    points = actor.drawing.vertices @ pose[:, :2].T + pose[:, 2]
    return points.min(axis=0), points.max(axis=0)


def _box(actor: Actor, pose: Matrix) -> Box:
    low, high = np.clip(_extent(actor, pose), 0, 1)
    (x, y), (width, height) = low.tolist(), (high - low).tolist()
    return Box(x, y, width, height, actor.category, actor.sounding)
