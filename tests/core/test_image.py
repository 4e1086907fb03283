"""Input, augmentation, grids and overlays."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from dsol_core import image
from dsol_core.config import ImageConfig
from dsol_core.types import ShapeError


def pictures(count=2, height=32, width=32, seed=0):
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )


def seen(frames, cfg, **options):
    """What the network is given, floats."""
    return image.normalised(image.to_input(frames, cfg, **options))


def test_normalisation_by_hand():
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    out = seen(white, ImageConfig(side=8))
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(out[0, :, 3, 5], expected)
    assert out.shape == (1, 3, 8, 8) and out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    planes = pictures(2, 9, 7)  # any layout of the bytes
    assert torch.equal(image.normalised(planes), image.normalised(planes.contiguous(memory_format=torch.channels_last)))
    for wrong in (white.float(), white[0], white[:, :2]):
        with pytest.raises(ShapeError, match="uint8"):
            image.normalised(wrong)


def test_resizes_to_the_side():
    assert image.to_input(pictures(2, 50, 70), ImageConfig(side=32)).shape == (2, 3, 32, 32)
    assert image.to_input(pictures(2, 90, 70), ImageConfig(side=32), augment=torch.Generator()).shape == (2, 3, 32, 32)


def test_a_picture_of_one_pixel_is_spread():
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    cfg = ImageConfig(side=8)
    assert torch.equal(image.to_input(pixel, cfg), image.to_input(pixel.expand(1, 3, 8, 8), cfg))
    assert image.to_input(pixel, cfg, augment=torch.Generator().manual_seed(0)).shape == (1, 3, 8, 8)


def test_augmentation_comes_from_the_generator():
    frames, cfg = pictures(4), ImageConfig(side=32)
    first, again = (image.to_input(frames, cfg, augment=torch.Generator().manual_seed(3)) for _ in range(2))
    other = image.to_input(frames, cfg, augment=torch.Generator().manual_seed(4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_only_flip_gives_the_mirror_image():
    cfg = ImageConfig(side=32, flip=1.0, brightness=0, saturation=0, crop=0, zoom_out=1.0)
    plain = image.to_input(pictures(), cfg)
    mirrored = image.to_input(pictures(), cfg, augment=torch.Generator())
    assert torch.equal(mirrored, plain.flip(3))


def test_colour_is_brightness_then_saturation_each_kept_in_range():
    cfg = ImageConfig(side=32, flip=0, brightness=0.9, saturation=0.9, crop=0, zoom_out=1.0)
    frames = pictures(32)
    found = image.to_input(frames, cfg, augment=torch.Generator().manual_seed(0))
    drawn = torch.rand(6, 32, generator=torch.Generator().manual_seed(0))[:2].view(2, -1, 1, 1, 1)
    bright, strong = 1 + 0.9 * (2 * drawn - 1)
    lit = (frames * bright).clamp(0, 255)
    grey = (lit * torch.tensor(image.GREY).view(3, 1, 1)).sum(1, keepdim=True)
    expected = (grey + (lit - grey) * strong).clamp(0, 255)
    assert (found - expected).abs().max() <= 2  # brightness is kept in range in whole values
    assert float(bright.min()) < 0.3 and float(strong.max()) > 1.7


def test_grey_has_no_saturation_to_change():
    grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    cfg = ImageConfig(side=8, flip=0, brightness=0, crop=0, zoom_out=1.0)
    torch.testing.assert_close(image.to_input(grey, cfg, augment=torch.Generator()), image.to_input(grey, cfg))


def spread(cfg):
    """Standard deviation of a centred bright square's size in 64 augmented pictures, and its mean area."""
    frames = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    frames[:, :, 12:20, 12:20] = 255
    out = seen(frames, cfg, augment=torch.Generator().manual_seed(0))
    area = (out[:, 0] > 0).float().mean((1, 2))
    return float(area.mean()), float(area.std())


def test_crop_enlarges_and_zoom_out_repeats():
    plain = {"side": 32, "flip": 0.0, "brightness": 0.0, "saturation": 0.0}
    still, none = spread(ImageConfig(**plain, crop=0.0, zoom_out=1.0))
    assert still == pytest.approx(64 / 1024, abs=0.01) and none == pytest.approx(0, abs=1e-6)
    fixed, _ = spread(ImageConfig(**plain, crop=0.25, crop_law="fixed"))
    assert fixed == pytest.approx(still / 0.75**2, rel=0.2)
    # Shrunk, the picture's mirror images keep the share of the frame that objects fill.
    shrunk, _ = spread(ImageConfig(**plain, crop=0.0, zoom_out=0.5))
    assert shrunk == pytest.approx(still, rel=0.3)


def test_grid_places_the_tiles_row_by_row():
    frames = torch.stack([torch.full((3, 8, 6), 10 * (i + 1), dtype=torch.uint8) for i in range(4)]).unsqueeze(0)
    out = image.grid(frames)
    assert out.shape == (1, 3, 8, 6) and out.dtype == torch.uint8
    assert out[0, 0, [0, 0, 7, 7], [0, 5, 0, 5]].tolist() == [10, 20, 30, 40]


def test_grid_averages_pixels():
    frames = torch.zeros(1, 4, 3, 4, 4, dtype=torch.uint8)
    frames[0, 0, 0, :2, :2] = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8)
    assert image.grid(frames)[0, 0, 0, 0] == 100
    with pytest.raises(ShapeError, match="four"):
        image.grid(frames[:, :3])


def test_odd_sides_keep_the_frame_size():
    assert image.grid(pictures(4, 9, 7).unsqueeze(0)).shape == (1, 3, 9, 7)


def test_overlay_by_hand():
    frame = np.full((2, 2, 3), 100, np.uint8)
    out = image.overlay(frame, np.array([[0.0, 1.0], [0.5, 2.0]]), (200, 0, 100), strength=0.5)
    assert out[0, 0].tolist() == [100, 100, 100]
    assert out[0, 1].tolist() == out[1, 1].tolist() == [150, 50, 100]
    assert out[1, 0].tolist() == [125, 75, 100]
    with pytest.raises(ShapeError, match="resize"):
        image.overlay(frame, np.zeros((3, 2)), (0, 0, 0))


def test_wrong_frames():
    with pytest.raises(ShapeError, match="uint8"):
        image.to_input(pictures().float(), ImageConfig())


def smooth(count: int, height: int, width: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return (255 * functional.interpolate(coarse, (height, width), mode="bilinear")).round().to(torch.uint8)


@pytest.mark.parametrize(("zoom_out", "law"), [(0.5, "uniform"), (0.25, "uniform"), (1.0, "fixed")])
def test_augmentation_is_that_of_grid_sample_in_whole_pixels(zoom_out: float, law: str) -> None:
    """Against floats: colour with a clamp after each step, then `grid_sample`, which mirrors at the edges."""
    cfg = ImageConfig(side=64, crop=0.25, crop_law=law, zoom_out=zoom_out)
    frames = smooth(16, 80, 72)
    found = seen(frames, cfg, augment=torch.Generator().manual_seed(2))
    drawn = torch.rand(6, 16, generator=torch.Generator().manual_seed(2))
    mean, deviation = torch.tensor(image.MEAN).view(3, 1, 1), torch.tensor(image.DEVIATION).view(3, 1, 1)
    shares = []
    for frame, out, (bright, strong, law_place, across, down, flip) in zip(frames, found, drawn.T, strict=True):
        picture = (frame / 255 * (0.7 + 0.6 * bright)).clamp(0, 1)
        grey = (picture * torch.tensor(image.GREY).view(3, 1, 1)).sum(0)
        picture = (grey + (picture - grey) * (0.7 + 0.6 * strong)).clamp(0, 1)
        share = 0.75 if law == "fixed" else 0.75 * (1 / zoom_out / 0.75) ** float(law_place)
        shares.append(share)
        theta = torch.zeros(1, 2, 3)
        for axis, (there, place) in enumerate(((72, across), (80, down))):
            there, length = (round(64 / share), 64) if share > 1 else (there, round(share * there))
            start = round(float(place) * (there - length))
            theta[0, axis, axis], theta[0, axis, 2] = length / there, (2 * start + length) / there - 1
        theta[0, 0, 0] *= -1 if flip < cfg.flip else 1
        where = functional.affine_grid(theta, [1, 3, 256, 256], align_corners=False)
        sampled = functional.grid_sample(picture[None], where, padding_mode="reflection", align_corners=False)
        expected = functional.avg_pool2d(sampled, 4)[0]
        errors = (out * deviation + mean - expected).abs()
        assert errors[:, 2:-2, 2:-2].max() < 0.04 and errors.mean() < 0.006
    assert law == "fixed" or min(shares) < 0.9 < 1.5 < max(shares)


def test_zooming_out_does_not_alias() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    cfg = ImageConfig(side=64, crop=0.0, crop_law="uniform", zoom_out=0.25, brightness=0, saturation=0)
    draws = (torch.Generator().manual_seed(seed) for seed in range(50))
    out = next(seen(stripes, cfg, augment=one) for one in draws if _share(one, cfg) > 3)
    assert (out[0, 0] * image.DEVIATION[0] + image.MEAN[0] - 0.5).abs().max() < 0.1


def _share(generator: torch.Generator, cfg: ImageConfig) -> float:
    return cfg.zoom_out ** -float(torch.rand(6, 1, generator=generator.clone_state())[2])


def test_pictures_as_they_are_evaluated_keep_to_floats() -> None:
    frames = pictures(3, 90, 70)
    found = seen(frames, ImageConfig(side=32))
    floats = functional.interpolate(frames / 255, (32, 32), mode="bilinear", antialias=True)
    mean, deviation = torch.tensor(image.MEAN).view(3, 1, 1), torch.tensor(image.DEVIATION).view(3, 1, 1)
    assert (found * deviation + mean - floats).abs().max() < 1.5 / 255
    same = image.to_input(frames, ImageConfig(side=90))[0]  # equal for any company and any layout of the bytes
    layout = frames[:1].contiguous(memory_format=torch.channels_last)
    assert torch.equal(image.to_input(layout, ImageConfig(side=90))[0], same)


def test_a_given_place_is_filled() -> None:
    frames, cfg = pictures(), ImageConfig(side=24)
    place = torch.zeros(2, 24, 24, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    given = image.to_input(frames, cfg, augment=torch.Generator().manual_seed(1), out=place)
    assert given is place and torch.equal(place, image.to_input(frames, cfg, augment=torch.Generator().manual_seed(1)))


def test_a_larger_side_is_a_whole_number_of_cells():
    assert image.scaled(ImageConfig(side=100), 1, 16).side == 100  # as it is
    sides = [image.scaled(ImageConfig(side=128), factor, 16).side for factor in (1.25, 1.3, 1.5, 0.01)]
    assert sides == [160, 160, 192, 16]


def test_grids_may_be_augmented_in_another_way():
    whole = ImageConfig(crop=0.2, crop_grids=False)
    assert image.front_of("solo", whole) is whole and image.front_of("grid", ImageConfig(crop=0.2)).crop == 0.2
    grid = image.front_of("grid", whole)
    assert (grid.crop, grid.zoom_out, grid.flip) == (0.0, 1.0, 0.5)
