"""nkd against probabilities taken class by class, and its two terms at extremes."""

import numpy as np
import pytest
import torch
from numerics import softmax

from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create

TEMPERATURES = [0.7, 1.0, 3.0]


def terms(student, teacher, targets, temperature):
    """(target, non_target), means over the batch, and their gradients for the student's logits."""
    values, gradients = np.zeros(2), np.zeros((2, *student.shape))
    for row, (s, t, y) in enumerate(zip(student, teacher, targets, strict=True)):
        p, q = softmax(t), softmax(s)
        values[0] -= p[y] * np.log(q[y])
        gradients[0, row] = p[y] * (q - np.eye(len(s))[y])
        others = [k for k in range(len(s)) if k != y]
        p, q = softmax(t[others] / temperature), softmax(s[others] / temperature)
        values[1] -= temperature**2 * (p * np.log(q)).sum()
        gradients[1, row, others] = temperature * (q - p)
    return values / len(student), gradients / len(student)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_nkd_is_the_true_class_and_the_normalised_others(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, gradients = evaluate(create("nkd", temperature=temperature), student, teacher, targets)
    expected, slopes = terms(student, teacher, targets, temperature)
    assert list(values) == ["target", "non_target"]
    for name, value, slope in zip(values, expected, slopes, strict=True):
        assert values[name] == pytest.approx(value, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(gradients[name], slope, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_non_target_is_at_rest_when_logits_match(pair, evaluate, temperature):
    student, _, targets = pair
    _, gradients = evaluate(create("nkd", temperature=temperature), student, student, targets)
    np.testing.assert_allclose(gradients["non_target"], 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_nkd_takes_extreme_logits(evaluate, dtype, target):
    values, gradients = evaluate(
        create("nkd"), [[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]], [target], dtype=dtype
    )  # log(softmax) would be −∞ for two classes, and 0 · −∞ NaN
    assert values["target"] == pytest.approx({0: 0, 1: 2e4, 2: 0}[target], rel=1e-6)
    assert values["non_target"] == pytest.approx({0: 1e4, 1: 1e4, 2: 2e4}[target], rel=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_target_has_no_temperature(evaluate):
    student, teacher = [[1.0, 2.0, -1.0]], [[0.5, 1.0, 3.0]]
    cold, _ = evaluate(create("nkd", temperature=1), student, teacher, [1])
    hot, _ = evaluate(create("nkd", temperature=9), student, teacher, [1])
    assert hot["target"] == cold["target"]
    assert hot["non_target"] != pytest.approx(cold["non_target"])


def test_nkd_weights_are_one_and_gamma():
    assert create("nkd").default_weights == {"target": 1.0, "non_target": 1.5}
    assert create("nkd", gamma=3).default_weights == {"target": 1.0, "non_target": 3}
    assert create("nkd").default_label_weight == 1.0


@pytest.mark.parametrize(("name", "value"), [("gamma", -1), ("temperature", 0), ("temperature", None)])
def test_nkd_refuses_impossible_parameters(name, value):
    with pytest.raises(UsageError, match=rf"nkd: {name} must be a number .*published.* got"):
        create("nkd", **{name: value})
