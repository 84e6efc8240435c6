"""Scaling: what is not much larger has the bits of Pillow; what is, is close to them, so is a JPEG decoded smaller."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from model_compression.core.fitting import Fitting
from model_compression.data.image_files import decode_image, decode_scaled
from model_compression.data.scaling import scale

TURNS = {  # of the EXIF standard: what makes the scene of the file's pixels
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


def scene(width, height, channels=3):
    """(H, W, C): waves, the finer the fainter as in photographs, and a bright corner; different along and across."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = ((3, 1, 50), (9, 20, 20), (47, 31, 8), (5, 71, 6))
    grey = 128 + sum(strength * np.sin(2 * np.pi * (f * x + g * y) + f) for f, g, strength in waves)
    grey = grey + 40 * ((x < 0.3) & (y < 0.2))
    return np.stack([np.roll(grey, 7 * c, axis=1) for c in range(channels)], axis=2).clip(0, 255).astype(np.uint8)


def jpeg(pixels, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=90, **options)
    return buffer


def fitted(image, size, share=1.0, by=Image.Resampling.BICUBIC):
    """(C, H, W) by Pillow alone: the whole image scaled so that it covers ``size`` / ``share``, then its middle."""
    high, wide = (math.floor(side / share) for side in size)
    if image.width * size[0] >= image.height * size[1]:
        wide = max(wide, int(high * image.width / image.height))
    else:
        high = max(high, int(wide * image.height / image.width))
    left, top = round((wide - size[1]) / 2), round((high - size[0]) / 2)
    scaled = image.resize((wide, high), by).crop((left, top, left + size[1], top + size[0]))
    return np.atleast_3d(np.asarray(scaled)).transpose(2, 0, 1)


def difference(one, other):
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other.astype(int))


@pytest.mark.parametrize("shape", [(40, 40), (60, 45), (59, 80), (20, 33), (7, 5), (400, 41)])
def test_image_that_is_not_much_larger_has_pillows_bits(shape):
    image = Image.fromarray(scene(*shape))
    for size in ((40, 40), (41, 40)):
        np.testing.assert_array_equal(scale(image, size), fitted(image, size))
        for share, by in itertools.product((0.875, 0.5), ("bilinear", "lanczos")):
            found = scale(image, size, fit=Fitting("crop", share, by))
            np.testing.assert_array_equal(found, fitted(image, size, share, Image.Resampling[by.upper()]))
        np.testing.assert_array_equal(decode_scaled(jpeg(scene(*shape)), "x", 3, size),
                                      fitted(decode_image(jpeg(scene(*shape)), "x"), size))  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(120, 120), (500, 375), (375, 500), (300, 61), (61, 301), (137, 136), (1200, 90)])
def test_image_that_is_much_larger_is_pillows_but_for_rounding(shape, channels):
    image = Image.fromarray(scene(*shape, channels).squeeze())
    for size, share, by in itertools.product(((40, 40), (40, 30)), (1, 0.875), ("bilinear", "bicubic")):
        expected = fitted(image, size, share, Image.Resampling[by.upper()])
        found = difference(scale(image, size, fit=Fitting("crop", share, by)), expected)
        assert found.mean() < 0.6
        assert found.max() <= 6  # a 32nd of a pixel, beside an edge


def test_image_whose_middle_begins_at_a_pixel_differs_by_one_level_at_most():
    for shape in ((120, 120), (500, 376), (376, 500)):
        image = Image.fromarray(scene(*shape))
        for side in (47, 80):
            assert difference(scale(image, (side, side)), fitted(image, (side, side))).max() <= 1


def test_processor_without_the_fast_filter_takes_pillows(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    image = Image.fromarray(scene(500, 375))
    np.testing.assert_array_equal(scale(image, (40, 40)), fitted(image, (40, 40)))


@pytest.mark.parametrize("shape", [(500, 375), (1600, 1200), (1001, 751), (333, 1210), (640, 641)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_jpeg_that_is_decoded_smaller_is_within_two_levels_of_a_full_decode(shape, options):
    file = jpeg(scene(*shape), **options)
    for size in ((112, 112), (40, 40), (60, 80)):
        found = difference(decode_scaled(file, "x", 3, size), fitted(decode_image(file, "x"), size))
        assert found.mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_any_mode_is_decoded_smaller_alike(mode, channels):
    file = jpeg(scene(900, 700), mode)
    found = difference(
        decode_scaled(file, "x", channels, (64, 64)), fitted(decode_image(file, "x", channels), (64, 64))
    )
    assert found.mean() < 2
    assert found.shape == (channels, 64, 64)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("size", [(40, 40), (40, 60)])
def test_jpeg_that_is_decoded_smaller_is_turned_and_keeps_its_place(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = scene(1001, 751)  # the last column and row of an eighth are parts of pixels
    whole = np.asarray(Image.open(jpeg(pixels)))
    expected = fitted(Image.fromarray(np.ascontiguousarray(TURNS[orientation](whole))), size)
    found = decode_scaled(jpeg(pixels, exif=exif), "x", 3, size)
    assert difference(found, expected).mean() < 1.5
