"""Frames, sounds and spectrograms of benchmark items: from the place that `media_layouts` found to numbers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsol_core import clip_windows
from dsol_core.types import DataError
from tasks.adapters import images, media
from tasks.adapters.array_pickle import load_array
from tasks.adapters.media_layouts import CLIP, Missing, Place

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

_LONGEST_CLIP = CLIP + 1.0  # seconds; clips of 10 s are seldom cut to the frame
_BEYOND = 0.5  # seconds by which a window's middle may lie behind the end: cutting tools round
_WHOLE = 4 * 3600.0  # seconds of a whole recording that are read at most


def read_picture(place: Place) -> Pixels | Missing:
    """Return a frame at its own size, uint8 [H, W, 3], or why it cannot be had."""
    try:
        if place.kind == "picture":
            return images.decode_image(place.path)
        second = _second(place)
        if isinstance(second, Missing) or second is None:
            return second or Missing("no file")
        frame = media.frame_at(place.path, second)
    except DataError as error:
        return Missing("cannot be decoded", str(error))
    return Missing("too short", f"{place.path.name} has no picture at {second:g} s") if frame is None else frame


def read_sound(
    place: Place, seconds: float | None, sample_rate_hz: int, *, neighbours: bool = False
) -> Floats | Missing:
    """Return a window of sound around the place's second, or why it cannot be had.

    A window that reaches over an end of the recording is moved inside; a recording shorter than the window is repeated.

    Args:
        place: where; its second None stands for the middle of the whole recording.
        seconds: of the window; None for the whole recording.
        sample_rate_hz: of the result.
        neighbours: return the window between its neighbours (see `clip_windows.between_neighbours`).

    Returns:
        float32 [S], mono in [-1, 1]; of three windows with neighbours.
    """
    try:
        second = _second(place)
        if isinstance(second, Missing):
            return second
        if second is None or seconds is None:
            whole = _whole_sound(place.path, sample_rate_hz)
            middle = len(whole) / sample_rate_hz / 2 if second is None else second
            return _window(whole, middle, seconds, sample_rate_hz, place, neighbours)
        # Enough to move a window inside that reaches over the end, and for the windows beside it.
        start = max(0.0, second - (3.5 if neighbours else 1.5) * seconds)
        until = second + (3.0 if neighbours else 0.5) * seconds
        near = media.sound_between(place.path, start, until - start, sample_rate_hz)
        if len(near) < round(seconds * sample_rate_hz) and start == 0.0:
            near = media.sound_between(place.path, 0.0, seconds, sample_rate_hz)
        return _window(near, second - start, seconds, sample_rate_hz, place, neighbours)
    except DataError as error:
        return Missing("cannot be decoded", str(error))


def read_spectrogram(place: Place) -> Floats | Missing:
    """Return a pickled spectrogram, float32 [T, M], or why it cannot be had."""
    try:
        array = load_array(place.path)
    except DataError as error:
        return Missing("cannot be decoded", str(error))
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        return Missing("cannot be decoded", f"{place.path.name} holds {list(array.shape)}; expected finite [T, M]")
    return array.astype(np.float32)


def _window(
    sound: Floats, middle: float, seconds: float | None, rate: int, place: Place, neighbours: bool
) -> Floats | Missing:
    if not len(sound) or middle > len(sound) / rate + _BEYOND:
        return Missing("too short", f"{place.path.name} has no sound at {place.second or 0:g} s")
    if seconds is None:
        return sound
    length = round(seconds * rate)
    if len(sound) < length:
        sound = np.resize(sound, length)
    first = min(max(0, round(middle * rate) - length // 2), len(sound) - length)
    return clip_windows.between_neighbours(sound, first, length) if neighbours else sound[first : first + length]


def _second(place: Place) -> float | Missing | None:
    """Return the second to look at: a short file named by a video's id alone is the clip, not the video."""
    if place.in_clip is None and not place.clip_only:
        return place.second
    short = _duration(place.path) <= _LONGEST_CLIP
    if place.clip_only:
        return place.second if short else Missing("start unknown", f"{place.path.name} is longer than a clip")
    return place.in_clip if short else place.second


@lru_cache(maxsize=4096)
def _duration(path: Path) -> float:
    try:
        return media.probe(path).duration or media.probe(path, check="packets").duration
    except DataError:  # sound alone: `probe` describes videos
        return len(media.sound_between(path, 0.0, _LONGEST_CLIP + 1, 8000)) / 8000


@lru_cache(maxsize=4)
def _whole_sound(path: Path, sample_rate_hz: int) -> Floats:
    return media.sound_between(path, 0.0, _WHOLE, sample_rate_hz)
