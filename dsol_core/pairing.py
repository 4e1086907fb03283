"""Which of a system's maps is compared with which target: by class, by Hungarian matching, or the only one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from dsol_core.canvas import Canvas
from dsol_core.protocols import Item, Maps
from dsol_core.truths import Target
from dsol_core.types import DataError


def sum_classes(said: Maps, maps: Any) -> tuple[Maps, Any]:
    """Sum the maps that share a class, before they are resized (method-and-benchmarks, 2.9).

    Args:
        said: the prediction.
        maps: float32 [M, h, w], its maps as `canvas.checked` returns them.

    Returns:
        The prediction with every class once (class-agnostic maps are kept as they are; a class is as confident as its
        most confident map) and its maps, float32 [C, h, w].
    """
    named = [one for one in said.classes if one is not None]
    if len(set(named)) == len(named):
        return said, maps
    members: dict[Any, list[int]] = {}
    for number, name in enumerate(said.classes):
        members.setdefault(number if name is None else name, []).append(number)
    total = np.stack([maps[own].sum(0) for own in members.values()])
    classes = tuple(said.classes[own[0]] for own in members.values())
    return Maps(said.key, total, classes, tuple(_highest(said, own) for own in members.values())), total


def _highest(said: Maps, own: Sequence[int]) -> float | None:
    known = [value for value in (said.confidence[number] for number in own) if value is not None]
    return max(known) if len(known) == len(own) else None


def of_class(item: Item, said: Maps, category: str | None) -> int | None:
    """Return the map of a class, else the class-agnostic one, else None.

    Raises:
        DataError: several maps would do and they have no confidence.
    """
    named = [number for number, name in enumerate(said.classes) if name is not None and name == category]
    return most_confident(item, said, named or [number for number, name in enumerate(said.classes) if name is None])


def only_map(item: Item, said: Maps) -> int | None:
    """Return the map of a prediction that shall have one: the class-agnostic one, else the most confident of all.

    Raises:
        DataError: several maps would do and they have no confidence.
    """
    agnostic = [number for number, name in enumerate(said.classes) if name is None]
    return most_confident(item, said, agnostic or range(len(said.classes)))


def most_confident(item: Item, said: Maps, numbers: Sequence[int]) -> int | None:
    """Return the first of the most confident of some maps; None of none."""
    if len(numbers) < 2:
        return numbers[0] if numbers else None
    return ranked(item, said, numbers, 1)[0]


def ranked(item: Item, said: Maps, numbers: Sequence[int], count: int) -> list[int]:
    """Return the `count` most confident of some maps.

    Raises:
        DataError: one of them has no confidence, so that choosing would be left to the ground truth.
    """
    if len(numbers) <= count:
        return list(numbers)
    values = [said.confidence[number] for number in numbers]
    if any(value is None or value != value for value in values):
        raise DataError(
            f"prediction of item {item.key} has {len(numbers)} maps where {count} are compared, and not all have a "
            "confidence to choose by; expected one for each map, since choosing the best match would be a look at the "
            "ground truth; add confidences or predict fewer maps"
        )
    order = sorted(range(len(numbers)), key=lambda place: -values[place])  # type: ignore[operator]
    return [numbers[place] for place in order[:count]]


def match(item: Item, said: Maps, canvas: Canvas, targets: Sequence[Target]) -> list[int | None]:
    """Assign maps to targets one to one so that the sum of IoUs is largest (Hungarian), blind to classes.

    Only as many maps as there are targets take part, the most confident ones.

    Returns:
        The map of each target, None where there are fewer maps than targets.
    """
    numbers = ranked(item, said, range(len(said.classes)), len(targets))
    found: list[int | None] = [None] * len(targets)
    if numbers:
        table = np.array([[canvas.iou(number, target) for target in targets] for number in numbers])
        for row, column in zip(*linear_sum_assignment(table, maximize=True), strict=True):
            found[column] = numbers[row]
    return found
