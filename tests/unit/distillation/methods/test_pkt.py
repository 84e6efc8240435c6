"""pkt against the paper's conditional probabilities in loops, with gradients by central differences."""

import numpy as np
import pytest
import torch
from numerics import evaluate_embeddings, random_pair, slope

import model_compression.distillation.methods.relation  # noqa: F401  (registers)
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

SHAPES = [(3, 3, 5), (4, 2, 4), (8, 5, 5)]  # batch, width of student and teacher


def neighbours(e, i):
    """p_{j|i} of all j but i."""
    kernel = {j: (e[i] @ e[j] / np.sqrt(e[i] @ e[i]) / np.sqrt(e[j] @ e[j]) + 1) / 2 for j in range(len(e)) if j != i}
    return {j: value / sum(kernel.values()) for j, value in kernel.items()}


def expected(student, teacher):
    total = 0
    for i in range(len(student)):
        p, q = neighbours(teacher, i), neighbours(student, i)
        total += sum(p[j] * np.log(p[j] / q[j]) for j in p)
    return total / len(student) ** 2


def as_the_authors_code(student, teacher):
    """With a sample among its own neighbours and an eps in the logarithm, as published beside the paper."""

    def similarity(e):
        unit = e / (np.sqrt((e**2).sum(axis=1, keepdims=True)) + 1e-7)
        kernel = (unit @ unit.T + 1) / 2
        return kernel / kernel.sum(axis=1, keepdims=True)

    p, q = similarity(teacher), similarity(student)
    return np.mean(p * np.log((p + 1e-7) / (q + 1e-7)))


def evaluated(student, teacher, dtype=torch.float64):
    """(value, gradient for the student's embedding)."""
    values, gradients = evaluate_embeddings(create("pkt"), student, teacher, dtype)
    return values["pkt"], gradients["pkt"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pkt_is_the_divergence_of_the_neighbours_probabilities(shape):
    student, teacher = random_pair(*shape, scale=2.0)
    value, gradient = evaluated(student, teacher)
    assert value == pytest.approx(expected(student, teacher), rel=1e-9)
    by_differences = slope(lambda e: expected(e, teacher), student)
    np.testing.assert_allclose(gradient, by_differences, rtol=1e-5, atol=1e-9)


def test_pkt_is_near_the_authors_code_at_the_batches_it_is_used_with():
    student, teacher = random_pair(64, 32, 48)
    value, _ = evaluated(student, teacher)
    published = as_the_authors_code(student, teacher)
    assert value == pytest.approx(published, rel=0.1)
    assert value > published


def test_pkt_is_zero_when_directions_match():
    student, _ = random_pair(5, 4, 4)
    for teacher in (student, 3 * student):
        value, gradient = evaluated(student, teacher)
        assert value == pytest.approx(0, abs=1e-16)
        np.testing.assert_allclose(gradient, 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-10, 1e4, 1e30])
def test_pkt_takes_extremes(scale, dtype):
    student, teacher = random_pair(5, 3, 4, scale=scale)
    value, gradient = evaluated(student, teacher, dtype)
    assert value == pytest.approx(expected(student / scale, teacher / scale), rel=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [0.0, 1.0, -1e4])
def test_pkt_takes_identical_and_dead_embeddings(fill, dtype):
    student, teacher = random_pair(5, 4, 4)
    one_dead = student.copy()
    one_dead[2] = 0
    for pair in ((np.full((5, 4), fill), teacher), (one_dead, teacher), (student, one_dead)):
        value, gradient = evaluated(*pair, dtype)
        assert value > 0
        assert np.isfinite(gradient).all()
        assert abs(gradient).max() < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", [[1.0, 0, 0], [0.1, 0.7, -0.3]])
def test_pkt_takes_opposite_embeddings(direction, dtype):
    # (cos + 1) / 2 of opposite vectors is zero, or by rounding below, where there is no logarithm.
    opposite, teacher = np.outer([1, -3, -1], direction), random_pair(3, 3, 3)[1]
    for pair in ((opposite, teacher), (teacher, opposite), (1e4 * opposite[:2], teacher[:2])):
        value, gradient = evaluated(*pair, dtype)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [[[0.0, 0]], [[1e4, -1e4]]])
def test_pkt_of_one_sample_is_an_attached_zero(student, dtype):
    value, gradient = evaluated(student, [[1.0, 2, 3]], dtype)
    assert value == 0
    assert not gradient.any()


def test_pkt_of_half_precision_equals_its_float32_value():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(32, 16, generator=generator) for _ in range(2))
    logits, targets, method = torch.zeros(32, 2), torch.zeros(32, dtype=torch.int64), create("pkt")
    exact, half = (
        method(Outputs(logits=logits, embedding=s.to(dtype)), Outputs(logits=logits, embedding=t), targets)["pkt"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=1e-2)


def test_pkt_has_the_weight_of_the_benchmark():
    method = create("pkt")
    assert (dict(method.default_weights), method.default_label_weight) == ({"pkt": 30000.0}, 1.0)
