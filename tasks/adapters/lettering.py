"""Text as pixels, in the typeface that Pillow brings along; owner of Pillow for text (`images.py` for pictures)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont


@lru_cache(maxsize=256)
def letters(text: str, size: int) -> NDArray[np.uint8]:
    """Return how much of each pixel a line of text covers.

    Args:
        text: one line; signs that the typeface lacks become empty boxes.
        size: height of the typeface in pixels.

    Returns:
        uint8 [H, W], 0 to 255; H depends on the size alone, so that lines stand level.
    """
    font = ImageFont.load_default(size)
    width = max(1, round(font.getlength(text)))
    canvas = Image.new("L", (width, round(size * 1.25)))
    ImageDraw.Draw(canvas).text((0, size), text, fill=255, font=font, anchor="ls")
    return np.asarray(canvas)
