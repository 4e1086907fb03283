from dataclasses import replace

import numpy as np
import pytest

from dsol_core import orchestra
from dsol_core.config import OrchestraConfig
from dsol_core.instruments import CATEGORIES, draw
from dsol_core.orchestra import Wave
from dsol_core.types import Box
from tasks.adapters import film

CONFIG = OrchestraConfig()


def _shaded(drawing, shadow):
    return replace(drawing, shading=replace(drawing.shading, shadow=shadow))


def _still(amplitude=0.0):
    return Wave(amplitude, 1.0, 0.25)  # at time 0 the sine is 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_sprite_shows_what_the_vertices_span(category):
    for seed in range(3):
        drawing = _shaded(draw(category, np.random.default_rng(seed)), shadow=False)
        sprite = film.rasterise(drawing, 200)
        assert sprite.shape == (240, 240, 4)
        rows, columns = np.nonzero(sprite[..., 3] > 100)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        low, high = drawing.vertices.min(axis=0), drawing.vertices.max(axis=0)
        assert np.abs(seen - np.concatenate([low, high]) * 200 - 120).max() <= 2.5


def test_the_box_of_a_filmed_frame_holds_the_pixels_that_the_actor_changed():
    for seed, category in enumerate(CATEGORIES):
        script = orchestra.compose_solo(category, CONFIG, np.random.default_rng(seed))
        (actor,) = script.actors
        script = replace(script, actors=(replace(actor, drawing=_shaded(actor.drawing, shadow=False)),))
        alone = replace(script, actors=())
        side = 256
        frames = [list(film.shoot(one, side, 2)) for one in (script, alone)]
        changed = (frames[0][1] != frames[1][1]).any(axis=2)  # time 0.5
        rows, columns = np.nonzero(changed)
        (box,) = script.boxes(0.5)
        truth = side * np.array([box.x, box.y, box.x + box.width, box.y + box.height])
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(seen - truth).max() <= 4, (category, seen, truth)


def test_a_shadow_falls_below_and_keeps_the_drawing_on_top():
    drawing = draw("tuba", np.random.default_rng(0))
    sprites = [film.rasterise(_shaded(drawing, shadow), 100).astype(int) for shadow in (False, True)]
    solid = sprites[0][..., 3] == 255
    assert np.abs(sprites[0][solid] - sprites[1][solid]).max() <= 1
    assert sprites[1][..., 3].sum() > 1.05 * sprites[0][..., 3].sum()


def test_a_film_has_its_frames_moves_and_repeats():
    script = orchestra.compose_free(CONFIG, np.random.default_rng(0))
    frames = list(film.shoot(script, 64, 8))
    assert len(frames) == 24
    assert all(frame.shape == (64, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    assert np.abs(frames[0].astype(int) - frames[12]).mean() > 0.5
    assert all(np.array_equal(*pair) for pair in zip(frames, film.shoot(script, 64, 8), strict=True))


def test_the_sound_is_as_long_as_the_film_never_silent_and_repeats():
    for seed in range(4):
        script = orchestra.compose_free(CONFIG, np.random.default_rng(seed))
        sound = film.play(script)
        assert sound.shape == (48000,)
        assert np.abs(sound).max() <= 1
        assert np.sqrt(np.mean(sound.reshape(3, -1) ** 2, axis=1)).min() > 0.01
        assert np.array_equal(sound, film.play(script))


def test_a_pan_shows_the_centre_square_and_moves_the_box_with_it():
    pan = film.Pan(100, 200, zoom=_still(-0.14), x=_still(0.05), y=_still(-0.5))
    assert pan.window(0.0) == pytest.approx((50 + 10 + 5, 0, 80))  # the room is 20; the last wave is cut off at 10
    box = pan.box(Box(0.4, 0.2, 0.2, 0.4), "harp", 0.0)
    assert (box.x, box.y, box.width, box.height) == pytest.approx((15 / 80, 20 / 80, 40 / 80, 40 / 80))
    assert (box.category, box.sounding) == ("harp", True)
    cut = pan.box(Box(0.0, 0.2, 0.5, 0.4), "harp", 0.0)
    assert (cut.x, cut.width) == pytest.approx((0, 35 / 80))
    assert pan.box(Box(0.0, 0.0, 0.2, 1.0), "harp", 0.0) is None


def test_a_pan_over_a_photograph_follows_its_window():
    photo = np.zeros((60, 100, 3), np.uint8)
    photo[:, :, 0] = np.arange(100)
    pan = film.slow_pan(60, 100, np.random.default_rng(0))
    frames = list(film.pan_over(photo, pan, 30, 2.0, 4))
    assert len(frames) == 8
    for index, frame in enumerate(frames):
        left, _, span = pan.window(index / 4)
        assert frame[15, 15, 0] == pytest.approx(left + span * 15.5 / 30 - 0.5, abs=1)
