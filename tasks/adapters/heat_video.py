"""Heat-maps, names and a legend on the frames of a video."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tasks.adapters.lettering import letters

Pixels = NDArray[np.uint8]

# Told apart by most eyes, also on photographs (the first eight after Okabe and Ito, brightened).
COLOURS = (
    (255, 80, 60),
    (60, 170, 255),
    (255, 215, 40),
    (40, 220, 130),
    (240, 110, 220),
    (255, 150, 30),
    (140, 120, 255),
    (50, 230, 230),
    (170, 230, 50),
    (255, 160, 170),
    (190, 140, 90),
    (210, 210, 210),
)
_STRENGTH = 0.65  # opacity of a map at its peak
_DARK = 0.3  # share of its maximum below which a map is not drawn
_PANEL = 0.6  # opacity of the legend's dark ground


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour of an entry: always the same one, and another for each of the first dozens."""
    if index < len(COLOURS):
        return COLOURS[index]
    turn = (index - len(COLOURS)) * 0.618034 % 1.0
    red, green, blue = colorsys.hsv_to_rgb(turn, 0.55 + 0.35 * (index % 2), 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


class Painter:
    """Draws the maps of the entries that sound at a time."""

    def __init__(
        self,
        entries: tuple[str, ...],
        maps: NDArray[np.float16],
        sounding: NDArray[np.float32],
        frames_per_second: float,
        threshold: float,
    ) -> None:
        """Take what was localised.

        Args:
            entries: K names.
            maps: [N, K, h, w] in [0, 1] at n / frames_per_second seconds.
            sounding: [N, K] probabilities.
            frames_per_second: of the maps.
            threshold: probability from which an entry sounds.
        """
        self._entries, self._maps, self._sounding = entries, maps, sounding
        self._rate, self._threshold = frames_per_second, threshold

    def paint(self, frame: Pixels, time: float) -> Pixels:
        """Return the frame, uint8 [H, W, 3], with what sounds at `time` (seconds) drawn over it.

        Between two localised frames an entry fades in or out, and its map moves evenly from one to the other.
        """
        place = min(time * self._rate, len(self._maps) - 1.0)
        before = int(place)
        after, share = min(before + 1, len(self._maps) - 1), place - before
        chance = (1 - share) * self._sounding[before].astype(float) + share * self._sounding[after].astype(float)
        ends = [(self._sounding[i] >= self._threshold).astype(float) for i in (before, after)]
        fade = (1 - share) * ends[0] + share * ends[1]
        shown = [k for k, seen in enumerate(fade) if seen > 0]
        if not shown:
            return frame
        pair = [torch.from_numpy(self._maps[i][shown].astype(np.float32)) for i in (before, after)]
        heat = (1 - share) * _relative(pair[0]) + share * _relative(pair[1])
        done = tint(frame, heat, [colour(k) for k in shown], [_STRENGTH * float(fade[k]) for k in shown])
        self._legend(done, [(k, float(chance[k]), float(fade[k])) for k in shown])
        return done

    def _legend(self, frame: Pixels, shown: list[tuple[int, float, float]]) -> None:
        """Write swatch, name and probability of what sounds into the top left corner, in place."""
        height, width = frame.shape[:2]
        size = min(max(round(height / 18), 10), 40)
        line, gap = round(size * 1.35), max(2, size // 3)
        texts = [letters(f"{self._entries[k]} {100 * chance:.0f} %", size) for k, chance, _ in shown]
        bottom = min(height, gap + line * len(texts) + gap)
        right = min(width, 3 * gap + size + max(text.shape[1] for text in texts))
        panel = frame[:bottom, :right]
        strongest = max(fade for _, _, fade in shown)
        panel[:] = (panel * (1 - _PANEL * strongest)).astype(np.uint8)
        for number, (text, (k, _, fade)) in enumerate(zip(texts, shown, strict=True)):
            top = gap + number * line
            _blend(frame, np.full((size, size), 255, np.uint8), colour(k), top + (line - size) // 2, gap, fade)
            _blend(frame, text, (255, 255, 255), top, 2 * gap + size, fade)


def tint(frame: Pixels, heat: torch.Tensor, colours: list[tuple[int, int, int]], strengths: list[float]) -> Pixels:
    """Lay coloured heat-maps over a frame, one after the other.

    The layers are united at an eighth of the frame's size; a large frame then costs two enlargements and a few passes
    of integers, however many layers there are.

    Args:
        frame: uint8 [H, W, 3].
        heat: [k, h, w] in [0, 1].
        colours: k of them.
        strengths: opacity of each where its map is 1.

    Returns:
        uint8 [H, W, 3].
    """
    size = (frame.shape[0], frame.shape[1])
    small = [max(32, side // 8) for side in size]
    smooth = F.interpolate(heat[None].float(), small, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    through, added = torch.ones(3, *small), torch.zeros(3, *small)
    for values, ink, strength in zip(smooth, colours, strengths, strict=True):
        layer = strength * values
        added = torch.lerp(added, torch.tensor(ink, dtype=torch.float32).view(3, 1, 1), layer)
        through = through * (1 - layer)
    light, ink_light = (_enlarged(values, size) for values in (255 * through, added))
    mixed = np.multiply(frame, light, dtype=np.uint16)
    mixed += 127
    mixed //= 255
    mixed += ink_light
    return np.minimum(mixed, 255, out=mixed).astype(np.uint8)


def _enlarged(values: torch.Tensor, size: tuple[int, int]) -> Pixels:
    """Enlarge [3, h, w] values of 0 to 255 to uint8 [H, W, 3]."""
    rounded = values.round().to(torch.uint8)[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(rounded, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()


def _relative(maps: torch.Tensor) -> torch.Tensor:
    """Scale each map to its own maximum and take away what lies below `_DARK` of it."""
    peak = maps.amax((1, 2), keepdim=True).clamp_min(1e-6)
    return ((maps / peak - _DARK) / (1 - _DARK)).clamp(0, 1)


def _blend(frame: Pixels, cover: Pixels, ink: tuple[int, int, int], top: int, left: int, strength: float) -> None:
    """Colour a part of the frame as far as `cover` [h, w] says, in place; what lies outside is left out."""
    place = frame[top : top + cover.shape[0], left : left + cover.shape[1]]
    opacity = cover[: place.shape[0], : place.shape[1], None] * (strength / 255)
    place[:] = np.round(place * (1 - opacity) + np.asarray(ink) * opacity).astype(np.uint8)
