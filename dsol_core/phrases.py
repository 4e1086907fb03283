"""What the instruments of the generated data set play: phrases as lists of notes, and how a phrase is recorded.

The notes are made sound by a sampler outside this library (`tasks/adapters/soundfont.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

SHORTEST_NOTE = 0.16  # seconds; shorter ones can hang the sampler
LEAD = 0.5  # seconds of a phrase that are cut off at its start, so that it is heard from its middle
_TAIL = 0.25  # seconds rendered beyond the end, room for detuning


@dataclass(frozen=True)
class Note:
    """A note: start and duration in seconds, MIDI pitch and velocity."""

    start: float
    duration: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Recording:
    """How a phrase was recorded: semitones of detune, impulse response [L], spectral tilt, level in dB."""

    detune: float
    impulse: Waveform
    tilt: float
    level_db: float


@dataclass(frozen=True)
class Phrase:
    """A phrase of one instrument. `seconds` is what has to be rendered, lead and tail included."""

    category: str
    program: int  # General MIDI, counted from 0
    notes: tuple[Note, ...]
    seconds: float
    recording: Recording


@dataclass(frozen=True)
class _Player:
    """What is typical of a class: programs, pitches (the highest excluded), seconds of a beat, notes at once."""

    programs: tuple[int, ...]
    low: int
    high: int
    shortest: float
    longest: float
    voices: int = 1
    strum: float = 0.0  # seconds between the notes of a chord


_PLAYERS: dict[str, _Player] = {
    "accordion": _Player((21,), 53, 84, 0.15, 0.8, voices=3),
    "acoustic_guitar": _Player((24, 25), 40, 76, 0.12, 0.5, voices=4, strum=0.02),
    "cello": _Player((42,), 36, 69, 0.25, 1.0),
    "clarinet": _Player((71,), 52, 86, 0.12, 0.7),
    "erhu": _Player((110,), 60, 86, 0.15, 0.8),
    "flute": _Player((73,), 60, 93, 0.12, 0.8),
    "saxophone": _Player((65, 66), 46, 78, 0.12, 0.7),
    "trumpet": _Player((56,), 54, 82, 0.12, 0.7),
    "tuba": _Player((58,), 28, 55, 0.15, 0.7),
    "violin": _Player((40,), 55, 93, 0.15, 0.9),
    "xylophone": _Player((13,), 65, 88, 0.1, 0.35, voices=2),  # above 87 the sampler can hang
}
_SCALES = (np.array([0, 2, 4, 5, 7, 9, 11]), np.array([0, 3, 5, 7, 10]))


def improvise(category: str, seconds: float, sample_rate_hz: int, rng: Generator) -> Phrase:
    """Make up a phrase that sounds for `seconds`: a random walk over a random scale in a random tempo."""
    player = _PLAYERS[category]
    total = LEAD + seconds + _TAIL
    program = int(rng.choice(player.programs))
    pitches = _scale(player, rng)
    beat = np.exp(rng.uniform(np.log(player.shortest), np.log(player.longest)))
    place, start, notes = int(rng.integers(len(pitches))), 0.0, []
    while start < total:
        place = int(np.clip(place + rng.integers(-3, 4), 0, len(pitches) - 1))
        length = float(beat * rng.choice([0.5, 1, 1, 2]))
        for voice in range(int(rng.integers(1, player.voices + 1))):
            pitch = pitches[min(place + 2 * voice, len(pitches) - 1)]
            held = max(SHORTEST_NOTE, length * rng.uniform(0.8, 1.1))
            notes.append(Note(start + voice * player.strum, held, pitch, int(rng.integers(60, 120))))
        start += length
    return Phrase(category, program, tuple(notes), total, _recording(sample_rate_hz, rng))


def _scale(player: _Player, rng: Generator) -> list[int]:
    scale, key = _SCALES[int(rng.integers(2))], int(rng.integers(12))
    return [pitch for pitch in range(player.low, player.high) if (pitch - key) % 12 in scale]


def _recording(sample_rate_hz: int, rng: Generator) -> Recording:
    length = int(0.15 * sample_rate_hz)
    decay = np.exp(-np.arange(length) / (sample_rate_hz * rng.uniform(0.01, 0.05)))
    impulse = rng.normal(size=length) * decay * rng.uniform(0, 0.25) / 8
    impulse[0] = 1
    return Recording(
        detune=rng.uniform(-0.6, 0.6),
        impulse=impulse.astype(np.float32),
        tilt=rng.uniform(-1.5, 1.5),
        level_db=rng.uniform(-3, 3),
    )


def record(rendered: Waveform, phrase: Phrase, seconds: float, sample_rate_hz: int) -> Waveform:
    """Make the sampler's clean sound a recording: cut, detune, room, tilt, level.

    Args:
        rendered: [phrase.seconds * sample_rate_hz] samples of the phrase.
        phrase: what was rendered.
        seconds: length to return.
        sample_rate_hz: of both.

    Returns:
        [seconds * sample_rate_hz] float32, RMS 0.1 changed by the recording's level.
    """
    how, length = phrase.recording, round(seconds * sample_rate_hz)
    times = LEAD * sample_rate_hz + np.arange(length) * 2 ** (how.detune / 12)
    detuned = np.interp(times, np.arange(len(rendered)), rendered)
    n = length + len(how.impulse)
    spectrum = np.fft.rfft(detuned, n) * np.fft.rfft(how.impulse, n)
    spectrum *= np.exp(how.tilt * np.linspace(0, 1, len(spectrum)))
    return normalise(np.fft.irfft(spectrum, n)[:length]) * np.float32(10 ** (how.level_db / 20))


def normalise(waveform: NDArray[Any]) -> Waveform:
    """Scale a waveform [S] to RMS 0.1; silence stays silent."""
    scaled: Waveform = (waveform * (0.1 / (np.sqrt(np.mean(np.square(waveform))) + 1e-4))).astype(np.float32)
    return scaled


def blend(recordings: Sequence[Waveform], noise_db: float, rng: Generator) -> Waveform:
    """Sum recordings [S] and add white noise `noise_db` below them; scaled down where the peak would clip."""
    total = np.sum(recordings, axis=0)
    level = np.sqrt(np.mean(np.square(total)) + 1e-8) * 10 ** (-noise_db / 20)
    noisy = total + rng.normal(size=len(total)) * level
    blended: Waveform = (noisy * min(1.0, 0.98 / np.abs(noisy).max())).astype(np.float32)
    return blended
