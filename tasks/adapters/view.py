"""The part of a picture that a model sees: all of it, stretched to a square, or its middle square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class View:
    """The part of a frame that a model sees.

    Attributes:
        scaled: (height, width) of the frames that are read for it.
        width: of the part, as a share of the frame; it lies in the middle.
        height: of the part.
    """

    scaled: tuple[int, int]
    width: float = 1.0
    height: float = 1.0

    @classmethod
    def of(cls, model: Any, height: int, width: int) -> View:
        """Return what a model (its `square` and `side`) sees of frames of a size."""
        if model.square != "crop":
            return cls((model.side, model.side))
        short = min(height, width)
        tall, wide = (max(model.side, round(model.side * size / short)) for size in (height, width))
        return cls((tall, wide), short / width, short / height)

    def part(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the part of a frame [H, W, 3] of any size, without copying."""
        tall, wide = round(self.height * frame.shape[0]), round(self.width * frame.shape[1])
        top, left = (frame.shape[0] - tall) // 2, (frame.shape[1] - wide) // 2
        return frame[top : top + tall, left : left + wide]

    def placed(self, place: dict[str, Any]) -> dict[str, Any]:
        """Turn shares of the part into shares of the frame."""
        shifts = {"x": (1 - self.width) / 2, "peak_x": (1 - self.width) / 2}
        shifts |= {"y": (1 - self.height) / 2, "peak_y": (1 - self.height) / 2}
        sizes = dict.fromkeys(("x", "peak_x", "width"), self.width)
        sizes |= dict.fromkeys(("y", "peak_y", "height"), self.height)
        return {key: shifts.get(key, 0.0) + sizes[key] * v if key in sizes else v for key, v in place.items()}
