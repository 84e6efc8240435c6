"""fitnet against its regression written out with einsum, and the gradient worked out by hand."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, ready

from model_compression.distillation.methods.feature.fitnet import FitNet


def projection(method, index):
    regressor = method.regressors[index]
    return regressor.weight.detach().numpy()[:, :, 0, 0], regressor.bias.detach().numpy()


def expected(s, t, weight, bias):
    """Value and gradient for s, of maps of one size."""
    error = np.einsum("oc,bchw->bohw", weight, s) + bias[None, :, None, None] - t
    return (error**2).sum() / error.size, 2 * np.einsum("oc,bohw->bchw", weight, error) / error.size


SHAPES = [((1, 3, 4, 4), (1, 3, 4, 4)), ((3, 2, 3, 5), (3, 7, 3, 5)), ((2, 5, 1, 1), (2, 1, 1, 1))]


@pytest.mark.parametrize(("student", "teacher"), SHAPES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e4])
def test_fitnet_is_the_mean_square_of_the_projections_error(student, teacher, scale):
    s, t = maps(student, 0, scale), maps(teacher, 1)
    method = ready(FitNet(), [s], [t])
    value, (gradient,) = evaluate(method, [s], [t])
    expected_value, expected_gradient = expected(s, t, *projection(method, 0))
    assert value == pytest.approx(expected_value, rel=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-14)


def test_fitnet_adds_its_pairs_and_pools_the_larger_map():
    s, t = [maps((2, 3, 8, 4), 0), maps((2, 4, 2, 2), 1)], [maps((2, 5, 4, 4), 2), maps((2, 6, 4, 6), 3)]
    method = ready(FitNet(), s, t)
    value, gradients = evaluate(method, s, t)
    first, of_first = expected(pooled(s[0], (4, 4)), t[0], *projection(method, 0))
    second, of_second = expected(s[1], pooled(t[1], (2, 2)), *projection(method, 1))
    assert value == pytest.approx(first + second, rel=1e-9)
    np.testing.assert_allclose(gradients[0], np.repeat(of_first, 2, axis=2) / 2, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(gradients[1], of_second, rtol=1e-9, atol=1e-14)


def test_fitnet_is_zero_when_the_projected_maps_match():
    s = maps((2, 3, 4, 4), 0)
    method = ready(FitNet(), [s], [s])
    with torch.no_grad():
        method.regressors[0].weight.copy_(torch.eye(3)[:, :, None, None])
        method.regressors[0].bias.zero_()
    value, (gradient,) = evaluate(method, [s], [s])
    assert value == pytest.approx(0, abs=1e-28)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fitnet_takes_extremes(dtype):
    s, t = np.full((1, 3, 4, 4), 1e4), np.full((1, 5, 2, 2), -1e4)
    for student in (s, s * 0):
        value, (gradient,) = evaluate(ready(FitNet(), [s], [t]), [student], [t], dtype)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_fitnet_goes_with_the_labels_in_one_stage():
    method = ready(FitNet(), [maps((1, 3, 2, 2), 0)], [maps((1, 3, 2, 2), 1)])
    assert (dict(method.default_weights), method.default_label_weight) == ({"fitnet": 100.0}, 1.0)
    assert not method.has_first_stage
