"""The eleven drawn instruments of the generated data set: what each looks like, and one instance of it from a seed."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from dsol_core.shapes import (
    Drawing,
    Fill,
    Palette,
    Part,
    Shading,
    bar,
    bend,
    disc,
    ellipse,
    fill,
    line,
    mirrored,
    polygons,
    ring,
    tones,
    tube,
)
from dsol_core.types import DataError

_FIDDLE = [
    *[(0, -0.42), (0.10, -0.42), (0.24, -0.36), (0.29, -0.22), (0.24, -0.08), (0.19, 0.02), (0.2, 0.12)],
    *[(0.27, 0.2), (0.36, 0.34), (0.37, 0.5), (0.29, 0.66), (0.14, 0.73), (0, 0.74)],
]
_GUITAR = [
    *[(0, -0.2), (0.14, -0.2), (0.26, -0.12), (0.27, 0.03), (0.21, 0.15), (0.23, 0.26), (0.36, 0.42)],
    *[(0.39, 0.6), (0.33, 0.78), (0.18, 0.88), (0, 0.9)],
]


def _fiddle(low: float, scale: float) -> list[Part]:
    """Body, fingerboard, scroll and strings that violin and cello share; `low` moves the body down."""
    body = mirrored(np.array(_FIDDLE) * [scale * 0.98, 0.82 * scale] + [0, low])
    parts = [fill("body", body), ring("shade", 0.022, body)]
    for side in (-1, 1):
        hole = [(0.1, low - 0.07), (0.13, low + 0.02), (0.11, low + 0.12), (0.15, low + 0.2)]
        parts.append(line("black", 0.028, np.array(hole) * [side, 1]))
    parts += [
        fill("black", [(-0.035, -0.85), (0.035, -0.85), (0.055, low + 0.02), (-0.055, low + 0.02)]),
        fill("black", [(-0.05, low + 0.3), (0.05, low + 0.3), (0.03, low + 0.55), (-0.03, low + 0.55)]),
        bar("light", -0.11, low + 0.16, 0.11, low + 0.2),
        disc("body", 0, -0.9, 0.06, 0.08),
        disc("shade", 0, -0.9, 0.025, 0.035),
    ]
    parts += [line("shade", 0.03, [(0, y), (s * 0.13, y - 0.02)]) for s, y in _PEGS]
    parts += [line("string", 0.01, [(x, -0.8), (x, low + 0.32)]) for x in (-0.02, 0.02)]
    return parts


_PEGS = ((-1, -0.84), (1, -0.8), (-1, -0.74), (1, -0.7))


def _violin(rng: Generator) -> list[Part]:
    parts = [*_fiddle(0.18, 0.92), disc("black", -0.17, 0.68, 0.12, 0.07)]
    if rng.random() < 0.8:  # the bow, lengthwise
        parts += [line("shade", 0.035, [(0.62, -0.75), (0.12, 0.95)])]
        parts += [line("light", 0.02, [(0.57, -0.7), (0.08, 0.88)])]
    return parts


def _cello(rng: Generator) -> list[Part]:
    parts = [line("metal", 0.03, [(0, 0.8), (0, 1.0)]), *_fiddle(0.1, 1.12)]
    if rng.random() < 0.8:  # the bow, across
        parts += [line("shade", 0.035, [(-0.75, -0.02), (0.8, 0.16)])]
        parts += [line("light", 0.02, [(-0.72, 0.04), (0.76, 0.21)])]
    return parts


def _accordion(rng: Generator) -> list[Part]:
    open_to, folds = rng.uniform(0.28, 0.45), int(rng.integers(6, 10))
    parts = [
        fill("body", [(-0.9, -0.6), (-open_to, -0.52), (-open_to, 0.52), (-0.9, 0.6)]),
        fill("body", [(open_to, -0.52), (0.85, -0.58), (0.85, 0.58), (open_to, 0.52)]),
    ]
    edges = np.linspace(-open_to, open_to, folds + 1)
    for left, right in pairwise(edges):
        middle = (left + right) / 2
        parts.append(fill("fold", [(left, -0.5), (middle, -0.6), (middle, 0.6), (left, 0.5)]))
        parts.append(fill("shade", [(middle, -0.6), (right, -0.5), (right, 0.5), (middle, 0.6)]))
    parts.append(bar("white", -0.98, -0.5, -0.72, 0.5))
    for key in range(9):
        y = -0.5 + key * 0.111
        parts.append(line("black", 0.012, [(-0.98, y), (-0.72, y)]))
        if key % 7 not in (2, 6):
            parts.append(bar("black", -0.88, y + 0.07, -0.72, y + 0.14))
    return parts + [disc("white", 0.52 + 0.14 * j, -0.36 + 0.18 * i, 0.035, 0.035) for i in range(5) for j in (0, 1)]


def _acoustic_guitar(rng: Generator) -> list[Part]:
    body = mirrored(_GUITAR)
    parts = [
        fill("body", body),
        ring("shade", 0.03, body),
        fill("shade", [(-0.055, -0.8), (0.055, -0.8), (0.06, 0.1), (-0.06, 0.1)]),
        disc("shade", 0, 0.18, 0.14, 0.14),
        disc("black", 0, 0.18, 0.115, 0.115),
        bar("shade", -0.16, 0.58, 0.16, 0.66),
        fill("body", [(-0.08, -1.0), (0.08, -1.0), (0.06, -0.78), (-0.06, -0.78)]),
    ]
    parts += [disc("metal", side * 0.11, y, 0.03, 0.02) for side in (-1, 1) for y in (-0.96, -0.9, -0.84)]
    parts += [line("metal", 0.01, [(-0.055, y), (0.055, y)]) for y in -0.75 + 0.11 * np.arange(7)]
    return parts + [line("string", 0.008, [(x, -0.95), (x, 0.6)]) for x in (-0.035, -0.012, 0.012, 0.035)]


def _clarinet(rng: Generator) -> list[Part]:
    tube = [(0, -0.8), (0.03, -0.8), (0.05, 0.5), (0.055, 0.68), (0.16, 0.97), (0, 0.97)]
    parts = [fill("body", mirrored(tube))]
    parts.append(fill("black", [(-0.012, -1.0), (0.02, -1.0), (0.04, -0.8), (-0.04, -0.8)]))
    parts += [bar("metal", -0.058, y, 0.058, y + 0.035) for y in (-0.8, -0.55, 0.05, 0.66)]
    for i, y in enumerate((-0.45, -0.34, -0.23, -0.12, 0.14, 0.25, 0.36, 0.48)):
        parts.append(disc("metal", 0.0 if i % 3 else 0.03, y, 0.034, 0.034))
    parts += [
        line("metal", 0.022, [(0.075, -0.4), (0.075, 0.0)]),
        line("metal", 0.022, [(-0.08, 0.1), (-0.08, 0.52)]),
    ]
    return parts + [disc("metal", x, y, 0.033, 0.035) for x, y in ((0.085, 0.3), (-0.085, 0.56), (0.09, 0.55))]


def _erhu(rng: Generator) -> list[Part]:
    box = [
        *[(-0.2, 0.5), (-0.1, 0.4), (0.14, 0.4), (0.24, 0.5)],
        *[(0.24, 0.74), (0.14, 0.84), (-0.1, 0.84)],
        (-0.2, 0.74),
    ]
    parts = [
        line("body", 0.055, [(0.02, -0.9), (0.02, 0.45)]),
        line("body", 0.05, [(0.02, -0.9), (-0.02, -0.97), (-0.09, -0.98)]),
        fill("body", box),
        disc("hide", 0.02, 0.62, 0.14, 0.15),
        ring("shade", 0.025, box),
    ]
    for y in (-0.72, -0.54):
        parts += [line("body", 0.05, [(0.0, y), (-0.27, y - 0.02)]), disc("shade", -0.28, y - 0.02, 0.035, 0.045)]
    parts += [
        line("string", 0.014, [(-0.03, -0.7), (0.0, 0.62)]),
        line("string", 0.014, [(0.06, -0.52), (0.03, 0.62)]),
        bar("body", -0.22, 0.84, 0.26, 0.9),
    ]
    if rng.random() < 0.85:
        parts += [
            line("hide", 0.03, [(-0.75, 0.22), (0.78, 0.4)]),
            line("white", 0.02, [(-0.72, 0.29), (0.76, 0.42)]),
        ]
    return parts


def _flute(rng: Generator) -> list[Part]:
    parts = [
        line("body", 0.075, [(-1, 0), (1, 0)]),
        disc("body", -0.62, -0.03, 0.1, 0.055),
        disc("black", -0.62, -0.035, 0.035, 0.02),
        line("shade", 0.015, [(-1, 0.03), (1, 0.03)]),
    ]
    parts += [bar("metal", x, -0.05, x + 0.06, 0.05) for x in (-0.98, -0.42, 0.62)]
    for x in (-0.28, -0.16, -0.05, 0.06, 0.17, 0.28, 0.4, 0.5, 0.72, 0.82):
        parts += [disc("shade", x, -0.02, 0.045, 0.045), disc("light", x, -0.03, 0.034, 0.034)]
    return [
        *parts,
        line("metal", 0.018, [(-0.3, 0.065), (0.55, 0.065)]),
        line("metal", 0.022, [(0.55, -0.07), (0.7, -0.09)]),
    ]


def _saxophone(rng: Generator) -> list[Part]:
    neck = [(-0.62, -0.72), (-0.5, -0.86), (-0.3, -0.88), (-0.17, -0.78)]
    rise = [(0.44, 0.3), (0.5, 0.08), (0.56, -0.12)]
    path = np.concatenate(
        [neck, [(-0.12, -0.5), (-0.06, 0.1), (-0.02, 0.45)], ellipse(0.2, 0.5, 0.22, 0.32, 180, 0, 9), rise]
    )
    widths = np.concatenate(
        [np.linspace(0.05, 0.09, 4), np.linspace(0.1, 0.2, 3), np.linspace(0.22, 0.25, 9), [0.3, 0.38, 0.58]]
    )
    parts = [
        tube("body", path, widths),
        line("black", 0.07, [(-0.66, -0.62), (-0.6, -0.76)]),
        disc("shade", 0.56, -0.13, 0.27, 0.09),
        disc("black", 0.56, -0.13, 0.2, 0.055),
    ]
    for i in range(7):
        x, y = -0.13 + 0.014 * i, -0.5 + 0.14 * i
        parts += [disc("shade", x, y, 0.07, 0.055), disc("light", x - 0.005, y - 0.01, 0.05, 0.04)]
    parts.append(line("metal", 0.025, [(0.07, -0.4), (0.11, 0.35)]))
    return [*parts, disc("light", 0.42, 0.32, 0.07, 0.07), disc("light", 0.16, 0.3, 0.05, 0.05)]


def _trumpet(rng: Generator) -> list[Part]:
    bends = [ellipse(0.32, 0.07, 0.2, 0.19, -90, 90, 9), ellipse(-0.42, 0.07, 0.2, 0.19, 90, 270, 9)]
    bell = [(0.25, -0.12), (0.5, -0.12), (0.7, -0.12), (0.85, -0.12), (0.95, -0.12)]
    parts = [
        line("body", 0.06, [(-0.95, -0.12), (0.3, -0.12)]),
        ring("body", 0.06, np.concatenate(bends)),
        tube("body", bell, [0.06, 0.08, 0.15, 0.3, 0.55]),
        disc("shade", 0.95, -0.12, 0.05, 0.28),
        fill("metal", [(-1.0, -0.18), (-0.93, -0.15), (-0.93, -0.09), (-1.0, -0.06)]),
    ]
    for x in (-0.2, -0.05, 0.1):
        parts += [line("shade", 0.12, [(x, -0.2), (x, 0.34)]), line("light", 0.09, [(x, -0.2), (x, 0.34)])]
        parts += [line("metal", 0.03, [(x, -0.32), (x, -0.2)]), disc("white", x, -0.34, 0.05, 0.028)]
    return parts


def _tuba(rng: Generator) -> list[Part]:
    horn = [(-0.36, 0.45), (-0.36, 0.1), (-0.33, -0.25), (-0.3, -0.55), (-0.27, -0.72), (-0.26, -0.82)]
    parts = [
        line("body", 0.12, ellipse(0.0, 0.3, 0.42, 0.55, n=24)),
        line("shade", 0.02, ellipse(0.0, 0.3, 0.35, 0.48, n=24)),
        line("body", 0.09, ellipse(0.05, 0.34, 0.24, 0.36)),
        tube("body", horn, [0.16, 0.22, 0.3, 0.42, 0.62, 0.85]),
        disc("shade", -0.26, -0.83, 0.43, 0.13),
        disc("black", -0.26, -0.83, 0.33, 0.085),
        line("body", 0.05, [(0.35, -0.02), (0.42, -0.3), (0.28, -0.4)]),
        disc("metal", 0.25, -0.41, 0.06, 0.05),
    ]
    for x in (0.0, 0.12, 0.24):
        parts += [line("shade", 0.09, [(x, 0.08), (x, 0.5)]), line("light", 0.06, [(x, 0.08), (x, 0.5)])]
        parts.append(disc("white", x, 0.03, 0.045, 0.03))
    return parts


def _xylophone(rng: Generator) -> list[Part]:
    bars, rainbow = int(rng.integers(8, 13)), rng.random() < 0.45
    parts = [line("shade", 0.05, [(-0.95, -0.3), (0.95, -0.14)]), line("shade", 0.05, [(-0.95, 0.3), (0.95, 0.14)])]
    parts += [line("shade", 0.045, [(side * 0.8, 0.2), (side * 0.86, 0.8)]) for side in (-1, 1)]
    parts.append(line("shade", 0.03, [(-0.84, 0.6), (0.84, 0.6)]))
    for i in range(bars):
        x, height, width = -0.92 + 1.84 * (i + 0.5) / bars, 0.52 - 0.25 * i / bars, 0.7 / bars
        parts.append(bar(i / bars if rainbow else "body", x - width, -height, x + width, height))
        gleam = [(x - width * 0.4, -height * 0.9), (x - width * 0.4, height * 0.9)]
        parts.append(line("white" if rainbow else "light", 0.02, gleam))
        parts += [disc("black", x, side * height * 0.6, 0.02, 0.02) for side in (-1, 1)]
    if rng.random() < 0.7:  # two mallets
        for side, shift in ((-1, 0.3), (1, 0.1)):
            end = side * 0.3 + shift
            parts.append(line("hide", 0.03, [(end, -0.05), (side * 0.65 + shift * 0.5, -0.85)]))
            parts.append(disc("white", end, -0.05, 0.06, 0.06))
    return parts


# Colours of the body: ranges of hue, saturation and value, one row chosen at random.
_BRASS = (
    (0.10, 0.15, 0.45, 0.85, 0.75, 1.0),
    (0.05, 0.1, 0.3, 0.6, 0.6, 0.9),
    (0.0, 1.0, 0.0, 0.08, 0.7, 0.95),
)


@dataclass(frozen=True)
class _Look:
    shape: Callable[[Generator], list[Part]]
    palette: Palette
    tilt: float = 0.0  # degrees around which the instrument is turned, by up to 30 and `turn` to either side
    turn: float = 25.0


_LOOKS: dict[str, _Look] = {
    "accordion": _Look(
        _accordion,
        (
            (0.95, 1.05, 0.7, 1, 0.5, 0.9),
            (0.55, 0.7, 0.6, 1, 0.3, 0.8),
            (0, 1, 0, 0.1, 0.1, 0.25),
            (0.3, 0.45, 0.5, 1, 0.3, 0.6),
        ),
    ),
    "acoustic_guitar": _Look(
        _acoustic_guitar,
        ((0.07, 0.13, 0.35, 0.8, 0.7, 1), (0.02, 0.08, 0.6, 0.9, 0.4, 0.7), (0, 1, 0, 0.2, 0.15, 0.3)),
    ),
    "cello": _Look(_cello, ((0.02, 0.07, 0.7, 1, 0.3, 0.65),)),
    "clarinet": _Look(_clarinet, ((0, 1, 0, 0.15, 0.08, 0.25),)),
    "erhu": _Look(_erhu, ((0, 0.07, 0.5, 0.9, 0.2, 0.5),)),
    "flute": _Look(_flute, ((0, 1, 0, 0.1, 0.75, 1), (0.1, 0.14, 0.3, 0.6, 0.8, 1)), tilt=-20, turn=0),
    "saxophone": _Look(_saxophone, _BRASS),
    "trumpet": _Look(_trumpet, _BRASS),
    "tuba": _Look(_tuba, _BRASS),
    "violin": _Look(_violin, ((0.04, 0.1, 0.6, 0.95, 0.5, 0.9),)),
    "xylophone": _Look(_xylophone, ((0, 0.08, 0.5, 0.9, 0.4, 0.7),)),
}
CATEGORIES: tuple[str, ...] = tuple(_LOOKS)


def draw(category: str, rng: Generator) -> Drawing:
    """Draw one instance of an instrument: its own colour, proportions, bend, turn, light and surface.

    Raises:
        DataError: there is no such instrument.
    """
    if category not in _LOOKS:
        raise DataError(f"no instrument {category!r}; expected one of {', '.join(CATEGORIES)}")
    look = _LOOKS[category]
    colours = tones(look.palette, rng)
    parts = look.shape(rng)
    thickness = rng.uniform(0.85, 1.3)
    warp = bend(look.tilt, look.turn, rng)
    fills = []
    for part in parts:
        colour = colours[part.tone] if isinstance(part.tone, str) else colorsys.hsv_to_rgb(part.tone, 0.8, 0.9)
        fills += [Fill(warp(points), colour) for points in polygons(part, thickness)]
    corners = np.concatenate([fill.points for fill in fills])
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, side = (low + high) / 2, float((high - low).max())
    shading = Shading(
        angle=rng.uniform(0, 2 * np.pi),
        strength=rng.uniform(0.1, 0.5),
        texture=rng.uniform(-0.5, 0.5, (24, 24)),
        roughness=rng.uniform(0, 0.35),
        shadow=bool(rng.random() < 0.6),
    )
    return Drawing(tuple(Fill((fill.points - middle) / side, fill.colour) for fill in fills), shading)
