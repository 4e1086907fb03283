"""What a model says about benchmark items: media are found, read, cut as in training, and localised in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsol_core import binarise
from dsol_core.audio import LEVEL
from dsol_core.protocols import Item, Maps, Protocol
from tasks.adapters import images
from tasks.adapters.localizers import Floats, Model
from tasks.adapters.media_layouts import Library, Missing, Place
from tasks.adapters.media_reading import read_picture, read_sound, read_spectrogram
from tasks.adapters.view import View

BATCH = 16  # pictures localised at a time
_FINER = 4  # times the cells of a map that covers a part of the frame only
_QUIET = 1e-6  # RMS below which a sound is silent and is not brought to a level


@dataclass(frozen=True)
class _Ready:
    """An item whose media are read."""

    request: Request
    pictures: tuple[tuple[Any, View], ...]
    sound: Floats  # [S], or [T, M]


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


def named_clips(protocol: Protocol) -> bool:
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


def predict(requests: Iterable[Request], model: Model) -> Iterator[Maps | Lack]:
    """Localise items, in batches; what cannot be read is said in its place.

    Of a pair each picture is localised with the mixed sound, and the maps lie side by side. Where a model saw the
    middle square of a picture only, the rest of the map is 0. An entry's confidence is the highest probability, over
    the pictures, that it sounds; a class-agnostic map, where the model has one, comes last and without confidence.
    """
    waiting: dict[tuple[int, ...], list[_Ready]] = {}  # by the shape of the sound: what fits into one batch
    for request in requests:
        read = _read(request, model)
        if isinstance(read, Lack):
            yield read
            continue
        batch = waiting.setdefault(read.sound.shape, [])
        batch.append(read)
        if sum(len(one.pictures) for one in batch) >= BATCH:
            yield from _localised(waiting.pop(read.sound.shape), model)
    for batch in waiting.values():
        yield from _localised(batch, model)


def _read(request: Request, model: Model) -> _Ready | Lack:
    pictures = []
    for place in request.pictures:
        picture = read_picture(place)
        if isinstance(picture, Missing):
            return Lack(request.key, place.path.name, picture.cause)
        view = View.of(model, *picture.shape[:2])
        pictures.append((view.part(images.resize(picture, view.scaled)), view))
    sounds = []
    for place, seconds in zip(request.sounds, request.seconds, strict=True):
        sound = _heard(place, seconds, model, alone=len(request.sounds) == 1)
        if isinstance(sound, Missing):
            return Lack(request.key, place.path.name, sound.cause)
        sounds.append(sound)
    return _Ready(request, tuple(pictures), mix_sounds(sounds, request.mix))


def _heard(place: Place, seconds: float | None, model: Model, *, alone: bool) -> Floats | Missing:
    """Read a clip of sound, between its neighbours where the model hears them and the protocol lets it.

    A clip that the protocol lets be heard for less is repeated.
    """
    if place.kind == "spectrogram":
        return read_spectrogram(place) if model.predict_log_mels and alone else Missing("spectrogram only")
    if model.windows > 1 and heard_seconds(seconds, model) == model.heard_seconds:
        return read_sound(place, model.clip_seconds, model.sample_rate_hz, neighbours=True)
    sound = read_sound(place, heard_seconds(seconds, model), model.sample_rate_hz)
    return sound if isinstance(sound, Missing) else np.resize(sound, round(model.clip_seconds * model.sample_rate_hz))


def heard_seconds(allowed: float | None, model: Model) -> float:
    """Return how much sound a model hears of as much as a protocol allows; None: as much as it likes."""
    if allowed is None or allowed >= model.heard_seconds:
        return model.heard_seconds
    return min(model.clip_seconds, allowed)


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


def _localised(batch: list[_Ready], model: Model) -> Iterator[Maps]:
    frames = np.stack([picture for one in batch for picture, _ in one.pictures])
    sounds = np.stack([one.sound for one in batch for _ in one.pictures])
    maps, sounding, agnostic = _predicted(model, frames, sounds)
    names: tuple[str | None, ...] = tuple(model.entries)
    if agnostic is not None:
        maps, names = np.concatenate([maps, agnostic[:, None]], axis=1), (*names, None)
    first = 0
    for one in batch:
        own = slice(first, first + len(one.pictures))
        parts = [whole_frame(part, view) for part, (_, view) in zip(maps[own], one.pictures, strict=True)]
        size = max(part.shape[1] for part in parts), max(part.shape[2] for part in parts)
        joined = np.concatenate([binarise.resize(part, size) for part in parts], axis=2)
        confidence = [float(value) for value in sounding[own].max(0)]
        yield Maps(one.request.key, joined, names, (*confidence, *[None] * (len(names) - len(confidence))))
        first += len(one.pictures)


def _predicted(model: Model, frames: Any, sounds: Any) -> tuple[Any, Any, Any]:
    if sounds.ndim == 3:
        assert model.predict_log_mels is not None, "spectrograms are read for models that take them"
        return model.predict_log_mels(frames, sounds)
    return model.predict_all(frames, sounds) if model.predict_all else (*model.predict(frames, sounds), None)


def whole_frame(maps: Any, view: View) -> Any:
    """Put maps of the part that a model saw into maps of the whole frame, [K, h, w] -> [K, h', w']; 0 around.

    Such maps are made `_FINER` times finer first: what is around is a whole number of their cells.
    """
    if (view.height, view.width) != (1, 1):
        maps = binarise.resize(maps, (_FINER * maps.shape[1], _FINER * maps.shape[2]))
    height, width = maps.shape[1:]
    tall, wide = round((height / view.height - height) / 2), round((width / view.width - width) / 2)
    return np.pad(np.asarray(maps, np.float32), ((0, 0), (tall, tall), (wide, wide)))
