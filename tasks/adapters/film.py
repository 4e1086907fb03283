"""Turns scripts of the generated orchestra, and photographs, into frames and sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from dsol_core.orchestra import SAMPLE_RATE_HZ, Script, Wave
from dsol_core.phrases import Waveform, blend, record
from dsol_core.scenery import MARGIN, Background, interpolation
from dsol_core.shapes import Colour, Drawing, Fill
from dsol_core.types import Box
from tasks.adapters import images, soundfont
from tasks.adapters.images import Pixels

_SUPERSAMPLING = 2
_DETAIL = 1.4  # pixels of a sprite for each pixel of the frame, since it is turned and scaled again
_SPRITE = 1.2  # side of a sprite as a factor on the drawing's: room for the shadow


def play(script: Script) -> Waveform:
    """Return the sound of a generated video, float32 [script.seconds * 16000].

    Raises:
        SoundFontError: the extra `demo` is not installed.
    """
    recordings = []
    for phrase in script.phrases:
        sound = soundfont.render(phrase.notes, phrase.program, phrase.seconds, SAMPLE_RATE_HZ)
        recordings.append(record(sound, phrase, script.seconds, SAMPLE_RATE_HZ))
    return blend(recordings, script.noise_db, np.random.default_rng(script.noise_seed))


def shoot(script: Script, side: int, frames_per_second: float) -> Iterator[Pixels]:
    """Yield the frames of a generated video, uint8 [side, side, 3], the first at time 0."""
    backdrop = _backdrop(script.background, side)
    sprites = [rasterise(actor.drawing, round(actor.size * side * _DETAIL)) for actor in script.actors]
    stretch = np.array([_SPRITE, _SPRITE, 1.0])
    for index in range(round(script.seconds * frames_per_second)):
        time = index / frames_per_second
        scale = len(backdrop) / (1 + 2 * MARGIN)
        left, top = (MARGIN - script.camera_x.at(time)) * scale, (MARGIN - script.camera_y.at(time)) * scale
        frame = images.zoom(backdrop, side, left, top, scale)
        for actor, sprite in zip(script.actors, sprites, strict=True):
            frame = images.place_sprite(frame, sprite, script.pose(actor, time) * side * stretch)
        shades = np.arange(256) * script.brightness(time) + 255 * script.haze
        yield np.clip(shades, 0, 255).astype(np.uint8)[frame]


def rasterise(drawing: Drawing, pixels: int) -> Pixels:
    """Paint a drawing with its light, texture and shadow.

    Args:
        drawing: its longer side has length 1.
        pixels: of that side.

    Returns:
        uint8 [n, n, 4]; the drawing's origin is in the middle, n is 1.2 times `pixels`.
    """
    side = round(pixels * _SPRITE)
    large = np.zeros((side * _SUPERSAMPLING, side * _SUPERSAMPLING, 4), np.uint8)
    plain = images.shrink(
        images.fill_polygons(large, _scaled(drawing.fills, len(large) / _SPRITE, 0.5 * len(large))), 2
    )
    shades = plain[..., :3] * _light(drawing, side)[..., None]
    alpha = plain[..., 3].astype(np.float32) / 255
    shadow = np.zeros_like(alpha)
    if drawing.shading.shadow:
        right, down = round(0.03 * pixels), round(0.04 * pixels)
        dark = images.blur(plain[..., 3], 0.03 * pixels)
        shadow[down:, right:] = dark[: side - down, : side - right] / 510
    whole = alpha + shadow * (1 - alpha)
    shades *= (alpha / np.maximum(whole, 1e-6))[..., None]
    sprite: Pixels = np.clip(np.concatenate([shades, 255 * whole[..., None]], axis=2), 0, 255).astype(np.uint8)
    return sprite


@dataclass(frozen=True)
class Pan:
    """A camera that moves slowly over the centre square of a photograph.

    Photographs are fitted to the square by cutting the longer side, not by bars, which a network could learn.
    """

    height: int
    width: int
    zoom: Wave
    x: Wave
    y: Wave

    def window(self, time: float) -> tuple[float, float, float]:
        """Return left, top and side of what is seen, in pixels of the photograph."""
        square = min(self.height, self.width)
        span = square * (0.94 + self.zoom.at(time))
        room = square - span
        left, top = (room / 2 + np.clip(wave.at(time) * square, -room / 2, room / 2) for wave in (self.x, self.y))
        return (self.width - square) / 2 + left, (self.height - square) / 2 + top, span

    def box(self, box: Box, category: str | None, time: float) -> Box | None:
        """Move a box of the photograph (fractions) to the frame; None where nothing of it is seen."""
        left, top, span = self.window(time)
        scale, shift = np.array([self.width, self.height]) / span, np.array([left, top]) / span
        low = np.clip(np.array([box.x, box.y]) * scale - shift, 0, 1)
        high = np.clip(np.array([box.x + box.width, box.y + box.height]) * scale - shift, 0, 1)
        if (high - low).min() < 1e-3:
            return None
        (x, y), (width, height) = low.tolist(), (high - low).tolist()
        return Box(x, y, width, height, category)


def slow_pan(height: int, width: int, rng: Generator) -> Pan:
    """Return a slow camera for a photograph of this size."""
    zoom = Wave(rng.uniform(0.01, 0.04), rng.uniform(0.05, 0.2), rng.uniform())
    x, y = (Wave(rng.uniform(0.005, 0.03), rng.uniform(0.05, 0.25), rng.uniform()) for _ in range(2))
    return Pan(height, width, zoom, x, y)


def pan_over(photo: Pixels, pan: Pan, side: int, seconds: float, frames_per_second: float) -> Iterator[Pixels]:
    """Yield the frames of a video of a photograph, uint8 [side, side, 3], the first at time 0."""
    for index in range(max(1, round(seconds * frames_per_second))):
        left, top, span = pan.window(index / frames_per_second)
        yield images.zoom(photo, side, left, top, span)


def _light(drawing: Drawing, side: int) -> NDArray[Any]:
    shading, line = drawing.shading, np.arange(side) / side - 0.5
    slope = np.cos(shading.angle) * line[None, :] + np.sin(shading.angle) * line[:, None]
    weights = interpolation(len(shading.texture), side)
    grain = weights @ shading.texture @ weights.T
    return np.asarray((1 + 2 * shading.strength * slope) * (1 + shading.roughness * grain))


def _backdrop(background: Background, side: int) -> Pixels:
    """Return the backdrop with its clutter; it is larger than the frame by the camera's margin."""
    pixels = round(side * (1 + 2 * MARGIN))
    scale = pixels / (1 + 2 * MARGIN)
    bare = (255 * background.paint(pixels)).astype(np.uint8)
    return images.blur(
        images.fill_polygons(bare, _scaled(background.clutter, scale, MARGIN * scale)), background.blur * scale
    )


def _scaled(fills: Iterable[Fill], scale: float, origin: float) -> Iterator[tuple[NDArray[Any], Colour]]:
    for fill in fills:
        yield fill.points * scale + origin, fill.colour
