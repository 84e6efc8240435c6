"""kd against Hinton's formula with exponentials written out, its known gradient, and the script of 2016."""

import numpy as np
import pytest
import torch
from numerics import softmax

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.distillation.methods import create
from model_compression.distillation.methods.logit.kd import softened_kl

TEMPERATURES = [0.3, 1.0, 4.0, 20.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kd_is_the_squared_temperature_times_the_divergence(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, gradients = evaluate(create("kd", temperature=temperature), student, teacher, targets)
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum() / len(student)
    assert list(values) == ["kd"]
    assert values["kd"] == pytest.approx(expected, rel=1e-9, abs=1e-14)
    np.testing.assert_allclose(gradients["kd"], temperature * (q - p) / len(student), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_historic_kd_is_a_scaled_regression_and_a_sigmoid_label_term(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, gradients = evaluate(create("kd", temperature=temperature, variant="historic"), student, teacher, targets)
    assert list(values) == ["kd", "sigmoid_labels"]
    batch = len(student)
    assert values["kd"] == pytest.approx((((student - teacher) / temperature) ** 2).sum() / 2 / batch, rel=1e-12)
    np.testing.assert_allclose(gradients["kd"], (student - teacher) / temperature**2 / batch, rtol=1e-9)
    scaled, labels = student / temperature, np.eye(student.shape[1])[targets]
    # TensorFlow's own statement of sigmoid_cross_entropy_with_logits
    cross_entropy = np.maximum(scaled, 0) - scaled * labels + np.log1p(np.exp(-np.abs(scaled)))
    assert values["sigmoid_labels"] == pytest.approx(cross_entropy.sum() / batch, rel=1e-9)
    expected = (1 / (1 + np.exp(-scaled)) - labels) / temperature / batch
    np.testing.assert_allclose(gradients["sigmoid_labels"], expected, rtol=1e-7, atol=1e-14)


def test_kd_weights_are_the_papers_and_those_of_2016():
    paper, historic = create("kd"), create("kd", variant="historic")
    assert (dict(paper.default_weights), paper.default_label_weight) == ({"kd": 0.9}, 0.1)
    assert (historic.default_weights, historic.default_label_weight) == ({"kd": 0.7, "sigmoid_labels": 0.3}, 0.0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kd_is_zero_when_logits_match(pair, evaluate, temperature):
    student, _, targets = pair
    values, gradients = evaluate(create("kd", temperature=temperature), student, student, targets)
    assert values["kd"] == 0
    np.testing.assert_allclose(gradients["kd"], 0, atol=1e-15)


def test_kd_ignores_a_constant_that_is_added_to_all_logits(pair, evaluate):
    student, teacher, targets = pair
    plain, _ = evaluate(create("kd"), student, teacher, targets)
    moved, _ = evaluate(create("kd"), student + 100, teacher - 7, targets)
    assert moved["kd"] == pytest.approx(plain["kd"], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kd_takes_extreme_logits(evaluate, temperature, dtype):
    values, gradients = evaluate(
        create("kd", temperature=temperature), [[1e4, -1e4, 0]], [[-1e4, 1e4, 0]], [0], dtype=dtype
    )
    assert values["kd"] == pytest.approx(temperature**2 * 2e4 / temperature, rel=1e-6)  # log p − log q of one class
    np.testing.assert_allclose(gradients["kd"], [[temperature, -temperature, 0]], rtol=1e-6, atol=1e-9)


def test_kd_gradient_nears_centred_regression_as_the_temperature_grows(evaluate):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 4, 10))
    _, gradients = evaluate(create("kd", temperature=1e3), student, teacher, [0] * 4)
    difference = student - teacher
    centred = (difference - difference.mean(axis=1, keepdims=True)) / 10 / 4  # section 2.1 of the paper, equation 4
    np.testing.assert_allclose(gradients["kd"], centred, rtol=1e-2, atol=1e-5)


def test_kd_trained_under_autocast_equals_its_float32_value():
    generator = torch.Generator().manual_seed(1)
    layer, images = torch.randn(20, 10, generator=generator), torch.randn(64, 20, generator=generator)
    teacher = torch.randn(64, 10, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        student = images @ layer
        half = softened_kl(student.float(), teacher, 4.0)
    assert student.dtype == torch.bfloat16
    assert half.item() == pytest.approx(softened_kl(images @ layer, teacher, 4.0).item(), rel=1e-2)


@pytest.mark.parametrize("temperature", [0, -3.0, 10**400, float("nan"), float("inf"), "hot", None, True])
def test_kd_refuses_an_impossible_temperature(temperature):
    with pytest.raises(UsageError, match=r"kd: temperature must be a number from 0.01 to 1000 .* got"):
        create("kd", temperature=temperature)


def test_kd_refuses_unknown_variants_and_parameters():
    with pytest.raises(UsageError, match="kd: variant must be 'paper' or 'historic', got 'new'"):
        create("kd", variant="new")
    with pytest.raises(
        UnknownNameError, match="unknown option of method 'kd': 'temprature'; did you mean 'temperature'"
    ):
        create("kd", temprature=2.0)
    with pytest.raises(UnknownNameError, match="option of method 'logits': 'name'; known: none"):
        create("logits", name="x")
    with pytest.raises(UnknownNameError, match="unknown method 'kdd'; did you mean 'kd'"):
        create("kdd")
