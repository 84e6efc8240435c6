"""cc against the kernel's series in loops, with gradients by central differences, and against the kernel itself."""

import math

import numpy as np
import pytest
import torch
from numerics import evaluate_embeddings, random_pair, slope

import model_compression.distillation.methods.relation  # noqa: F401  (registers)
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create
from model_compression.distillation.methods.relation.cc import correlations

SHAPES = [(2, 3, 5), (4, 2, 4), (6, 5, 5)]  # batch, width of student and teacher


def expected(student, teacher, gamma=0.4, order=2):
    def series(x, y):
        cosine = x @ y / np.sqrt(x @ x) / np.sqrt(y @ y)
        terms = ((2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1))
        return math.exp(-2 * gamma) * sum(terms)

    batch = range(len(student))
    squares = [(series(student[i], student[j]) - series(teacher[i], teacher[j])) ** 2 for i in batch for j in batch]
    return sum(squares) / len(squares)


def evaluated(student, teacher, dtype=torch.float64, **options):
    """(value, gradient for the student's embedding)."""
    values, gradients = evaluate_embeddings(create("cc", **options), student, teacher, dtype)
    return values["cc"], gradients["cc"]


@pytest.mark.parametrize("options", [{}, {"gamma": 1.5}, {"order": 1}, {"gamma": 0.1, "order": 5}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cc_is_the_squared_difference_of_correlations(shape, options):
    student, teacher = random_pair(*shape, scale=2.0)
    value, gradient = evaluated(student, teacher, **options)
    assert value == pytest.approx(expected(student, teacher, **options), rel=1e-9)
    by_differences = slope(lambda e: expected(e, teacher, **options), student)
    np.testing.assert_allclose(gradient, by_differences, rtol=1e-5, atol=1e-10)


def test_cc_nears_the_gaussian_kernel_as_the_order_grows():
    embedding, _ = random_pair(6, 4, 4)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    kernel = np.exp(-0.7 * ((unit[:, None] - unit[None]) ** 2).sum(axis=2))
    np.testing.assert_allclose(correlations(torch.tensor(embedding), 0.7, 20).numpy(), kernel, rtol=1e-12)


def test_cc_is_zero_when_directions_match():
    student, _ = random_pair(5, 4, 4)
    for teacher in (student, 3 * student):
        value, gradient = evaluated(student, teacher)
        assert value == pytest.approx(0, abs=1e-28)
        np.testing.assert_allclose(gradient, 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-10, 1e4, 1e30])
def test_cc_takes_extremes(scale, dtype):
    student, teacher = random_pair(5, 3, 4, scale=scale)
    value, gradient = evaluated(student, teacher, dtype)
    assert value == pytest.approx(expected(student / scale, teacher / scale), rel=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [0.0, 1.0, -1e4])
def test_cc_takes_identical_and_dead_embeddings(fill, dtype):
    student, teacher = random_pair(5, 4, 4)
    one_dead = student.copy()
    one_dead[2] = 0
    for pair in ((np.full((5, 4), fill), teacher), (one_dead, teacher), (student, one_dead)):
        value, gradient = evaluated(*pair, dtype)
        assert value > 0
        assert np.isfinite(gradient).all()
        assert abs(gradient).max() < 10


@pytest.mark.parametrize("student", [[[0.0, 0]], [[1e4, -1e4]], [[0.1, 0.7]]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cc_of_one_sample_is_an_attached_zero(student, dtype):
    value, gradient = evaluated(student, [[1.0, 2, 3]], dtype)
    assert value == 0
    assert not gradient.any()


def test_cc_of_half_precision_equals_its_float32_value():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(32, 16, generator=generator) for _ in range(2))
    logits, targets, method = torch.zeros(32, 2), torch.zeros(32, dtype=torch.int64), create("cc")
    exact, half = (
        method(Outputs(logits=logits, embedding=s.to(dtype)), Outputs(logits=logits, embedding=t), targets)["cc"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=1e-2)


@pytest.mark.parametrize("gamma", [0, -0.4, 11, float("nan"), float("inf"), "x", None, True])
def test_cc_refuses_an_impossible_gamma(gamma):
    with pytest.raises(UsageError, match=r"cc: gamma must be a number above 0, up to 10 \(published: 0.4\), got"):
        create("cc", gamma=gamma)


@pytest.mark.parametrize("order", [0, -1, 21, 2.0, 1.5, float("nan"), "2", None, True])
def test_cc_refuses_an_impossible_order(order):
    with pytest.raises(UsageError, match=r"cc: order must be a whole number from 1 to 20 \(published: 1 to 3\), got"):
        create("cc", order=order)


def test_cc_states_its_weights():
    method = create("cc")
    assert (dict(method.default_weights), method.default_label_weight) == ({"cc": 100.0}, 1.0)
    assert (method.gamma, method.order) == (0.4, 2)
