"""The built-in patterns: the same bytes everywhere, balanced, and learnable."""

import numpy as np

from model_compression.checks.data import examine_data
from model_compression.data.synthetic import load_synthetic


def test_synthetic_is_the_same_on_every_machine():
    assert [dataset.digest[:16] for dataset in load_synthetic()] == ["850d6307e0a4796b", "b9addc5b69bd7d1e"]


def test_synthetic_is_balanced_and_has_the_shape_of_cifar10():
    train, test = load_synthetic()
    assert train.class_counts().tolist() == [100] * 10
    assert test.class_counts().tolist() == [50] * 10
    assert train.image_shape == test.image_shape == (3, 32, 32)
    assert {finding.level for finding in examine_data(train, test)} == {"ok"}


def test_synthetic_mean_and_std_are_those_of_the_training_images():
    train, _ = load_synthetic()
    scaled = train.images / 255
    assert np.allclose(train.mean, scaled.mean((0, 2, 3)), atol=1e-5)
    assert np.allclose(train.std, scaled.std((0, 2, 3)), atol=1e-5)


def test_synthetic_is_learnable_but_not_by_colour_alone():
    """Nearest class mean of the spectrum, which no shift changes, finds the class; of the colours it does not."""
    train, test = load_synthetic()
    assert nearest_mean_accuracy(spectrum, train, test) > 0.98
    assert 0.3 < nearest_mean_accuracy(colours, train, test) < 0.8


def test_synthetic_classes_survive_a_flip():
    """Flip augmentation must not turn one class into another."""
    train, test = load_synthetic()
    assert nearest_mean_accuracy(lambda images: spectrum(images[..., ::-1]), train, test) > 0.98
    assert nearest_mean_accuracy(spectrum, train, test, lambda images: spectrum(images[..., ::-1])) > 0.9


def spectrum(images):
    """Size of the Fourier coefficients of each channel with and against the other diagonal added: (N, …)."""
    size = np.abs(np.fft.rfft2(images.astype(np.float64) - images.mean((2, 3), keepdims=True)))
    rows = -np.arange(32) % 32  # a flip turns the frequency of the rows around
    return (size + size[:, :, rows]).reshape(len(images), -1)


def colours(images):
    return images.mean((2, 3))


def nearest_mean_accuracy(features, train, test, test_features=None):
    known, asked = features(train.images), (test_features or features)(test.images)
    means = np.stack([known[train.labels == label].mean(0) for label in range(10)])
    distances = np.linalg.norm(asked[:, None] - means, axis=2)
    return (distances.argmin(1) == test.labels).mean()
