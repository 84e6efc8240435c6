"""The teacher as a bound, and kd of sigmoids, against formulas in float64."""

import numpy as np
import pytest
import torch

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create
from model_compression.distillation.methods.logit.bound import bounded_error
from model_compression.distillation.methods.logit.kd import softened_bernoulli_kl


def formula(s, t, y, margin):
    total = 0.0
    for own, taught, target in zip(s, t, y, strict=True):
        error, bound = sum((own - target) ** 2), sum((taught - target) ** 2)
        total += error if error + margin > bound else 0.0
    return total / len(s)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (9, 4)])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_bound_is_the_papers_formula_with_its_gradient(shape, margin):
    rng = np.random.default_rng(1)
    s, t, y = (rng.normal(size=shape) for _ in range(3))
    student = torch.from_numpy(s).requires_grad_()
    found = bounded_error(student, torch.from_numpy(t), torch.from_numpy(y), margin)
    assert found.item() == pytest.approx(formula(s, t, y, margin), rel=1e-12, abs=1e-12)
    found.backward()
    counted = ((s - y) ** 2).sum(1, keepdims=True) + margin > ((t - y) ** 2).sum(1, keepdims=True)
    assert np.allclose(student.grad.numpy(), np.where(counted, 2 * (s - y), 0) / len(s))


def test_student_that_is_better_than_the_teacher_by_the_margin_is_left_alone():
    y = torch.zeros(2, 1)
    method = create("bound", margin=0.5)
    method.kind = "real"
    teacher = Outputs(logits=torch.ones(2, 1))
    assert method(Outputs(logits=torch.full((2, 1), 0.7)), teacher, y)["bound"].item() == 0.0
    assert method(Outputs(logits=torch.full((2, 1), 0.8)), teacher, y)["bound"].item() == pytest.approx(0.64)
    with pytest.raises(UsageError, match="bound: margin must be a number of at least 0"):
        create("bound", margin=-1)
    with pytest.raises(UsageError, match=r"bound needs targets \(2, 1\)"):
        method(teacher, teacher, torch.zeros(2))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_kd_of_sigmoids_is_the_mean_divergence_of_yes_or_no_answers(temperature, scale):
    rng = np.random.default_rng(2)
    s, t = (scale * rng.normal(size=(6, 5)) for _ in range(2))
    found = softened_bernoulli_kl(torch.from_numpy(s), torch.from_numpy(t), temperature).item()
    total = 0.0
    for own, taught in zip((s / temperature).ravel(), (t / temperature).ravel(), strict=True):
        for sign in (1, -1):  # log σ(z) = −log(1 + e^−z)
            log_q, log_p = (-np.logaddexp(0, -sign * z) for z in (own, taught))
            total += np.exp(log_p) * (log_p - log_q)
    assert found == pytest.approx(temperature**2 * total / s.size, rel=1e-10)
    assert softened_bernoulli_kl(torch.from_numpy(t), torch.from_numpy(t), temperature).item() == pytest.approx(
        0, abs=1e-12
    )


def test_kd_compares_sigmoids_where_the_task_has_several_classes_a_sample():
    s, t = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 3)
    method = create("kd", temperature=2.0)
    method.kind = "bernoulli"
    found = method(Outputs(logits=s), Outputs(logits=t), torch.zeros(4, 3))["kd"]
    assert torch.equal(found, softened_bernoulli_kl(s, t, 2.0))
    assert "bernoulli" not in create("kd", variant="historic").answers
