"""wsld against weights and divergences taken sample by sample, and its weights where a cross-entropy is zero."""

import math

import numpy as np
import pytest
import torch
from numerics import softmax

from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create

TEMPERATURES = [1.0, 2.0, 4.0]


def weighted(student, teacher, targets, temperature):
    """Value, gradient and the samples' weights."""
    value, gradient, weights = 0.0, np.zeros_like(student), []
    for row, (s, t, y) in enumerate(zip(student, teacher, targets, strict=True)):
        weight = 1 - math.exp(math.log(softmax(s)[y]) / (1e-7 - math.log(softmax(t)[y])))
        p, q = softmax(t / temperature), softmax(s / temperature)
        value += weight * temperature**2 * (p * np.log(p / q)).sum() / len(student)
        gradient[row] = weight * temperature * (q - p) / len(student)  # none through the weight
        weights.append(weight)
    return value, gradient, weights


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_wsld_is_kd_with_a_weight_per_sample(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, gradients = evaluate(create("wsld", temperature=temperature), student, teacher, targets)
    value, gradient, weights = weighted(student, teacher, targets, temperature)
    assert values == {"wsld": pytest.approx(value, rel=1e-8, abs=1e-13)}
    np.testing.assert_allclose(gradients["wsld"], gradient, rtol=1e-7, atol=1e-12)
    assert len(student) < 3 or np.ptp(weights) > 0.1


def test_wsld_is_zero_when_logits_match(pair, evaluate):
    student, _, targets = pair
    values, gradients = evaluate(create("wsld"), student, student, targets)
    assert values["wsld"] == 0
    np.testing.assert_allclose(gradients["wsld"], 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("target", "weight"),
    [(0, 0.0), (1, 1.0), (2, 1 - math.exp(-1))],  # student right and teacher wrong; the reverse; both as wrong
)
def test_wsld_takes_extreme_logits(evaluate, dtype, target, weight):
    values, gradients = evaluate(create("wsld"), [[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]], [target], dtype=dtype)
    assert values["wsld"] == pytest.approx(weight * 2**2 * 2e4 / 2, rel=1e-5)
    np.testing.assert_allclose(gradients["wsld"], [[2 * weight, -2 * weight, 0]], rtol=1e-5, atol=1e-9)


def test_wsld_is_finite_where_both_are_certain_of_the_label(evaluate):
    values, gradients = evaluate(create("wsld"), [[1e4, 0.0]], [[1e4, -1e4]], [0], dtype=torch.float32)
    assert values["wsld"] == 0
    assert np.isfinite(gradients["wsld"]).all()


def test_wsld_has_the_authors_weights():
    assert (create("wsld").default_weights, create("wsld").default_label_weight) == ({"wsld": 2.5}, 1.0)


@pytest.mark.parametrize("temperature", [0, -1, "hot", float("nan")])
def test_wsld_refuses_an_impossible_temperature(temperature):
    with pytest.raises(UsageError, match=r"temperature must be a number from 0.01 to 1000 \(published: 2 to 4\), got"):
        create("wsld", temperature=temperature)
