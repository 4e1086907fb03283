import multiprocessing
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
    drawn = [np.random.default_rng([seed, number]) for number in range(len(CATEGORIES)) for seed in range(4)]
    phrases = [improvise(CATEGORIES[i // 4], 2.0, 16000, one) for i, one in enumerate(drawn)]
    orders = [np.random.default_rng(seed).permutation(len(phrases)) for seed in range(2)]
    first, second = (
        {i: soundfont.render(phrases[i].notes, phrases[i].program, 2.0, 16000) for i in order} for order in orders
    )
    assert [CATEGORIES[i // 4] for i in first if not np.array_equal(first[i], second[i])] == []


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
