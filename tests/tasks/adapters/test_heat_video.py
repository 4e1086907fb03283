"""What is painted over a frame, and when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tasks.adapters.heat_video import COLOURS, Painter, colour
from tasks.adapters.lettering import letters


def painter(sounding: list[list[float]], maps: np.ndarray | None = None) -> Painter:
    """Two entries, maps 4 x 4: the first in the lower left cell, the second in the lower right one; 1 map a second."""
    if maps is None:
        maps = np.zeros((len(sounding), 2, 4, 4), np.float16)
        maps[:, 0, 3, 0], maps[:, 1, 3, 3] = 0.8, 0.2
    return Painter(("cello", "flute"), maps, np.array(sounding, np.float32), 1.0, 0.5)


GREY = np.full((160, 240, 3), 100, np.uint8)


def test_a_frame_where_nothing_sounds_stays_as_it_is() -> None:
    np.testing.assert_array_equal(painter([[0.1, 0.2], [0.3, 0.4]]).paint(GREY, 0.5), GREY)


def test_the_sounding_entry_alone_is_drawn_in_its_colour_where_its_map_is() -> None:
    done = painter([[0.9, 0.1]]).paint(GREY, 0.0)
    corner, other = done[-10, 10].astype(int), done[-10, -10]
    strong = 100 + 0.65 * (np.array(colour(0)) - 100)
    assert np.abs(corner - strong).max() <= 2
    np.testing.assert_array_equal(other, [100, 100, 100])


def test_a_weak_map_is_drawn_as_strongly_as_a_strong_one() -> None:
    done = painter([[0.1, 0.9]]).paint(GREY, 0.0)
    assert np.abs(done[-10, -10] - (100 + 0.65 * (np.array(colour(1)) - 100))).max() <= 2


def test_an_entry_fades_in_between_two_localised_frames_and_stays_at_the_end() -> None:
    made = painter([[0.1, 0.1], [0.9, 0.1]])
    excess = [float(np.abs(made.paint(GREY, t)[-10, 10].astype(int) - 100).max()) for t in (0.0, 0.5, 1.0, 7.0)]
    assert excess[0] == 0 and excess[1] == pytest.approx(excess[2] / 2, abs=2) and excess[3] == excess[2]


@pytest.mark.parametrize("ground", [0, 100, 255])
def test_names_are_readable_on_any_ground(ground: int) -> None:
    frame = np.full((160, 240, 3), ground, np.uint8)
    legend = painter([[0.9, 0.9]]).paint(frame, 0.0)[:20, 20:60]
    assert legend.max() - np.median(legend) > 120


def test_a_name_that_does_not_fit_is_cut_and_tiny_frames_do_not_fail() -> None:
    made = Painter(("a very long name " * 5,), np.ones((1, 1, 2, 2), np.float16), np.ones((1, 1), np.float32), 1.0, 0.5)
    for size in ((16, 16), (9, 31), (31, 9)):
        assert made.paint(np.zeros((*size, 3), np.uint8), 0.0).shape == (*size, 3)


def test_the_input_frame_is_not_changed() -> None:
    frame = GREY.copy()
    painter([[0.9, 0.9]]).paint(frame, 0.0)
    np.testing.assert_array_equal(frame, GREY)


def test_each_entry_has_one_colour_that_no_other_has() -> None:
    many = [colour(number) for number in range(40)]
    assert many[:12] == list(COLOURS) and len(set(many)) == 40
    distance = min(np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(many[:12], 2))
    assert distance >= 60


def test_letters_stand_on_one_line_and_cover_pixels() -> None:
    short, long = letters("a", 20), letters("gÄ cello", 20)
    assert short.shape[0] == long.shape[0] == 25 and long.shape[1] > short.shape[1]
    assert long.max() == 255 and long[0].max() < 255
    assert letters("", 20).shape == (25, 1)
