"""ctkd against kd at its temperature, and the reversed gradient of that temperature by central differences."""

import math

import numpy as np
import pytest
import torch
from numerics import softmax

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import Context, create


def at(epoch):
    return Context(ids=torch.arange(1), epoch=epoch, step=0, seed=0)


def built(theta=1.0, **options):
    method = create("ctkd", **options).double()
    with torch.no_grad():
        method.theta.fill_(theta)
    return method


def kd(student, teacher, theta, lowest=1.0, highest=21.0):
    """T² · KL at T = lowest + (highest − lowest) / (1 + e^−θ), and T."""
    temperature = lowest + (highest - lowest) / (1 + math.exp(-theta))
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * (p * np.log(p / q)).sum() / len(student), temperature


@pytest.mark.parametrize("theta", [-3.0, 0.0, 1.0])
@pytest.mark.parametrize("bounds", [(1.0, 21.0), (0.5, 4.0)])
def test_ctkd_is_kd_at_the_learned_temperature(pair, evaluate, theta, bounds):
    student, teacher, targets = pair
    method = built(theta, lowest=bounds[0], highest=bounds[1])
    values, gradients = evaluate(method, student, teacher, targets, at(3))
    expected, temperature = kd(student, teacher, theta, *bounds)
    assert values == {"ctkd": pytest.approx(expected, rel=1e-9, abs=1e-13)}
    slope = temperature * (softmax(student, temperature) - softmax(teacher, temperature)) / len(student)
    np.testing.assert_allclose(gradients["ctkd"], slope, rtol=1e-8, atol=1e-13)  # not reversed


@pytest.mark.parametrize(("epoch", "strength"), [(0, 0.024472), (4, 0.5), (9, 1.0), (200, 1.0)])
@pytest.mark.parametrize("theta", [-2.0, 1.0])
def test_temperature_climbs_the_loss_by_the_cosine_ramp(pair, epoch, strength, theta):
    student, teacher, targets = pair
    method = built(theta)
    logits = [Outputs(logits=torch.tensor(x)) for x in (student, teacher)]
    method(*logits, torch.tensor(targets), at(epoch))["ctkd"].backward()
    slope = (kd(student, teacher, theta + 1e-5)[0] - kd(student, teacher, theta - 1e-5)[0]) / 2e-5
    assert method.strength(epoch) == pytest.approx(strength, abs=1e-6)
    assert method.theta.grad.item() == pytest.approx(-strength * slope, rel=1e-4, abs=1e-9)


def test_temperature_starts_at_the_papers_and_stays_in_its_bounds():
    assert create("ctkd").temperature.item() == pytest.approx(1 + 20 / (1 + math.exp(-1)), rel=1e-6)
    assert built(-1e4).temperature.item() == 1
    assert built(1e4).temperature.item() == 21


def test_temperature_that_descends_its_gradient_raises_the_loss():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 8, 10)) * 4
    method = built(0.0)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    logits = [Outputs(logits=torch.tensor(x)) for x in (student, teacher)]
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = method(*logits, torch.zeros(8, dtype=torch.int64), at(20))["ctkd"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]


def test_ctkd_is_zero_when_logits_match(pair, evaluate):
    student, _, targets = pair
    values, gradients = evaluate(built(), student, student, targets, at(5))
    assert values["ctkd"] == 0
    np.testing.assert_allclose(gradients["ctkd"], 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ctkd_takes_extreme_logits(dtype):
    method = create("ctkd")
    student = torch.tensor([[1e4, -1e4, 0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0]], dtype=dtype)
    loss = method(Outputs(logits=student), Outputs(logits=teacher), torch.tensor([0]), at(9))["ctkd"]
    loss.backward()
    assert loss.item() == pytest.approx(2e4 * method.temperature.item(), rel=1e-5)
    assert student.grad.isfinite().all()
    assert method.theta.grad.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, "lowest must be a number > 0"),
        ({"lowest": 4, "highest": 4}, "highest must be a number > lowest"),
        ({"ramp_epochs": 0}, "ramp_epochs must be a number of at least 1"),
    ],
)
def test_ctkd_refuses_impossible_parameters(options, message):
    with pytest.raises(UsageError, match=rf"ctkd: {message} \(published: .*\), got"):
        create("ctkd", **options)
