"""Images that are in two datasets are counted."""

import numpy as np
import pytest

from model_compression.data.shared_samples import count_shared
from model_compression.data.synthetic import load_synthetic


@pytest.fixture(scope="module")
def splits():
    return load_synthetic()


def test_test_images_that_are_trained_on_are_counted(splits):
    train, _ = splits
    assert count_shared(train.subset(np.arange(7)), train.subset([3, 3, 500, 6])) == 3


def test_one_pixel_makes_another_image(splits):
    train, _ = splits
    images = train.images[:2].copy()
    images[0, 0, 0, 0] ^= 1
    changed = train.subset([0, 1]).subset([0, 1])
    changed.images[0, 0, 0, 0] ^= 1
    assert count_shared(train, changed) == 1


def test_images_of_another_shape_are_not_compared(splits):
    train, test = splits
    other = type(test)(
        name="small",
        samples=test.images[:, :, :8, :8],
        labels=test.labels,
        class_names=test.class_names,
        mean=test.mean,
        std=test.std,
    )
    assert count_shared(train, other) == 0
