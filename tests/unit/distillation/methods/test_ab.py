"""ab against its margins counted neuron by neuron."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, ready, slope

from model_compression.core.errors import UsageError
from model_compression.distillation.methods.feature.ab import ActivationBoundaries, boundary_loss


def connected(method, index, x):
    """1×1 convolution and BatchNorm over the batch, written out."""
    connector = method.connectors[index]
    weight = connector.convolution.weight.detach().numpy()[:, :, 0, 0]
    scale, shift = connector.norm.weight.detach().numpy(), connector.norm.bias.detach().numpy()
    y = np.einsum("oc,bchw->bohw", weight, x)
    mean, variance = y.mean(axis=(0, 2, 3), keepdims=True), y.var(axis=(0, 2, 3), keepdims=True)
    return (y - mean) / np.sqrt(variance + 1e-5) * scale[None, :, None, None] + shift[None, :, None, None]


def expected(s, t, margin):
    total = 0.0
    for place in np.ndindex(s.shape):
        if t[place] > 0 and s[place] < margin:
            total += (margin - s[place]) ** 2
        elif t[place] <= 0 and s[place] > -margin:
            total += (margin + s[place]) ** 2
    return total / len(s)


SHAPES = [((1, 3, 4, 4), (1, 3, 4, 4)), ((3, 2, 3, 5), (3, 7, 3, 5)), ((2, 5, 1, 1), (2, 1, 1, 1))]


@pytest.mark.parametrize(("student", "teacher"), SHAPES)
@pytest.mark.parametrize("margin", [0.2, 1.0, 3.0])
def test_ab_is_the_sum_of_squared_violations_of_the_margin(student, teacher, margin):
    s, t = maps(student, 0), maps(teacher, 1)
    t.reshape(-1)[0] = 0.0  # on the boundary counts as inactive
    method = ready(ActivationBoundaries(margin=margin), [s], [t])
    with torch.no_grad():
        method.connectors[0].norm.weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        method.connectors[0].norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))

    def term(x):
        return expected(connected(method, 0, x), t, margin)

    value, (gradient,) = evaluate(method, [s], [t])
    assert value == pytest.approx(term(s), rel=1e-9)
    np.testing.assert_allclose(gradient, slope(term, s), rtol=1e-4, atol=1e-6)


def test_ab_adds_its_pairs_and_pools_the_larger_map():
    s, t = [maps((2, 3, 8, 4), 0), maps((2, 4, 2, 2), 1)], [maps((2, 5, 4, 4), 2), maps((2, 6, 4, 6), 3)]
    method = ready(ActivationBoundaries(), s, t)
    value, _ = evaluate(method, s, t)
    first = expected(connected(method, 0, pooled(s[0], (4, 4))), t[0], 1.0)
    assert value == pytest.approx(first + expected(connected(method, 1, s[1]), pooled(t[1], (2, 2)), 1.0), rel=1e-9)


@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_ab_is_zero_when_signs_match_beyond_the_margin(margin):
    signs = np.sign(maps((2, 3, 4, 4), 0))
    student = torch.tensor(signs * margin * 1.001, requires_grad=True)
    term = boundary_loss(student, torch.tensor(signs * 1e-3), margin)  # how far the teacher is does not matter
    term.backward()
    assert term.item() == 0
    assert not student.grad.any()


def test_ab_sees_only_the_signs_of_the_teacher():
    s, t = maps((2, 3, 4, 4), 0), maps((2, 3, 4, 4), 1)
    method = ready(ActivationBoundaries(), [s], [t])
    plain, _ = evaluate(method, [s], [t])
    for same in (100 * t, np.sign(t), np.maximum(t, 0)):
        assert evaluate(method, [s], [same])[0] == pytest.approx(plain, rel=1e-12)
    assert evaluate(method, [s], [np.abs(t)])[0] != pytest.approx(plain, rel=1e-3)


def test_ab_wakes_neurons_that_are_off_before_the_activation_and_not_after_it():
    off, teacher = torch.full((1, 2, 3, 3), -0.5, requires_grad=True), torch.ones(1, 2, 3, 3)
    (before,) = torch.autograd.grad(boundary_loss(off, teacher, 1.0), off)
    (after,) = torch.autograd.grad(boundary_loss(torch.relu(off), teacher, 1.0), off)
    assert (before < 0).all()
    assert not after.any()


def test_ab_takes_a_single_value_in_each_channel():
    s, t = [maps((1, 3, 1, 1), 0)], [maps((1, 4, 1, 1), 1)]
    method = ready(ActivationBoundaries(), s, t)
    weight = method.connectors[0].convolution.weight.detach().numpy()[:, :, 0, 0]
    projected = np.einsum("oc,bchw->bohw", weight, s[0]) / np.sqrt(1 + 1e-5)  # running mean 0 and variance 1
    value, (gradient,) = evaluate(method, s, t)
    assert value == pytest.approx(expected(projected, t[0], 1.0), rel=1e-9)
    assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [1e4, -1e4, 0.0])
@pytest.mark.parametrize("batch", [1, 2])
def test_ab_takes_extremes(batch, student, dtype):
    s, t = [np.full((batch, 3, 4, 4), student)], [np.full((batch, 5, 2, 2), -1e4)]
    value, (gradient,) = evaluate(ready(ActivationBoundaries(), s, t), s, t, dtype)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    far = torch.tensor(s[0], dtype=dtype)
    assert boundary_loss(far, -far, 1.0).isfinite()


@pytest.mark.parametrize("margin", [0, -1.0, 10**400, float("nan"), float("inf"), "wide", None, True])
def test_ab_refuses_an_impossible_margin(margin):
    with pytest.raises(UsageError, match=r"ab: margin must be a number > 0 \(published: 1\), got"):
        ActivationBoundaries(margin=margin)


def test_ab_weighs_as_code_that_trains_in_one_stage():
    method = ActivationBoundaries()
    assert (dict(method.default_weights), method.default_label_weight) == ({"ab": 0.001}, 1.0)
