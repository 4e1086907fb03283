import itertools
import multiprocessing
import struct
from importlib import metadata

import numpy as np
import pytest

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


def test_a_phrase_sounds_the_same_whatever_was_played_before():
    programs = (13, 21, 24, 40, 42, 56, 58, 65, 71, 73, 110)
    phrases = [(one, _any_notes(np.random.default_rng([one, number]))) for one in programs for number in range(12)]
    orders = [np.random.default_rng(seed).permutation(len(phrases)) for seed in range(3)]
    sounds = [{i: soundfont.render(phrases[i][1], phrases[i][0], 2.5, 16000) for i in order} for order in orders]
    changed = [phrases[i][0] for i in sounds[0] for other in sounds[1:] if not np.array_equal(other[i], sounds[0][i])]
    assert changed == []


def _any_notes(drawn):
    return [
        Note(float(drawn.uniform(0, 1.8)), float(drawn.uniform(0.17, 0.8)), int(drawn.integers(50, 85)), 100)
        for _ in range(drawn.integers(3, 12))
    ]


def test_samples_end_after_their_loops_and_nothing_else_changes():
    font = soundfont.check().read_bytes()
    changed = soundfont.with_longer_samples(font)
    headers = font.index(b"shdr") + 8
    starts = range(headers, headers + struct.unpack_from("<I", font, headers - 4)[0] - 46, 46)
    before, after = ([struct.unpack_from("<4I", one, start + 20) for start in starts] for one in (font, changed))
    assert any(end < loop_end + 8 for _, end, _, loop_end in before)
    for (start, end, loop, loop_end), now in zip(before, after, strict=True):
        assert now == (start, max(end, loop_end + 8), loop, loop_end)
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
    with pytest.raises(soundfont.SoundFontError, match=r"symusic is not installed.*dsol\[demo\]"):
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
