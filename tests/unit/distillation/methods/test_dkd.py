"""dkd against probabilities split class by class, its link to kd, and logits that a mask of 1000 cannot hide."""

import numpy as np
import pytest
import torch
from numerics import slope, softmax

from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create

TEMPERATURES = [0.7, 1.0, 4.0]


def split(student, teacher, targets, temperature):
    """TCKD and NCKD without T², per sample, from the probabilities."""
    rows = []
    for s, t, y in zip(student, teacher, targets, strict=True):
        q, p = softmax(s / temperature), softmax(t / temperature)
        others = [k for k in range(len(s)) if k != y]
        tckd = p[y] * np.log(p[y] / q[y]) + p[others].sum() * np.log(p[others].sum() / q[others].sum())
        p_hat, q_hat = p[others] / p[others].sum(), q[others] / q[others].sum()
        rows.append((tckd, (p_hat * np.log(p_hat / q_hat)).sum()))
    return np.array(rows).T


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_dkd_is_the_divergence_in_two_parts(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, _ = evaluate(create("dkd", temperature=temperature), student, teacher, targets)
    tckd, nckd = temperature**2 * split(student, teacher, targets, temperature).mean(axis=1)
    assert values == {
        "tckd": pytest.approx(tckd, rel=1e-8, abs=1e-11),
        "nckd": pytest.approx(nckd, rel=1e-8, abs=1e-11),
    }


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", [(1, 2), (3, 7), (4, 10)])
def test_dkd_has_the_gradient_of_its_parts(evaluate, temperature, shape):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, *shape)) * 3
    targets = rng.integers(0, shape[1], shape[0])
    _, gradients = evaluate(create("dkd", temperature=temperature), student, teacher, targets)
    for part, name in enumerate(["tckd", "nckd"]):
        expected = slope(
            lambda x, part=part: temperature**2 * split(x, teacher, targets, temperature)[part].mean(), student
        )
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kd_is_tckd_and_nckd_times_the_teachers_doubt(evaluate, temperature):
    rng = np.random.default_rng(1)
    for _ in range(5):
        student, teacher = rng.normal(size=(2, 1, 10)) * 3
        values, _ = evaluate(create("dkd", temperature=temperature), student, teacher, [4])
        kd, _ = evaluate(create("kd", temperature=temperature), student, teacher, [4])
        doubt = 1 - softmax(teacher / temperature)[0, 4]
        assert kd["kd"] == pytest.approx(values["tckd"] + doubt * values["nckd"], rel=1e-9)


def test_dkd_is_zero_when_logits_match(pair, evaluate):
    student, _, targets = pair
    values, gradients = evaluate(create("dkd"), student, student, targets)
    assert values == {"tckd": 0, "nckd": 0}
    for gradient in gradients.values():
        np.testing.assert_allclose(gradient, 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_dkd_takes_extreme_logits(evaluate, dtype, target):
    student, teacher = [[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]]
    values, gradients = evaluate(create("dkd", temperature=1.0), student, teacher, [target], dtype=dtype)
    # p is 1 for class 1; q is 1 for class 0
    tckd = {0: 1e4, 1: 2e4, 2: 0}[target]  # of "others" with q = e^−1e4, of class 1 with e^−2e4, of equal doubts
    nckd = {0: 1e4, 1: 1e4, 2: 2e4}[target]
    assert values == {"tckd": pytest.approx(tckd, rel=1e-6), "nckd": pytest.approx(nckd, rel=1e-6)}
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_nckd_does_not_see_a_true_class_that_dwarfs_the_others(evaluate):
    values, gradients = evaluate(create("dkd"), [[5000.0, 1.0, 0.0]], [[9000.0, 0.0, 2.0]], [0])
    same, _ = evaluate(create("dkd"), [[0.0, 1.0, 0.0]], [[0.0, 0.0, 2.0]], [0])
    assert values["nckd"] == pytest.approx(same["nckd"], rel=1e-12)
    assert same["nckd"] > 0.1
    assert gradients["nckd"][0, 0] == 0


def test_dkd_weights_are_alpha_and_beta():
    assert create("dkd").default_weights == {"tckd": 1.0, "nckd": 8.0}
    assert create("dkd", alpha=0.5, beta=2).default_weights == {"tckd": 0.5, "nckd": 2}
    assert create("dkd").default_label_weight == 1.0


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", -1), ("beta", float("nan")), ("temperature", 0), ("temperature", "hot")]
)
def test_dkd_refuses_impossible_parameters(name, value):
    with pytest.raises(UsageError, match=rf"dkd: {name} must be a number .*published.* got"):
        create("dkd", **{name: value})
