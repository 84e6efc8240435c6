"""nst against a discrepancy summed over pairs of channels, one kernel value at a time."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, slope

from model_compression.distillation.methods.feature.nst import NeuronSelectivity


def directions(x):
    """One list for each image, of its channels as vectors of length 1."""
    found = []
    for image in x:
        channels = [channel.reshape(-1) for channel in image]
        lengths = [np.sqrt((channel**2).sum()) for channel in channels]
        found.append([c / n if n else c for c, n in zip(channels, lengths, strict=True)])
    return found


def kernel_mean(xs, ys):
    return sum(float(x @ y) ** 2 for x in xs for y in ys) / len(xs) / len(ys)


def expected(student, teacher):
    values = [
        kernel_mean(s, s) + kernel_mean(t, t) - 2 * kernel_mean(s, t)
        for s, t in zip(directions(student), directions(teacher), strict=True)
    ]
    return sum(values) / len(values)


# Fewer positions than channels, and more: the sums are taken in different orders.
SHAPES = [
    ((1, 6, 2, 2), (1, 6, 2, 2)),
    ((2, 2, 3, 3), (2, 11, 3, 3)),
    ((3, 2, 3, 5), (3, 7, 3, 5)),
    ((1, 1, 4, 4), (1, 3, 4, 4)),
    ((2, 5, 1, 1), (2, 1, 1, 1)),
]


@pytest.mark.parametrize(("student", "teacher"), SHAPES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_nst_is_the_discrepancy_of_normalised_channels(student, teacher, scale):
    s, t = maps(student, 0, scale), maps(teacher, 1)
    value, (gradient,) = evaluate(NeuronSelectivity(), [s], [t])
    assert value == pytest.approx(expected(s, t), rel=1e-9, abs=1e-14)
    np.testing.assert_allclose(gradient, slope(lambda x: expected(x, t), s), rtol=1e-5, atol=1e-8)


def test_nst_adds_its_pairs_and_pools_the_larger_map():
    s, t = [maps((2, 3, 8, 4), 0), maps((2, 4, 2, 2), 1)], [maps((2, 5, 4, 4), 2), maps((2, 6, 4, 6), 3)]
    value, gradients = evaluate(NeuronSelectivity(), s, t)

    def first(x):
        return expected(pooled(x, (4, 4)), t[0])

    assert value == pytest.approx(first(s[0]) + expected(s[1], pooled(t[1], (2, 2))), rel=1e-9)
    np.testing.assert_allclose(gradients[0], slope(first, s[0]), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape", [(2, 9, 2, 2), (2, 3, 4, 4)])
def test_nst_is_zero_when_the_sets_of_channels_match(shape):
    t = maps(shape, 0)
    for s in (t, t[:, ::-1].copy(), np.concatenate([t, 5 * t], axis=1)):  # order, scale and number do not matter
        value, (gradient,) = evaluate(NeuronSelectivity(), [s], [t])
        assert value == pytest.approx(0, abs=1e-14)
        np.testing.assert_allclose(gradient, 0, atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 9, 2, 2), (2, 3, 4, 4)])
@pytest.mark.parametrize("loudness", [0, 1e-9])
def test_nst_leaves_silent_channels_alone(shape, loudness):
    s, t = maps(shape, 0), maps(shape, 1)
    s[:, 1] *= loudness
    silent = s.copy()
    silent[:, 1] = 0
    value, (gradient,) = evaluate(NeuronSelectivity(), [s], [t])
    assert value == pytest.approx(expected(silent, t), rel=1e-9)
    assert not gradient[:, 1].any()  # a norm of 1e-9 would make a gradient of 1e9
    assert gradient[:, 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [1e4, -1e4, 0.0, 1e-12, 1e-30])
@pytest.mark.parametrize("teacher", [1e4, 0.0])
@pytest.mark.parametrize("shape", [(1, 9, 2, 2), (2, 3, 4, 4)])
def test_nst_takes_extremes(shape, student, teacher, dtype):
    s, t = np.full(shape, student), np.full(shape, teacher)
    s[:, :, 0, 0] *= -0.5
    value, (gradient,) = evaluate(NeuronSelectivity(), [s], [t], dtype)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_nst_weighs_as_the_benchmark():
    method = NeuronSelectivity()
    assert (dict(method.default_weights), method.default_label_weight) == ({"nst": 50.0}, 1.0)
