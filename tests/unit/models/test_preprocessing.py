"""Preprocessing against its formula in float64 NumPy."""

import numpy as np
import pytest
import torch
from PIL import Image

from model_compression.core.errors import UsageError
from model_compression.models import Preprocessing

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("with_image", [False, True])
def test_preprocessing_is_its_formula(images, order, with_image):
    mean_image = np.random.default_rng(1).uniform(0, 255, (3, 6, 5)).astype(np.float32) if with_image else None
    given = None if mean_image is None else torch.from_numpy(mean_image)
    preprocessing = Preprocessing(mean=MEAN, std=STD, channel_order=order, mean_image=given)
    found = preprocessing(torch.from_numpy(images))
    pixels = images[:, ::-1].astype(np.float64) if order == "bgr" else images.astype(np.float64)
    offset = 255 * np.array(MEAN)[:, None, None] if mean_image is None else mean_image.astype(np.float64)
    expected = (pixels - offset) / (255 * np.array(STD)[:, None, None])
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=2e-6)


def test_preprocessing_default_is_the_norm_of_cifar10():
    grey = torch.full((1, 3, 1, 1), 128, dtype=torch.uint8)
    expected = (128 / 255 - np.array([0.49140, 0.48216, 0.44653])) / np.array([0.24703, 0.24349, 0.26159])
    np.testing.assert_allclose(Preprocessing()(grey).flatten().numpy(), expected, atol=1e-6)


def test_preprocessing_leaves_its_input_alone(images):
    given = torch.from_numpy(images.copy())
    Preprocessing(channel_order="bgr")(given)
    np.testing.assert_array_equal(given.numpy(), images)


def test_preprocessing_round_trip_of_plain_values():
    mean_image = torch.ones(3, 2, 2)
    first = Preprocessing(mean=MEAN, std=STD, channel_order="bgr", mean_image=mean_image)
    again = Preprocessing.from_dict(first.to_dict(), mean_image)
    assert (again.mean, again.std, again.channel_order) == (MEAN, STD, "bgr")
    assert again.mean_image is mean_image


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5,)}, "mean and std must be finite, of one length, std > 0"),
        ({"std": (0.2, 0.0, 0.2)}, "mean and std must be finite"),
        ({"std": (0.2, float("nan"), 0.2)}, "mean and std must be finite"),
        ({"mean": (0.5, float("inf"), 0.5)}, "mean and std must be finite"),
        ({"channel_order": "grb"}, "channel_order must be 'rgb' or 'bgr', got 'grb'"),
        ({"mean_image": torch.zeros(3, 4)}, r"the mean image must be finite, \(3, H, W\), got \(3, 4\)"),
        ({"mean_image": torch.zeros(1, 4, 4)}, "the mean image must be finite"),
        ({"mean_image": torch.full((3, 4, 4), float("nan"))}, "the mean image must be finite"),
    ],
)
def test_preprocessing_refuses_figures_that_cannot_be_meant(values, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing(**values)


def test_preprocessing_refuses_images_of_another_size_than_its_mean_image():
    with pytest.raises(UsageError, match=r"images are \(3, 8, 8\), but this network's mean image is \(3, 4, 4\)"):
        Preprocessing(mean_image=torch.zeros(3, 4, 4))(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(3, 5), (12, 10), (9, 4)])
def test_preprocessing_scales_as_pillow_does(images, size):
    found = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, size=size)(torch.from_numpy(images))
    assert found.shape == (4, 3, *size)
    for image, scaled in zip(images, found, strict=True):
        for channel, plane in zip(image, scaled, strict=True):
            pillow = Image.fromarray(channel.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)
            np.testing.assert_allclose(plane.numpy(), np.asarray(pillow), atol=2e-3)


def test_preprocessing_of_the_images_own_size_scales_nothing(images):
    given = torch.from_numpy(images)
    assert torch.equal(Preprocessing(size=(6, 5))(given), Preprocessing()(given))


def test_preprocessing_scales_before_it_subtracts_the_mean_image(images):
    mean_image = torch.rand(3, 3, 5) * 255
    found = Preprocessing(std=STD, mean_image=mean_image, size=(3, 5))(torch.from_numpy(images))
    scaled = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, size=(3, 5))(torch.from_numpy(images))
    torch.testing.assert_close(found, (scaled - mean_image) / (255 * torch.tensor(STD).view(3, 1, 1)))


def test_preprocessing_without_a_size_is_written_as_before():
    assert Preprocessing().to_dict().keys() == {"mean", "std", "channel_order"}
    first = Preprocessing(size=(7, 9))
    assert Preprocessing.from_dict(first.to_dict()).size == (7, 9)


@pytest.mark.parametrize("size", [(4,), (0, 4), (4.0, 4)])
def test_preprocessing_refuses_a_size_that_is_none(size):
    with pytest.raises(UsageError, match=r"size must be \(height, width\)"):
        Preprocessing(size=size)
