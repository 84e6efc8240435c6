"""tf_kd against the divergence from the virtual teacher, summed class by class in float64."""

import numpy as np
import pytest
import torch

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create


def softened(probabilities, temperature):
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum()


def softmax(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def expected(student, targets, correct, temperature):
    """Value, and gradient (p(s; T) − p_d(T)) / T / B."""
    classes, total, gradient = student.shape[1], 0.0, np.zeros_like(student)
    for row, label in enumerate(targets):
        virtual = np.full(classes, (1 - correct) / (classes - 1))
        virtual[label] = correct
        target, answer = softened(virtual, temperature), softmax(student[row] / temperature)
        total += sum(p * (np.log(p) - np.log(q)) for p, q in zip(target, answer, strict=True))
        gradient[row] = (answer - target) / temperature / len(student)
    return total / len(student), gradient


@pytest.mark.parametrize(("correct", "temperature"), [(0.99, 20.0), (0.9, 1.0), (0.6, 3.0)])
def test_tf_kd_is_the_divergence_from_the_virtual_teacher(pair, evaluate, correct, temperature):
    student, teacher, targets = pair
    values, gradients = evaluate_alone(create("tf_kd", correct=correct, temperature=temperature), student, targets)
    value, gradient = expected(student, targets, correct, temperature)
    assert values == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(gradients, gradient, rtol=1e-7, atol=1e-12)
    beside, _ = evaluate(create("tf_kd", correct=correct, temperature=temperature), student, teacher, targets)
    assert beside == {"tf_kd": values}  # a teacher changes nothing


def evaluate_alone(method, student, targets, dtype=torch.float64):
    """Value and gradient without any teacher."""
    logits = torch.tensor(student, dtype=dtype, requires_grad=True)
    (term,) = method(Outputs(logits=logits), None, torch.tensor(targets)).values()
    term.backward()
    return term.item(), logits.grad.double().numpy()


def test_tf_kd_is_zero_for_a_student_that_answers_as_the_virtual_teacher():
    probabilities = np.full((2, 4), 0.1 / 3)
    probabilities[0, 1] = probabilities[1, 3] = 0.9
    value, gradient = evaluate_alone(create("tf_kd", correct=0.9), np.log(probabilities) + 5, [1, 3])
    assert value == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_tf_kd_takes_extremes(size, dtype):
    value, gradient = evaluate_alone(create("tf_kd"), np.array([[size, 0.0, -size]]), [0], dtype)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_tf_kd_needs_no_teacher_and_weighs_as_the_paper():
    method = create("tf_kd")
    assert not method.needs_teacher
    assert (dict(method.default_weights), method.default_label_weight) == ({"tf_kd": 0.1}, 0.9)
    assert (method.correct, method.temperature) == (0.99, 20.0)
    assert create("kd,tf_kd").needs_teacher


@pytest.mark.parametrize(
    ("params", "classes", "message"),
    [
        ({"correct": 1.0}, 3, "tf_kd: correct must be a probability below 1"),
        ({"correct": "x"}, 3, "tf_kd: correct must be a probability below 1"),
        ({"temperature": 0}, 3, "tf_kd: temperature must be a number from 0.01 to 1000"),
        ({"correct": 0.2}, 3, "tf_kd: correct must be above 1/3, the uniform answer, got 0.2"),
        ({}, 1, "there must be at least 2 classes, got 1"),
    ],
)
def test_tf_kd_refuses_what_is_no_teacher(params, classes, message):
    with pytest.raises(UsageError, match=message):
        evaluate_alone(create("tf_kd", **params), np.zeros((2, classes)), [0, 0])
