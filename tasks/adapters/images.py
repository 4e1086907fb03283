"""Pictures to and from bytes, resizing, painting for the generated videos.

Owner of torchvision, and of Pillow for all but text (`lettering.py`). Pictures are uint8 arrays [H, W, 3] in RGB;
sprites are uint8 [n, n, 4] with straight (not premultiplied) alpha.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFilter, UnidentifiedImageError

from dsol_core.types import DataError, ShapeError

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
# What turns a picture upright whose EXIF data say so of their pixels.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def encode_jpeg(array: Pixels, quality: int) -> bytes:
    """Return the JPEG file of a picture.

    Args:
        array: uint8 [H, W, 3].
        quality: 1 to 95, Pillow's scale.

    Raises:
        ShapeError: the array is not uint8 [H, W, 3].
    """
    return _encode(array, "JPEG", quality=quality)


def encode_png(array: Pixels) -> bytes:
    """Return the PNG file of a picture, uint8 [H, W, 3], without loss.

    Raises:
        ShapeError: the array is not uint8 [H, W, 3].
    """
    return _encode(array, "PNG")


def decode_image(source: bytes | str | Path) -> Pixels:
    """Read a picture file, or its bytes, as uint8 [H, W, 3], upright as its EXIF data say.

    Raises:
        DataError: the file does not exist or is not a picture that Pillow can read to its end.
    """
    name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return np.array(_upright(image).convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: {error}; expected a complete JPEG, PNG or WebP picture; replace the file") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say; where these are damaged it stays as it lies."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image
    return image if turn is None else image.transpose(turn)


def decode_jpeg(data: bytes) -> torch.Tensor:
    """Read the bytes of a JPEG as uint8 [3, H, W]: the values of `decode_image`, in about half the time.

    Raises:
        DataError: these are not the bytes of a picture that can be read to its end.
    """
    import torch

    try:
        decoded: torch.Tensor = _jpeg_operator()(torch.frombuffer(bytearray(data), dtype=torch.uint8), 3, False)
        return decoded
    except (RuntimeError, ValueError, AttributeError):  # damage, another format or no operator: Pillow can or says why
        return torch.from_numpy(decode_image(data)).permute(2, 0, 1)


@cache
def _jpeg_operator() -> Any:
    """Return torchvision's decoder; its Python front warns on each call that a later version will not have it."""
    import torch
    import torchvision.io  # noqa: F401  it registers the operator

    return torch.ops.image.decode_jpeg


def resize(array: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize a picture, uint8 [H, W, 3] or [H, W, 4], to `size` = (height, width) without keeping its shape.

    Bilinear over the area of each output pixel, so shrinking does not alias.

    Raises:
        ShapeError: `size` is not positive.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ShapeError(f"resize to {height} x {width}; expected a height and width of at least 1 pixel")
    if array.shape[:2] == (height, width):
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


def zoom(array: Pixels, side: int, left: float, top: float, span: float) -> Pixels:
    """Cut a square out of a picture and scale it, without rounding the cut to pixels.

    Args:
        array: uint8 [H, W, 3].
        side: pixels of the result.
        left: of the square, in pixels of the picture.
        top: the same.
        span: side of the square, in pixels of the picture.

    Returns:
        uint8 [side, side, 3].
    """
    box = (left, top, left + span, top + span)
    return np.asarray(Image.fromarray(array).resize((side, side), Image.Resampling.BILINEAR, box=box))


def fill_polygons(array: Pixels, polygons: Iterable[tuple[NDArray[Any], tuple[float, float, float]]]) -> Pixels:
    """Paint polygons over a picture, in their order, without smoothing their edges.

    Args:
        array: uint8 [H, W, 3] or [H, W, 4].
        polygons: vertices [N, 2] as (x, y) in pixels, and the colour (red, green, blue in [0, 1]); opaque.

    Returns:
        A new array of the same shape.
    """
    canvas = Image.fromarray(array)
    pen = ImageDraw.Draw(canvas)
    for points, colour in polygons:
        pen.polygon(points.ravel().tolist(), fill=(*(int(255 * part) for part in colour), 255)[: array.shape[2]])
    return np.array(canvas)


def blur(array: Pixels, radius: float) -> Pixels:
    """Blur a picture, uint8 [H, W], [H, W, 3] or [H, W, 4], by a Gaussian of this radius in pixels."""
    return np.asarray(Image.fromarray(array).filter(ImageFilter.GaussianBlur(radius)))


def shrink(array: Pixels, factor: int) -> Pixels:
    """Average blocks of factor x factor pixels, transparency respected: the second half of supersampling."""
    return np.asarray(Image.fromarray(array).reduce(factor))


def place_sprite(frame: Pixels, sprite: Pixels, pose: NDArray[Any]) -> Pixels:
    """Put a sprite into a frame.

    Args:
        frame: uint8 [H, W, 3].
        sprite: uint8 [n, n, 4].
        pose: [2, 3] affine map of sprite coordinates, (-1/2, -1/2) to (1/2, 1/2) over its square, to frame pixels.

    Returns:
        A new array of the frame's shape.
    """
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    reached = corners @ pose[:, :2].T + pose[:, 2]
    left, top = np.maximum(np.floor(reached.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(reached.max(axis=0)), frame.shape[1::-1]).astype(int).tolist()
    if right <= left or bottom <= top:
        return frame
    back = np.linalg.inv(pose[:, :2]) * len(sprite)
    shift = back @ (np.array([left, top]) - pose[:, 2]) + len(sprite) / 2
    data = (*back[0].tolist(), float(shift[0]), *back[1].tolist(), float(shift[1]))
    size = (right - left, bottom - top)
    moved = Image.fromarray(sprite).transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    canvas = Image.fromarray(frame)
    canvas.paste(moved, (left, top), moved)
    return np.array(canvas)


def _encode(array: Pixels, kind: str, **options: int) -> bytes:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ShapeError(f"picture is {array.dtype} {list(array.shape)}; expected uint8 [H, W, 3]")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()
