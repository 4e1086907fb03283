"""Checks on the four numbers of a box: the convention a file promises must be the one its numbers keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsol_core.types import DataError

Numbers = tuple[float, float, float, float]
_SLACK = 0.005  # of the frame: about a pixel of 224, the rounding that annotation tools leave
GARBAGE = 1e6  # beyond this a number is no coordinate (VGG-SS holds -2.88e16); smaller strays are mistakes


def numbers(path: Path, key: str, value: Any) -> Numbers:
    """Return four finite floats.

    Raises:
        DataError: it is anything else.
    """
    try:
        four = tuple(float(one) for one in value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: box {value!r} of {key!r} ({error}); expected a list of four numbers") from error
    if len(four) != 4 or not all(math.isfinite(one) for one in four):
        raise DataError(f"{path}: box {value!r} of {key!r}; expected a list of four finite numbers; mend the record")
    return four


def is_garbage(box: Sequence[float]) -> bool:
    """Tell whether a box holds a number that cannot be a coordinate in any unit."""
    return any(abs(one) > GARBAGE for one in box)


def xywh(path: Path, key: str, value: Any) -> Numbers:
    """Return a normalised [x, y, width, height] box that lies in the frame.

    Raises:
        DataError: it leaves the frame, as a box in another convention or in pixels does.
    """
    box = numbers(path, key, value)
    x, y, width, height = box
    inside = min(x, y) >= -_SLACK and x + width <= 1 + _SLACK and y + height <= 1 + _SLACK
    if inside and width >= 0 and height >= 0:
        return box
    hint = _hint(box, x <= width <= 1 + _SLACK and y <= height <= 1 + _SLACK, "x1, y1, x2, y2")
    raise DataError(
        f"{path}: box {list(box)} of {key!r} reaches from ({x:g}, {y:g}) to ({x + width:g}, {y + height:g}), beyond "
        f"the frame; expected x, y, width, height as fractions of the frame; {hint}"
    )


def xyxy(path: Path, key: str, value: Any, unit: float = 1.0) -> Numbers:
    """Return an [x1, y1, x2, y2] box that lies in the frame; garbage numbers pass (ask `is_garbage`).

    Args:
        path: for the complaint.
        key: for the complaint.
        value: as the file has it.
        unit: the frame's side in the file's unit: 1, or 256 for Flickr.

    Raises:
        DataError: it leaves the frame or runs backwards, as a box in another convention does.
    """
    box = numbers(path, key, value)
    if is_garbage(box):
        return box
    inside = min(box) >= -_SLACK * unit and max(box) <= (1 + _SLACK) * unit
    forward = box[0] <= box[2] and box[1] <= box[3]  # equal ones are known: such boxes cover no pixel
    if inside and forward:
        return box
    wrong = "runs backwards" if inside else "leaves the frame"
    what = "fractions of the frame" if unit == 1 else f"numbers from 0 to {unit:g}"
    raise DataError(
        f"{path}: box {list(box)} of {key!r} {wrong}; expected x1, y1, x2, y2 as {what} with x1 <= x2 and y1 <= y2; "
        f"{_hint([one / unit for one in box], inside, 'x, y, width, height')}"
    )


def _hint(box: Sequence[float], other_convention: bool, convention: str) -> str:
    if max(box) > 2:
        return "these look like pixels: divide them by the frame's width and height"
    if other_convention:
        return f"these look like {convention}: convert them"
    return "mend the record"
