"""The one owner of symusic and pretty_midi: notes played by the sampled instruments of pretty_midi's SoundFont.

symusic 0.6 cannot render at all, and 0.5.9 can hang for ever, holding the interpreter's lock, on very short notes of
looped percussion; the limits below keep away from both. Two more faults made equal notes sound different:

- It keeps each sample that it has tuned, named by pitch and sample alone, and gives it to every program that shares the
  sample: a violin (40) after an erhu (110) had the erhu's tuning and loudness at 18 of its 38 pitches, and the reverse.
  Each phrase is therefore played by a synthesizer of its own, so that nothing played before is heard.
- It reads beyond the end of samples whose loop ends there (trumpets and saxophones): it plays what memory happens to
  hold. The font is therefore lent to it with longer samples, which the format's silence between samples allows.

It adds the notes of a phrase in one thread, in an order that depends on the notes alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsol_core.phrases import SHORTEST_NOTE, Note
from dsol_core.types import DataError, DsolError

_VERSION = "0.5.9"
_HEADER = 46  # bytes of a sample's header: name, start, end, start and end of its loop, ...
_SILENCE = 46  # points after each sample (SoundFont 2.04, section 7.10)
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
    font = f"/dev/fd/{_lent_font().fileno()}"
    from symusic import Note as Key
    from symusic import Score, Synthesizer, Tempo, Track

    synthesizer: Any = Synthesizer(sf_path=font, sample_rate=sample_rate_hz, quality=0)  # a new one: see above
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
    remedy = f"install the demo's packages: pip install symusic=={_VERSION} pretty_midi"
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
def _lent_font() -> Any:
    """Return the file of the changed font, open: it has no name, so that nothing is left of a killed process."""
    file = TemporaryFile()
    file.write(with_longer_samples(check().read_bytes()))
    file.flush()
    return file


def with_longer_samples(font: bytes) -> bytes:
    """Return a SoundFont 2 whose samples end at least 46 points after their loop.

    The sampler rounds the length of a sample down twice (to its rate, then to the pitch) and the end of the loop once,
    and copies up to that end. At `ratio` tuned points for a point of the font it is safe from (1 + pitch ratio) / ratio
    points on: 21 for the highest violin, the worst note that is played. The silence after each sample has room for 46.
    """
    changed = bytearray(font)
    headers = changed.index(b"shdr")
    (size,) = struct.unpack_from("<I", changed, headers + 4)
    for place in range(headers + 8, headers + 8 + size - _HEADER, _HEADER):  # the last one only marks the end
        _, end, _, loop_end = struct.unpack_from("<4I", changed, place + 20)
        struct.pack_into("<I", changed, place + 24, max(end, loop_end + _SILENCE))
    return bytes(changed)
