import hashlib
import itertools
import multiprocessing
import os
import struct
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from dsol_core import phrases
from dsol_core.instruments import CATEGORIES
from dsol_core.phrases import Note, improvise
from dsol_core.types import DataError
from tasks.adapters import soundfont


def _notes(pitch=69, duration=0.9):
    return [Note(0.0, duration, pitch, 100)]


def test_a_note_sounds_at_its_pitch_and_fills_the_length():
    sound = soundfont.render(_notes(69), 73, 1.5, 16000)
    assert sound.shape == (24000,)
    assert sound.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(sound[:16000]))
    assert abs(int(np.argmax(spectrum)) - 440) <= 5  # the flute's fundamental, 1 Hz a bin


def test_programs_sound_different_and_the_same_notes_the_same():
    violin, tuba = (soundfont.render(_notes(), program, 1.0, 16000) for program in (40, 58))
    assert np.array_equal(violin, soundfont.render(_notes(), 40, 1.0, 16000))
    assert np.abs(violin - tuba).max() > 0.01


def test_every_note_sounds_the_same_in_any_order_and_on_any_memory():
    """Two processes: one plays forwards, one backwards, and both find other garbage in fresh and freed memory."""
    first, second = (_played_elsewhere(step, garbage) for step, garbage in ((1, "165"), (-1, "77")))
    assert len(first) == len(second) > 300
    assert [note for note in first if first[note] != second[note]] == []


def _played_elsewhere(step, garbage):
    code = f"from tests.tasks.adapters.test_soundfont import print_sounds; print_sounds({step})"
    environment = os.environ | {"MALLOC_PERTURB_": garbage, "PYTHONPATH": str(Path(__file__).parents[3])}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return dict(line.split(": ") for line in answer.stdout.splitlines())


def print_sounds(step):
    """Print a hash of each note that a class can play, alone and in a chord, long enough for the loop of its sample."""
    players = phrases._PLAYERS.values()
    notes = [(program, pitch) for one in players for program in one.programs for pitch in range(one.low, one.high)]
    for program, pitch in notes[::step]:
        chord = [Note(0.0, 0.2, pitch, 100), Note(0.1, 1.3, pitch, 100)]
        sounds = [soundfont.render(played, program, 2.0, 16000).tobytes() for played in (chord[:1], chord)]
        print(f"{program} at {pitch}: {hashlib.sha256(b''.join(sounds)).hexdigest()}")


def test_samples_end_after_their_loops_and_nothing_else_changes():
    font = soundfont.check().read_bytes()
    changed = soundfont.with_longer_samples(font)
    headers = font.index(b"shdr") + 8
    starts = range(headers, headers + struct.unpack_from("<I", font, headers - 4)[0] - 46, 46)
    before, after = ([struct.unpack_from("<4I", one, start + 20) for start in starts] for one in (font, changed))
    assert any(end < loop_end + 46 for _, end, _, loop_end in before)
    for (start, end, loop, loop_end), now in zip(before, after, strict=True):
        assert now == (start, max(end, loop_end + 46), loop, loop_end)
    assert all(end <= following[0] for (_, end, _, _), following in itertools.pairwise(after))
    changes = sum(a != b for a, b in zip(font, changed, strict=True))
    assert 0 < changes <= 4 * len(before)


@pytest.mark.parametrize(
    ("notes", "program", "words"),
    [([], 40, "no notes"), (_notes(60, 0.1), 40, r"0\.1 s.*0\.16"), (_notes(90), 13, "xylophone.*87")],
)
def test_what_hangs_the_sampler_is_refused(notes, program, words):
    with pytest.raises(DataError, match=words):
        soundfont.render(notes, program, 1.0, 16000)


def test_missing_and_wrong_packages_are_named_with_the_remedy(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(soundfont.metadata, "version", absent)
    with pytest.raises(soundfont.SoundFontError, match=r"not installed.*pip install symusic==0\.5\.9 pretty_midi"):
        soundfont.check()
    monkeypatch.setattr(soundfont.metadata, "version", lambda name: "0.6.0")
    with pytest.raises(soundfont.SoundFontError, match=r"0\.6\.0; expected 0\.5\.9"):
        soundfont.check()
    monkeypatch.setattr(soundfont.metadata, "version", lambda name: "0.5.9")
    monkeypatch.setattr(soundfont, "find_spec", lambda name: None)
    with pytest.raises(soundfont.SoundFontError, match="TimGM6mb"):
        soundfont.check()


def _render_extremes(done):
    """Every pitch at the shortest note of every class's programs, then some phrases of each class."""
    for category in CATEGORIES:
        for seed in range(3):
            phrase = improvise(category, 3.0, 16000, np.random.default_rng(seed))
            pitches = {note.pitch for note in phrase.notes}
            low, high = min(pitches), 87 if category == "xylophone" else max(pitches)
            for pitch in range(low, high + 1):
                soundfont.render([Note(0.0, 0.16, pitch, 119)], phrase.program, 0.5, 16000)
            assert soundfont.render(phrase.notes, phrase.program, phrase.seconds, 16000).any()
    done.put("all rendered")


def test_no_allowed_note_hangs():
    """In a process of its own: a hang holds the interpreter's lock, so no timeout inside it would fire."""
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    process = context.Process(target=_render_extremes, args=(done,))
    process.start()
    process.join(timeout=60)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    assert not hung, "the sampler hangs on a note that soundfont.render allows"
    assert process.exitcode == 0
    assert done.get(timeout=5) == "all rendered"
