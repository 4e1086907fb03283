import dataclasses

import numpy as np
import pytest

from dsol_core import instruments, orchestra, phrases, scenery, shapes
from dsol_core.config import OrchestraConfig
from dsol_core.types import DataError

CONFIG = OrchestraConfig()


def _solo(category="violin", seed=0):
    return orchestra.compose_solo(category, CONFIG, np.random.default_rng(seed))


def _free(seed=0):
    return orchestra.compose_free(CONFIG, np.random.default_rng(seed))


def test_a_line_becomes_a_rectangle_of_its_width():
    (quad,) = shapes.polygons(shapes.line("body", 0.2, [(0, 0), (1, 0)]), 1.0)
    assert sorted(map(tuple, quad.round(6).tolist())) == [(0, -0.1), (0, 0.1), (1, -0.1), (1, 0.1)]


def test_a_bent_line_gets_a_disc_at_its_joint_only():
    polygons = shapes.polygons(shapes.line("body", 0.2, [(0, 0), (1, 0), (1, 1)]), 1.0)
    assert [len(polygon) for polygon in polygons] == [4, 4, 12]
    assert np.allclose(np.hypot(*(polygons[2] - [1, 0]).T), 0.1)


@pytest.mark.parametrize("category", instruments.CATEGORIES)
def test_a_drawing_is_centred_and_one_long(category):
    drawing = instruments.draw(category, np.random.default_rng(1))
    low, high = drawing.vertices.min(axis=0), drawing.vertices.max(axis=0)
    assert np.allclose(low + high, 0)
    assert (high - low).max() == pytest.approx(1)
    assert all(0 <= part <= 1 for fill in drawing.fills for part in fill.colour)


def test_an_unknown_instrument_is_named():
    with pytest.raises(DataError, match=r"'kazoo'.*xylophone"):
        instruments.draw("kazoo", np.random.default_rng(0))


def test_there_are_the_eleven_classes_and_each_can_play():
    assert len(instruments.CATEGORIES) == 11
    for category in instruments.CATEGORIES:
        assert phrases.improvise(category, 1, 16000, np.random.default_rng(0)).notes


def test_the_same_seed_gives_the_same_script_and_another_seed_another():
    one, same, other = _free(3), _free(3), _free(4)
    assert one.boxes(0.5) == same.boxes(0.5)
    assert one.phrases[0].notes == same.phrases[0].notes
    assert np.array_equal(one.background.paint(32), same.background.paint(32))
    assert one.boxes(0.5) != other.boxes(0.5)
    assert not np.array_equal(one.background.paint(32), other.background.paint(32))


def test_a_box_is_the_extent_of_the_moved_vertices_computed_one_by_one():
    script = _solo()
    actor, time = script.actors[0], 1.5
    angle, scale = actor.turn.at(time), actor.size * (1 + actor.breath.at(time))
    moved = []
    for x, y in actor.drawing.vertices:
        across = actor.x + actor.drift_x.at(time) + script.camera_x.at(time)
        down = actor.y + actor.drift_y.at(time) + script.camera_y.at(time)
        moved.append(
            (
                scale * (x * np.cos(angle) - y * np.sin(angle)) + across,
                scale * (x * np.sin(angle) + y * np.cos(angle)) + down,
            )
        )
    moved = np.array(moved)
    (box,) = script.boxes(time)
    assert (box.x, box.y) == pytest.approx(moved.min(axis=0))
    assert (box.x + box.width, box.y + box.height) == pytest.approx(moved.max(axis=0))


def test_solos_have_the_configured_size_and_stay_in_the_frame():
    sides = []
    for seed in range(40):
        script = _solo(instruments.CATEGORIES[seed % 11], seed)
        for time in np.arange(0, 3, 0.1):
            (box,) = script.boxes(float(time))
            assert min(box.x, box.y) > 0
            assert max(box.x + box.width, box.y + box.height) < 1
        sides.append(script.actors[0].size)
    assert 0.3 < min(sides) < 0.45
    assert 0.65 < max(sides) <= 0.75


def test_a_cocktail_party_has_four_different_instruments_apart_two_of_which_sound():
    for seed in range(25):
        script = _free(seed)
        assert len({actor.category for actor in script.actors}) == 4
        assert script.sounding == tuple(sorted(phrase.category for phrase in script.phrases))
        assert len(script.sounding) == 2
        assert {box.category for box in script.boxes(0) if box.sounding} == set(script.sounding)
        for time in (0.0, 0.5, 1.37, 2.9):
            boxes = script.boxes(time)
            for i, one in enumerate(boxes):
                for two in boxes[:i]:
                    wide = min(one.x + one.width, two.x + two.width) - max(one.x, two.x)
                    high = min(one.y + one.height, two.y + two.height) - max(one.y, two.y)
                    assert wide < 0 or high < 0


def test_things_move_but_only_a_little():
    script = _solo(seed=5)
    boxes = [script.boxes(time)[0] for time in (0.0, 1.0, 2.0)]
    moves = [abs(boxes[0].x - box.x) + abs(boxes[0].y - box.y) for box in boxes[1:]]
    assert 0.001 < max(moves) < 0.2


def test_the_order_of_the_actors_tells_nothing_about_who_sounds():
    first = [_free(seed).actors[0].sounding for seed in range(60)]
    assert 15 < sum(first) < 45


def test_a_cell_too_small_for_its_instrument_shrinks_it():
    config = dataclasses.replace(CONFIG, solo_size=(1.2, 1.2))
    script = orchestra.compose_solo("cello", config, np.random.default_rng(0))
    assert script.actors[0].size < 1


def test_backgrounds_stay_in_range_and_interpolation_is_exact_at_the_centres():
    painted = _solo(seed=2).background.paint(64)
    assert painted.shape == (64, 64, 3)
    assert painted.min() >= 0
    assert painted.max() <= 1
    weights = scenery.interpolation(4, 12)
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights[1::3] @ np.array([1.0, 5, 2, 7]), [1, 5, 2, 7])


@pytest.mark.parametrize("category", instruments.CATEGORIES)
def test_phrases_keep_away_from_what_hangs_the_sampler(category):
    for seed in range(30):
        phrase = phrases.improvise(category, 3, 16000, np.random.default_rng(seed))
        assert all(note.duration >= 0.16 for note in phrase.notes)
        assert category != "xylophone" or all(note.pitch <= 87 for note in phrase.notes)
        gaps = np.diff([0, *sorted(note.start for note in phrase.notes), phrase.seconds])
        assert gaps.max() <= 2.01


def test_a_recording_is_levelled_detuned_and_as_long_as_asked():
    rate, seconds = 16000, 1.0
    phrase = phrases.improvise("flute", seconds, rate, np.random.default_rng(0))
    impulse = np.zeros(10, np.float32)
    impulse[0] = 1
    plain = phrases.Recording(detune=12.0, impulse=impulse, tilt=0.0, level_db=6.0)
    phrase = dataclasses.replace(phrase, recording=plain)
    tone = np.sin(2 * np.pi * 440 * np.arange(int(3 * rate)) / rate).astype(np.float32)
    recorded = phrases.record(tone, phrase, seconds, rate)
    assert recorded.shape == (rate,)
    assert recorded.dtype == np.float32
    assert np.sqrt(np.mean(recorded**2)) == pytest.approx(0.1 * 10 ** (6 / 20), rel=0.01)
    assert np.argmax(np.abs(np.fft.rfft(recorded))) == 880  # twelve semitones up


def test_blending_adds_noise_at_the_asked_distance_and_never_clips():
    rng = np.random.default_rng(0)
    sounds = [phrases.normalise(rng.normal(size=16000)) for _ in range(2)]
    noise = phrases.blend(sounds, 20.0, np.random.default_rng(1)) - np.sum(sounds, axis=0)
    ratio = np.sum(np.sum(sounds, axis=0) ** 2) / np.sum(noise**2)
    assert 10 * np.log10(ratio) == pytest.approx(20, abs=0.3)
    assert np.abs(phrases.blend([50 * sound for sound in sounds], 20.0, rng)).max() <= 0.981


def test_silence_stays_silent():
    assert not phrases.normalise(np.zeros(100)).any()
