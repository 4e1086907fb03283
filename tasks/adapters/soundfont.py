"""The one owner of symusic and pretty_midi: notes played by the sampled instruments of pretty_midi's SoundFont.

symusic 0.6 cannot render at all, and 0.5.9 can hang for ever, holding the interpreter's lock, on very short notes of
looped percussion; the limits below keep away from both. It also reads beyond the end of samples whose loop ends there
(violins and saxophones): what it then plays is what memory happens to hold. The font is therefore lent to it with such
samples a little longer, which the format's silence between samples allows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsol_core.phrases import SHORTEST_NOTE, Note
from dsol_core.types import DataError, DsolError

_VERSION = "0.5.9"
_HEADER = 46  # bytes of a sample's header: name, start, end, start and end of its loop, ...
_XYLOPHONE, _HIGHEST_XYLOPHONE = 13, 87


class SoundFontError(DsolError):
    """The packages of the extra `demo` are missing or of the wrong version."""


def render(notes: Sequence[Note], program: int, seconds: float, sample_rate_hz: int) -> NDArray[np.float32]:
    """Play notes on one instrument.

    Args:
        notes: at least one; each at least 0.16 s long, xylophone pitches at most 87 (others can hang the sampler).
        program: General MIDI, counted from 0.
        seconds: length of the result; what sounds longer is cut.
        sample_rate_hz: of the result.

    Returns:
        float32 [seconds * sample_rate_hz], mono.

    Raises:
        DataError: a note is outside these limits, or there is none.
        SoundFontError: the extra `demo` is not installed, or symusic is not 0.5.9.
    """
    _check(notes, program)
    synthesizer = _synthesizer(sample_rate_hz)
    from symusic import Note as Key
    from symusic import Score, Tempo, Track

    score: Any = Score(480)
    score.tempos.append(Tempo(0, 125))  # with 480 ticks a beat, one tick is a millisecond
    track: Any = Track(program=program)
    for note in notes:
        track.notes.append(Key(int(1000 * note.start), int(1000 * note.duration), note.pitch, note.velocity))
    score.tracks.append(track)
    sound = np.asarray(synthesizer.render(score, stereo=False), np.float32)[0]
    length = round(seconds * sample_rate_hz)
    return np.pad(sound[:length], (0, max(0, length - len(sound))))


def check() -> Path:
    """Return the SoundFont file.

    Raises:
        SoundFontError: the extra `demo` is not installed, or symusic is not 0.5.9.
    """
    remedy = "install the demo's packages: pip install 'dsol[demo]'"
    try:
        version = metadata.version("symusic")
    except metadata.PackageNotFoundError as error:
        raise SoundFontError(f"symusic is not installed; the drawn orchestra plays through it; {remedy}") from error
    if version != _VERSION:
        raise SoundFontError(f"symusic is {version}; expected {_VERSION}, later ones cannot render; {remedy}")
    package = find_spec("pretty_midi")  # found, not imported: only its data file is needed
    file = Path(package.origin).parent / "TimGM6mb.sf2" if package and package.origin else None
    if file is None or not file.is_file():
        raise SoundFontError(f"pretty_midi with its SoundFont TimGM6mb.sf2 is not installed; {remedy}")
    return file


def _check(notes: Sequence[Note], program: int) -> None:
    if not notes:
        raise DataError("no notes to play; expected at least one")
    for note in notes:
        if note.duration < SHORTEST_NOTE:
            raise DataError(f"{note} lasts {note.duration:g} s; expected at least {SHORTEST_NOTE} s; shorter can hang")
        if program == _XYLOPHONE and note.pitch > _HIGHEST_XYLOPHONE:
            raise DataError(f"{note} on the xylophone; expected a pitch up to {_HIGHEST_XYLOPHONE}; higher can hang")


@cache
def _synthesizer(sample_rate_hz: int) -> Any:
    with NamedTemporaryFile(suffix=".sf2") as file:
        file.write(with_longer_samples(check().read_bytes()))
        file.flush()
        from symusic import Synthesizer

        return Synthesizer(sf_path=file.name, sample_rate=sample_rate_hz, quality=0)


def with_longer_samples(font: bytes) -> bytes:
    """Return a SoundFont 2 whose samples end at least 8 points after their loop, as its format asks (section 7.10).

    Each sample is followed by 46 points of silence or more, so that the longer end stays before the next sample.
    """
    changed = bytearray(font)
    headers = changed.index(b"shdr")
    (size,) = struct.unpack_from("<I", changed, headers + 4)
    for place in range(headers + 8, headers + 8 + size - _HEADER, _HEADER):  # the last one only marks the end
        _, end, _, loop_end = struct.unpack_from("<4I", changed, place + 20)
        struct.pack_into("<I", changed, place + 24, max(end, loop_end + 8))
    return bytes(changed)
