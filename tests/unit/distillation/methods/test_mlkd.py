"""mlkd against sums over pairs of samples and of classes, written as loops."""

import numpy as np
import pytest
import torch
from numerics import slope, softmax

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create


def levels(student, teacher, temperatures):
    """(instance, batch, class), pair by pair."""
    total = np.zeros(3)
    batch, classes = student.shape
    for temperature in temperatures:
        q, p = softmax(student, temperature), softmax(teacher, temperature)
        total[0] += temperature**2 * (p * np.log(p / q)).sum() / batch
        if batch > 1:
            for i in range(batch):
                for j in range(batch):
                    total[1] += ((q[i] * q[j]).sum() - (p[i] * p[j]).sum()) ** 2 / batch
        for k in range(classes):
            for m in range(classes):
                total[2] += ((q[:, k] * q[:, m]).sum() - (p[:, k] * p[:, m]).sum()) ** 2 / classes
    return total


def test_mlkd_is_the_sum_over_temperatures_of_three_levels(pair, evaluate):
    student, teacher, targets = pair
    values, _ = evaluate(create("mlkd"), student, teacher, targets)
    assert list(values) == ["instance", "batch", "class"]
    expected = levels(student, teacher, [2, 3, 4, 5, 6])
    np.testing.assert_allclose(list(values.values()), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperatures", [[1.0], (0.5, 4)])
@pytest.mark.parametrize("shape", [(1, 4), (2, 2), (5, 3)])
def test_mlkd_has_the_gradient_of_its_levels(evaluate, temperatures, shape):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, *shape)) * 2
    values, gradients = evaluate(create("mlkd", temperatures=temperatures), student, teacher, [0] * shape[0])
    np.testing.assert_allclose(list(values.values()), levels(student, teacher, temperatures), rtol=1e-9, atol=1e-12)
    expected = slope(lambda x: levels(x, teacher, temperatures), student)
    np.testing.assert_allclose(list(gradients.values()), expected, rtol=1e-5, atol=1e-8)


def test_mlkd_is_zero_when_logits_match(pair, evaluate):
    student, _, targets = pair
    values, gradients = evaluate(create("mlkd"), student, student, targets)
    assert values == {"instance": 0, "batch": 0, "class": 0}
    for gradient in gradients.values():
        np.testing.assert_allclose(gradient, 0, atol=1e-13)


def test_instance_level_is_kd_of_the_whole_batch_at_each_temperature(pair, evaluate):
    student, teacher, targets = pair
    values, _ = evaluate(create("mlkd", temperatures=[2, 5]), student, teacher, targets)
    kd = [evaluate(create("kd", temperature=t), student, teacher, targets)[0]["kd"] for t in (2, 5)]
    assert values["instance"] == pytest.approx(sum(kd), rel=1e-12)  # a mask of half of the samples would halve it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3])
def test_mlkd_takes_extreme_logits(evaluate, dtype, batch):
    values, gradients = evaluate(
        create("mlkd", temperatures=[2.0]), [[1e4, -1e4, 0]] * batch, [[-1e4, 1e4, 0]] * batch, [0] * batch, dtype=dtype
    )
    assert values["instance"] == pytest.approx(2**2 * 2e4 / 2, rel=1e-6)
    assert values["batch"] == 0  # all samples are alike, for both
    assert values["class"] == pytest.approx(2 * batch**2 / 3, rel=1e-6)  # 1 and −1 for two pairs, of B samples
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_mlkd_computes_its_products_in_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 32, 10, generator=generator)
    exact = create("mlkd")(Outputs(logits=student), Outputs(logits=teacher), torch.zeros(32, dtype=torch.int64))
    with torch.autocast("cpu", torch.bfloat16):
        half = create("mlkd")(Outputs(logits=student), Outputs(logits=teacher), torch.zeros(32, dtype=torch.int64))
    assert {name: term.item() for name, term in half.items()} == {
        name: pytest.approx(term.item(), rel=1e-5) for name, term in exact.items()
    }


@pytest.mark.parametrize("temperatures", [[], 4.0, "4", [4, 0], [2, "hot"], None])
def test_mlkd_refuses_impossible_temperatures(temperatures):
    with pytest.raises(
        UsageError, match=r"temperatures must be .*numbers? from 0.01 to 1000 \(published: 2 to 6\), got"
    ):
        create("mlkd", temperatures=temperatures)
