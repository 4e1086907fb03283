import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from dsol_core.types import DataError, ShapeError
from tasks.adapters import images


def _gradient(height=20, width=30):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 8, columns * 6, np.full_like(rows, 90)], axis=2).astype(np.uint8)


def test_png_keeps_every_pixel():
    picture = _gradient()
    assert np.array_equal(images.decode_image(images.encode_png(picture)), picture)


def test_jpeg_is_close_smaller_at_low_quality_and_repeatable(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert images.encode_jpeg(picture, 92) == images.encode_jpeg(picture, 92)
    assert len(images.encode_jpeg(picture, 30)) < len(images.encode_jpeg(picture, 92))
    (tmp_path / "x.jpg").write_bytes(images.encode_jpeg(_gradient(), 92))
    decoded = images.decode_image(tmp_path / "x.jpg")
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - _gradient()).mean() < 4


def test_resize_takes_height_first_and_averages_the_area():
    checks = np.zeros((8, 8, 3), np.uint8)
    checks[::2, ::2] = 200
    checks[1::2, 1::2] = 200
    small = images.resize(checks, (2, 4))
    assert small.shape == (2, 4, 3)
    assert np.all(np.abs(small.astype(int) - 100) <= 15)  # aliasing would give 0 or 200


def test_wrong_arrays_and_broken_files_are_named(tmp_path):
    with pytest.raises(ShapeError, match=r"float64 \[4, 4, 3\]"):
        images.encode_jpeg(np.zeros((4, 4, 3)), 90)
    with pytest.raises(ShapeError, match=r"uint8 \[4, 4\]"):
        images.encode_png(np.zeros((4, 4), np.uint8))
    with pytest.raises(ShapeError, match="0 x 4"):
        images.resize(_gradient(), (0, 4))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(images.encode_jpeg(_gradient(200, 200), 90)[:300])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        images.decode_image(broken)
    with pytest.raises(DataError, match=r"missing\.png"):
        images.decode_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="4 bytes"):
        images.decode_image(b"text")


def test_a_picture_of_absurd_size_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="600 pixels"):
        images.decode_image(images.encode_png(_gradient()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)).save(file, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    np.testing.assert_array_equal(images.decode_image(file.getvalue()), np.array(expected))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_data_cost_a_photograph_nothing():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (9, 9, 9)).save(file, "PNG", exif=exif)
    chunk = file.getvalue().index(b"eXIf")
    generator = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(file.getvalue())
        for place in generator.integers(chunk + 8, chunk + 40, 4):
            data[place] = generator.integers(256)
        length = int.from_bytes(data[chunk - 4 : chunk], "big")
        data[chunk + 4 + length : chunk + 8 + length] = zlib.crc32(data[chunk : chunk + 4 + length]).to_bytes(4, "big")
        assert images.decode_image(bytes(data)).size == 40 * 20 * 3


def test_zoom_cuts_between_pixels_and_scales():
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, :, 0] = 10 * np.arange(8)
    assert np.array_equal(images.zoom(picture, 4, 2, 0, 4)[0, :, 0], [20, 30, 40, 50])
    assert np.array_equal(images.zoom(picture, 4, 2.5, 0, 4)[0, 1:3, 0], [35, 45])


def test_polygons_are_filled_in_order_with_their_colours_on_pictures_and_sprites():
    square = np.array([(1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (1.0, 3.0)])
    painted = images.fill_polygons(np.zeros((6, 6, 3), np.uint8), [(square, (1, 0, 0)), (square + 1, (0, 0, 1))])
    assert tuple(painted[1, 1]) == (255, 0, 0)
    assert tuple(painted[3, 3]) == (0, 0, 255)
    assert tuple(painted[5, 0]) == (0, 0, 0)
    sprite = images.fill_polygons(np.zeros((6, 6, 4), np.uint8), [(square, (1, 0, 0))])
    assert tuple(sprite[2, 2]) == (255, 0, 0, 255)
    assert sprite[5, 5, 3] == 0


def test_shrink_does_not_darken_the_edges_of_transparent_shapes():
    sprite = np.zeros((4, 4, 4), np.uint8)
    sprite[:, :1] = (200, 200, 200, 255)
    small = images.shrink(sprite, 2)
    assert small.shape == (2, 2, 4)
    assert small[0, 0, :3].min() >= 198  # 100, if the colour of the empty half counted
    assert small[0, 0, 3] == 128


def test_a_sprite_lands_where_its_pose_says_and_leaves_the_rest():
    frame = np.full((20, 20, 3), 7, np.uint8)
    sprite = np.full((10, 10, 4), 255, np.uint8)
    pose = np.array([[6.0, 0, 8], [0, 4.0, 12]])  # 6 wide, 4 high, centred on (8, 12)
    placed = images.place_sprite(frame, sprite, pose)
    assert np.argwhere(placed[..., 0] == 255).min(axis=0).tolist() == [10, 5]
    assert np.argwhere(placed[..., 0] == 255).max(axis=0).tolist() == [13, 10]
    assert (placed == 7).all(axis=2).sum() == 400 - 24
    assert (frame == 7).all()


def test_a_turned_sprite_and_one_outside_the_frame():
    frame = np.zeros((20, 20, 3), np.uint8)
    sprite = np.zeros((10, 10, 4), np.uint8)
    sprite[:5] = (255, 0, 0, 255)  # its upper half
    quarter = np.array([[0, -10.0, 10], [10.0, 0, 10]])  # a quarter turn clockwise: up becomes right
    placed = images.place_sprite(frame, sprite, quarter)
    assert placed[10, 13, 0] == 255
    assert placed[10, 7, 0] == 0
    quarter[0, 2] += 50
    assert np.array_equal(images.place_sprite(frame, sprite, quarter), frame)


@pytest.mark.parametrize("size", [(17, 33), (128, 128)])
def test_a_jpeg_decodes_to_the_same_values_without_pillow(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = images.encode_jpeg(picture, 92)
    decoded = images.decode_jpeg(data)
    assert decoded.shape == (3, *size) and np.array_equal(decoded.permute(1, 2, 0).numpy(), images.decode_image(data))


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_damaged_jpeg_is_reported(cut: int) -> None:
    data = images.encode_jpeg(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), 92)
    with pytest.raises(DataError, match="expected a complete JPEG"):
        images.decode_jpeg(data[:cut])


def test_another_format_is_decoded_too() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(images.decode_jpeg(images.encode_png(picture)).permute(1, 2, 0).numpy(), picture)
