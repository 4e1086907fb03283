"""Which clips of sound are heard with a picture."""

import numpy as np
import pytest

from dsol_core import clip_windows


@pytest.mark.parametrize(
    ("length", "first", "expected"),
    [
        (10, 3, [3, 0, 6]),
        (10, 4, [4, 1, 7]),
        (10, 0, [0, 3, 6]),  # nothing before: the next two
        (10, 2, [2, 5]),  # nothing before, and one whole clip after
        (10, 7, [7, 4, 1]),  # nothing after: the two before
        (10, 5, [5, 2]),
        (7, 3, [3, 0]),
        (3, 0, [0]),
        (3, 1, []),  # the clip itself ends outside
        (2, 0, []),
    ],
)
def test_a_clip_and_its_neighbours(length, first, expected):
    assert clip_windows.starts(length, first, 3) == expected


def test_a_neighbour_may_lack_a_hundredth():
    """Two thirds of a second are no whole number of samples, and sound may end a little early."""
    assert clip_windows.starts(32000, 21333, 10667) == [21333, 10666, 0]
    assert clip_windows.starts(2990, 1000, 1000) == [1000, 0, 1990]
    assert clip_windows.starts(2989, 1000, 1000) == [1000, 0]


@pytest.mark.parametrize(
    ("first", "expected"), [(3, [0, 3, 6]), (0, [3, 0, 6]), (7, [4, 7, 1]), (2, [5, 2, 2]), (5, [2, 5, 5])]
)
def test_the_clip_is_in_the_middle_and_comes_again_where_neighbours_are_missing(first, expected):
    assert clip_windows.between_neighbours(np.arange(10), first, 3).reshape(3, 3)[:, 0].tolist() == expected
    assert clip_windows.between_neighbours(np.arange(3), 0, 3).tolist() == [0, 1, 2] * 3
