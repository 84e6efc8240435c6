"""vid against the density of a Gaussian written out, and what its variances must do: be trained, find the optimum."""

import math

import numpy as np
import pytest
import torch
from numerics import answers, pooled, ready, slope

import model_compression.distillation.methods.feature.vid  # noqa: F401  registers it
from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create

SHAPES = [
    ([(3, 4, 4, 4)], [(3, 4, 4, 4)]),
    ([(2, 3, 4, 4)], [(2, 5, 2, 2)]),
    ([(1, 3, 2, 2), (1, 2, 2, 2)], [(1, 2, 4, 4), (1, 6, 2, 2)]),
]


def built(student, teacher, **params):
    return ready(create("vid", **params), student, teacher)


def drawn(shapes, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) * 2 for shape in shapes]


def expected(method, student, teacher, raw=None):
    """-log N(t; μ, σ²) without its constant, mean over elements, summed over pairs; ``raw`` replaces α of pair 0."""
    total = 0.0
    for number, (s, t) in enumerate(zip(student, teacher, strict=True)):
        size = tuple(np.minimum(s.shape[2:], t.shape[2:]))
        s, t = pooled(s, size), pooled(t, size)
        first, second, third = (
            method.likelihoods[number].mean[i].weight.detach().numpy()[:, :, 0, 0] for i in (0, 2, 4)
        )
        hidden = np.maximum(np.einsum("oc,bchw->bohw", first, s), 0)
        hidden = np.maximum(np.einsum("oc,bchw->bohw", second, hidden), 0)
        mean = np.einsum("oc,bchw->bohw", third, hidden)
        alpha = method.likelihoods[number].raw_variance.detach().numpy() if raw is None or number else raw
        deviation = np.sqrt(np.log(1 + np.exp(alpha)) + 1e-5)[:, None, None]
        density = np.exp(-(((t - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
        total += (-np.log(density) - math.log(2 * math.pi) / 2).mean()
    return total


@pytest.mark.parametrize("initial_variance", [0.5, 5.0])
@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_vid_is_the_negative_log_density_and_its_gradient(student_shapes, teacher_shapes, initial_variance):
    student, teacher = drawn(student_shapes, 0), drawn(teacher_shapes, 1)
    method = built(student, teacher, initial_variance=initial_variance)
    (s, inputs), (t, answered) = answers(student), answers(teacher)
    terms = method(s, t, torch.zeros(1))
    assert list(terms) == ["vid"]
    assert terms["vid"].item() == pytest.approx(expected(method, student, teacher), rel=1e-9)
    terms["vid"].backward()
    first = slope(lambda values: expected(method, [values, *student[1:]], teacher), student[0])
    np.testing.assert_allclose(inputs[0].grad.numpy(), first, rtol=1e-5, atol=1e-9)
    raw = method.likelihoods[0].raw_variance
    of_raw = slope(lambda values: expected(method, student, teacher, values), raw.detach().numpy())
    np.testing.assert_allclose(raw.grad.numpy(), of_raw, rtol=1e-5, atol=1e-9)
    assert all(tensor.grad is None for tensor in answered)


def test_vid_variances_are_trained_towards_the_mean_squared_error_of_their_channel():
    student, teacher = drawn([(8, 3, 4, 4)], 0), drawn([(8, 2, 4, 4)], 1)
    teacher[0][:, 1] *= 4
    method = built(student, teacher)
    (s, _), (t, _) = answers(student), answers(teacher)
    likelihood = method.likelihoods[0]
    assert any(likelihood.raw_variance is parameter for parameter in method.parameters())  # the optimiser has it

    def gradient():
        return torch.autograd.grad(method(s, t, torch.zeros(8))["vid"], likelihood.raw_variance)[0]

    with torch.no_grad():
        error = (t.features["layer0"] - likelihood.mean(s.features["layer0"])).square().mean(dim=(0, 2, 3))
    assert torch.equal(gradient() > 0, likelihood.variance() > error)  # 5 is too large for one, too small for the other
    assert (gradient() > 0).tolist() == [True, False]
    with torch.no_grad():
        likelihood.raw_variance.copy_(torch.log(torch.expm1(error - 1e-5)))
    np.testing.assert_allclose(gradient().numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("initial_variance", [1.1e-5, 1e-3, 1, 5.0, 1e4])
def test_vid_starts_at_the_variance_that_was_asked_for(initial_variance):
    method = built(drawn([(1, 3, 2, 2)], 0), drawn([(1, 4, 2, 2)], 1), initial_variance=initial_variance)
    np.testing.assert_allclose(method.likelihoods[0].variance().detach().numpy(), initial_variance, rtol=1e-5)


@pytest.mark.parametrize("raw", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_vid_takes_extremes(value, raw):
    maps = [np.full((1, 3, 2, 2), value)]
    method = built(maps, maps).float()
    with torch.no_grad():
        method.likelihoods[0].raw_variance.fill_(raw)
    (s, inputs), (t, _) = answers(maps, torch.float32), answers(maps, torch.float32)
    term = method(s, t, torch.zeros(1))["vid"]
    term.backward()
    assert term.isfinite()
    assert all(tensor.grad.isfinite().all() for tensor in (*inputs, *method.parameters()))


@pytest.mark.parametrize("initial_variance", [0, 1e-5, -1.0, float("nan"), "wide", None])
def test_vid_refuses_an_impossible_variance(initial_variance):
    with pytest.raises(UsageError, match=r"vid: initial_variance must be a number > 1e-05 .* got"):
        create("vid", initial_variance=initial_variance)


def test_vid_weight_is_the_published_one():
    assert (dict(create("vid").default_weights), create("vid").default_label_weight) == ({"vid": 1.0}, 1.0)
