"""What a model says about benchmark items: media are found, read, cut as in training, and localised in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsol_core import binarise
from dsol_core.audio import LEVEL
from dsol_core.protocols import Item, Maps
from dsol_core.protocols import Protocol as Record
from tasks.adapters import images
from tasks.adapters.media_layouts import Library, Missing, Place
from tasks.adapters.media_reading import read_picture, read_sound
from tasks.adapters.view import View

Floats = NDArray[np.float32]

BATCH = 16  # pictures localised at a time
_QUIET = 1e-6  # RMS below which a sound is silent and is not brought to a level


class Localises(Protocol):
    """What is asked of a model: `tasks.localize_video.Model`."""

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the K entries."""
        ...

    @property
    def side(self) -> int:
        """Pixels of its square frames."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """Of the sound it wants."""
        ...

    @property
    def clip_seconds(self) -> float:
        """Length of the sound around a frame, as in training."""
        ...

    @property
    def square(self) -> str:
        """How a picture becomes a square."""
        ...

    @property
    def predict(self) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Frames, waveforms -> maps [N, K, h, w], sounding [N, K]."""
        ...


@dataclass(frozen=True)
class Request:
    """An item's media, found.

    Attributes:
        key: of the item.
        pictures: one, or a pair's two.
        sounds: heard together.
        seconds: of each sound that the protocol lets a system hear; None: as much as it likes.
        mix: how several sounds become one: "sum", "average" or "first" (`Switches.mix`).
    """

    key: str
    pictures: tuple[Place, ...]
    sounds: tuple[Place, ...]
    seconds: tuple[float | None, ...]
    mix: str


@dataclass(frozen=True)
class Lack:
    """An item that cannot be localised, the medium to blame, and why."""

    item: str
    medium: str
    cause: str


def named_clips(protocol: Record) -> bool:
    """Tell whether the names of media, without a start, are of 10-second clips: AudioSet's."""
    return protocol.name.startswith("audioset")


def find_media(items: Iterable[Item], library: Library, mix: str, *, clips: bool) -> Iterator[Request | Lack]:
    """Look up the media of items; nothing is opened.

    Args:
        items: of a benchmark.
        library: of the media.
        mix: see `Request`.
        clips: names of media without a start are of 10-second clips (AudioSet).
    """
    for item in items:
        key = item.key if len(item.pictures) == 1 else None
        pictures = [library.picture(one, key, clips=clips) for one in item.pictures]
        sounds = [library.sound(one, clips=clips) for one in item.sounds]
        names = [*(one.name for one in item.pictures), *(one.name for one in item.sounds)]
        found = [*pictures, *sounds]
        lacks = (
            Lack(item.key, name, one.cause) for name, one in zip(names, found, strict=True) if isinstance(one, Missing)
        )
        if lack := next(lacks, None):
            yield lack
            continue
        places, count = [one for one in found if isinstance(one, Place)], len(pictures)
        seconds = tuple(one.duration for one in item.sounds)
        yield Request(item.key, tuple(places[:count]), tuple(places[count:]), seconds, mix)


def predict(requests: Iterable[Request], model: Localises) -> Iterator[Maps | Lack]:
    """Localise items, in batches; what cannot be read is said in its place.

    Of a pair each picture is localised with the mixed sound, and the maps lie side by side. Where a model saw the
    middle square of a picture only, the rest of the map is 0. An entry's confidence is the highest probability, over
    the pictures, that it sounds.
    """
    waiting: list[tuple[Request, list[tuple[Any, View]], Floats]] = []
    pictures = 0
    for request in requests:
        read = _read(request, model)
        if isinstance(read, Lack):
            yield read
            continue
        waiting.append((request, *read))
        pictures += len(request.pictures)
        if pictures >= BATCH:
            yield from _localised(waiting, model)
            waiting, pictures = [], 0
    if waiting:
        yield from _localised(waiting, model)


def _read(request: Request, model: Localises) -> tuple[list[tuple[Any, View]], Floats] | Lack:
    pictures, sounds = [], []
    for place in request.pictures:
        picture = read_picture(place)
        if isinstance(picture, Missing):
            return Lack(request.key, place.path.name, picture.cause)
        view = View.of(model, *picture.shape[:2])
        pictures.append((view.part(images.resize(picture, view.scaled)), view))
    for place, seconds in zip(request.sounds, request.seconds, strict=True):
        wanted = model.clip_seconds
        sound = read_sound(place, wanted if seconds is None else min(wanted, seconds), model.sample_rate_hz)
        if isinstance(sound, Missing):
            return Lack(request.key, place.path.name, sound.cause)
        sounds.append(np.resize(sound, round(wanted * model.sample_rate_hz)))
    return pictures, mix_sounds(sounds, request.mix)


def mix_sounds(sounds: Sequence[Floats], mix: str) -> Floats:
    """Mix sounds of one length.

    Args:
        sounds: float32 [S] each.
        mix: "sum" of the waveforms; "average" after each was brought to the same RMS (silence stays silent); "first"
            alone. One sound stays as it is.
    """
    if len(sounds) == 1 or mix == "first":
        return sounds[0]
    if mix == "sum":
        return np.asarray(np.stack(sounds).sum(0), np.float32)
    levels = [float(np.sqrt(np.mean(np.square(one, dtype=np.float64)))) for one in sounds]
    even = [
        one * np.float32(LEVEL / level if level > _QUIET else 0.0) for one, level in zip(sounds, levels, strict=True)
    ]
    return np.asarray(np.stack(even).mean(0), np.float32)


def _localised(waiting: list[tuple[Request, list[tuple[Any, View]], Floats]], model: Localises) -> Iterator[Maps]:
    frames = np.stack([picture for _, pictures, _ in waiting for picture, _ in pictures])
    waves = np.stack([sound for _, pictures, sound in waiting for _ in pictures])
    maps, sounding = model.predict(frames, waves)
    first = 0
    for request, pictures, _ in waiting:
        own = slice(first, first + len(pictures))
        parts = [whole_frame(part, view) for part, (_, view) in zip(maps[own], pictures, strict=True)]
        size = max(part.shape[1] for part in parts), max(part.shape[2] for part in parts)
        joined = np.concatenate([binarise.resize(part, size) for part in parts], axis=2)
        confidence = tuple(float(value) for value in sounding[own].max(0))
        yield Maps(request.key, joined, tuple(model.entries), confidence)
        first += len(pictures)


def whole_frame(maps: Any, view: View) -> Any:
    """Put maps of the part that a model saw into maps of the whole frame, [K, h, w] -> [K, h', w']; 0 around."""
    height, width = maps.shape[1:]
    tall, wide = round((height / view.height - height) / 2), round((width / view.width - width) / 2)
    return np.pad(np.asarray(maps, np.float32), ((0, 0), (tall, tall), (wide, wide)))
