"""What is odd about a data set: classes without images, a single class, test images that are trained on."""

import numpy as np
import pytest

from model_compression.data.checks import num_shared_images, oddities
from model_compression.data.synthetic import load_synthetic


@pytest.fixture(scope="module")
def splits():
    return load_synthetic()


def test_oddities_are_none_for_sound_data(splits):
    assert oddities(*splits) == []


def test_oddities_name_test_images_that_are_trained_on(splits):
    train, _ = splits
    leaky = train.subset(np.arange(7)), train.subset([3, 3, 500, 6])
    assert num_shared_images(*leaky) == 3
    assert "3 of 4 test images are in the training set too" in oddities(*leaky)[-1]


def test_one_pixel_makes_another_image(splits):
    train, _ = splits
    images = train.images[:2].copy()
    images[0, 0, 0, 0] ^= 1
    changed = train.subset([0, 1]).subset([0, 1])
    changed.images[0, 0, 0, 0] ^= 1
    assert num_shared_images(train, changed) == 1


def test_oddities_name_classes_without_images(splits):
    train, test = splits
    part = train.subset(np.flatnonzero(~np.isin(train.labels, [2, 5])))
    assert oddities(part, test) == [f"{part.name}: no images of green-rows, yellow-diagonals"]


def test_oddities_name_a_single_class(splits):
    train, test = splits
    part = train.subset(np.flatnonzero(train.labels == 4))
    assert oddities(part, test) == [f"{part.name}: all images are of the class blue-diagonals"]


def test_images_of_another_shape_are_not_compared(splits):
    train, test = splits
    other = type(test)(
        name="small",
        images=test.images[:, :, :8, :8],
        labels=test.labels,
        class_names=test.class_names,
        mean=test.mean,
        std=test.std,
    )
    assert num_shared_images(train, other) == 0
