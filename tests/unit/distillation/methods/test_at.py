"""at against attention maps written out position by position."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, slope

from model_compression.distillation.methods.feature.at import AttentionTransfer


def attention(x):
    batch, channels, height, width = x.shape
    found = np.zeros((batch, height * width))
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                found[b, row * width + column] = sum(x[b, c, row, column] ** 2 for c in range(channels)) / channels
        length = np.sqrt((found[b] ** 2).sum())
        found[b] = found[b] / length if length else 0
    return found


def expected(student, teacher):
    difference = attention(student) - attention(teacher)
    return (difference**2).sum() / difference.size


SHAPES = [((1, 3, 4, 4), (1, 3, 4, 4)), ((3, 2, 3, 5), (3, 7, 3, 5)), ((2, 5, 1, 1), (2, 1, 1, 1))]


@pytest.mark.parametrize(("student", "teacher"), SHAPES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_at_is_the_mean_square_of_the_difference_of_normalised_attention(student, teacher, scale):
    s, t = maps(student, 0, scale), maps(teacher, 1)
    value, (gradient,) = evaluate(AttentionTransfer(), [s], [t])
    assert value == pytest.approx(expected(s, t), rel=1e-9, abs=1e-15)
    np.testing.assert_allclose(gradient, slope(lambda x: expected(x, t), s), rtol=1e-5, atol=1e-8)


def test_at_adds_its_pairs_and_pools_the_larger_map():
    s, t = [maps((2, 3, 8, 4), 0), maps((2, 4, 2, 2), 1)], [maps((2, 5, 4, 4), 2), maps((2, 6, 4, 6), 3)]
    value, gradients = evaluate(AttentionTransfer(), s, t)

    def first(x):
        return expected(pooled(x, (4, 4)), t[0])

    assert value == pytest.approx(first(s[0]) + expected(s[1], pooled(t[1], (2, 2))), rel=1e-9)
    np.testing.assert_allclose(gradients[0], slope(first, s[0]), rtol=1e-5, atol=1e-8)


def test_at_normalises_after_the_mean_over_channels():
    s, t = maps((2, 3, 4, 4), 0), maps((2, 3, 4, 4), 1)
    t[:, 0] *= 50  # one loud channel leads the mean; it would not if each channel were normalised
    value, _ = evaluate(AttentionTransfer(), [s], [t])
    loud, _ = evaluate(AttentionTransfer(), [s], [t[:, :1]])
    assert value == pytest.approx(loud, rel=0.05)


def test_at_does_not_see_the_scale_of_maps():
    s, t = maps((2, 3, 4, 4), 0), maps((2, 3, 4, 4), 1)
    plain, _ = evaluate(AttentionTransfer(), [s], [t])
    scaled, _ = evaluate(AttentionTransfer(), [s * 7], [t * 0.01])
    assert scaled == pytest.approx(plain, rel=1e-9)


def test_at_is_zero_when_maps_match():
    s = maps((2, 3, 4, 4), 0)
    value, (gradient,) = evaluate(AttentionTransfer(), [s], [s])
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [1e4, -1e4, 0.0, 1e-12, 1e-30])
@pytest.mark.parametrize("teacher", [1e4, 0.0])
def test_at_takes_extremes(student, teacher, dtype):
    s, t = np.full((2, 3, 4, 4), student), np.full((2, 3, 4, 4), teacher)
    s[:, :, 0, 0] *= -0.5
    value, (gradient,) = evaluate(AttentionTransfer(), [s], [t], dtype)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_at_weighs_as_the_authors_code():
    method = AttentionTransfer()
    assert (dict(method.default_weights), method.default_label_weight) == ({"at": 1000.0}, 1.0)
