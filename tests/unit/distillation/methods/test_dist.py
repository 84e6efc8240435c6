"""dist against NumPy's corrcoef, row by row and column by column, and where a correlation is undefined."""

import numpy as np
import pytest
import torch
from numerics import slope, softmax

from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create

TEMPERATURES = [1.0, 4.0, 10.0]


def distances(student, teacher, temperature):
    """T² (1 − correlation), (mean over samples, mean over classes); 0 for a batch of one's classes."""
    q, p = softmax(student, temperature), softmax(teacher, temperature)
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    if len(q) == 1:
        return temperature**2 * np.array([inter, 0])
    return temperature**2 * np.array(
        [inter, np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])]
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_dist_is_one_minus_the_correlation(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, _ = evaluate(create("dist", temperature=temperature), student, teacher, targets)
    assert list(values) == ["inter", "intra"]
    np.testing.assert_allclose(list(values.values()), distances(student, teacher, temperature), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", [(1, 5), (2, 3), (6, 4), (5, 20)])
def test_dist_has_the_gradient_of_the_correlations(evaluate, temperature, shape):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, *shape)) * 2
    _, gradients = evaluate(create("dist", temperature=temperature), student, teacher, [0] * shape[0])
    expected = slope(lambda x: distances(x, teacher, temperature), student)
    np.testing.assert_allclose(list(gradients.values()), expected, rtol=1e-5, atol=1e-7)


def test_dist_is_zero_when_logits_match(pair, evaluate):
    student, _, targets = pair
    values, gradients = evaluate(create("dist"), student, student, targets)
    for name in ("inter", "intra"):
        assert values[name] == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(gradients[name], 0, atol=1e-9)


def test_dist_falls_as_the_student_comes_nearer(evaluate):
    rng = np.random.default_rng(2)
    teacher, other = rng.normal(size=(2, 32, 10)) * 2
    near, _ = evaluate(create("dist"), teacher + 0.1 * other, teacher, [0] * 32)
    far, _ = evaluate(create("dist"), other, teacher, [0] * 32)
    opposite, _ = evaluate(create("dist"), -teacher, teacher, [0] * 32)
    for name in ("inter", "intra"):  # the correlation itself would rise
        assert 0 < near[name] < far[name] < opposite[name] <= 2 * 4**2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_intra_of_one_sample_is_an_attached_zero(evaluate, dtype):
    values, gradients = evaluate(create("dist"), [[1.0, 2.0, 4.0]], [[3.0, 1.0, 0.0]], [0], dtype=dtype)
    assert values["intra"] == 0
    assert not gradients["intra"].any()
    assert gradients["inter"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [[0.0, 0.0, 0.0], [1e4, -1e4, 0.0], [7.3, 7.3, 7.3]])
@pytest.mark.parametrize("teacher", [[0.0, 0.0, 0.0], [-1e4, 1e4, 0.0], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("batch", [1, 4])
def test_dist_takes_extreme_and_equal_logits(evaluate, dtype, student, teacher, batch):
    values, gradients = evaluate(create("dist"), [student] * batch, [teacher] * batch, [0] * batch, dtype=dtype)
    assert values["intra"] == 0  # no sample differs
    assert 0 <= values["inter"] <= 32
    for gradient in gradients.values():
        assert np.abs(gradient).max() < 10  # of a student that starts at 0 the plain formula has 1e8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", range(3, 120, 9))
def test_dist_does_not_correlate_the_rounding_of_equal_probabilities(evaluate, dtype, classes):
    teacher = np.random.default_rng(0).normal(size=(4, classes))
    values, gradients = evaluate(create("dist"), np.zeros((4, classes)), teacher, [0] * 4, dtype=dtype)
    assert values == {"inter": 0, "intra": 0}
    for gradient in gradients.values():
        assert not gradient.any()


def test_dist_counts_a_class_of_tiny_probability_like_any_other(evaluate):
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 16, 4))
    student[:, 0] -= 12
    teacher[:, 0] -= 12
    values, _ = evaluate(create("dist", temperature=1.0), student, teacher, [0] * 16)
    assert values["intra"] == pytest.approx(distances(student, teacher, 1.0)[1], rel=1e-9)


def test_dist_weights_are_beta_and_gamma():
    assert create("dist").default_weights == {"inter": 2.0, "intra": 2.0}
    assert create("dist", beta=1, gamma=3).default_weights == {"inter": 1, "intra": 3}
    assert create("dist").default_label_weight == 1.0


@pytest.mark.parametrize(("name", "value"), [("beta", -1), ("gamma", float("inf")), ("temperature", 0)])
def test_dist_refuses_impossible_parameters(name, value):
    with pytest.raises(UsageError, match=rf"dist: {name} must be a number .*published.* got"):
        create("dist", **{name: value})
