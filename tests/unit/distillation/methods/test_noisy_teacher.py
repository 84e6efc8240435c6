"""The noisy teacher: regression on (1 + ξ) t, and the statistics and reproducibility of ξ."""

import numpy as np
import pytest
import torch

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

MANY = 200_000


@pytest.mark.parametrize("variant", ["paper", "historic"])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.5, 0.1), (1.0, 0.9), (0.0, 0.5)])
def test_noisy_teacher_is_regression_on_the_disturbed_logits(pair, evaluate, context, variant, alpha, sigma):
    student, teacher, targets = pair
    method = create("noisy_teacher", alpha=alpha, sigma=sigma, variant=variant)
    where = context(range(100, 100 + len(student)))
    values, gradients = evaluate(method, student, teacher, targets, where)
    noise = method.noise(where).numpy()
    disturbed = np.stack([(x if variant == "historic" else 1 + x) * t for x, t in zip(noise, teacher, strict=True)])
    expected = 0.5 * ((student - disturbed) ** 2).sum(axis=1).mean()
    assert values == {"logits": pytest.approx(expected, rel=1e-12)}
    np.testing.assert_allclose(gradients["logits"], (student - disturbed) / len(student), rtol=1e-12, atol=1e-15)


def test_noisy_teacher_has_one_noise_for_all_classes_of_a_sample(context):
    method, where = create("noisy_teacher", alpha=1.0, sigma=0.5), context(range(6))
    student = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.arange(1.0, 5, dtype=torch.float64).repeat(6, 1)
    term = method(Outputs(logits=student), Outputs(logits=teacher), torch.zeros(6, dtype=torch.int64), where)["logits"]
    term.backward()
    ratios = -6 * student.grad / teacher  # 1 + ξ
    assert torch.allclose(ratios, ratios[:, :1])
    assert len(set(ratios[:, 0].tolist())) == 6


def test_noise_has_the_share_and_the_deviation_it_is_given(context):
    noise = create("noisy_teacher", alpha=0.3, sigma=0.7).noise(context(range(MANY))).numpy()
    drawn = noise[noise != 0]
    assert len(drawn) / MANY == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / MANY))
    assert drawn.mean() == pytest.approx(0, abs=5 * 0.7 / np.sqrt(len(drawn)))
    assert drawn.std() == pytest.approx(0.7, rel=5 / np.sqrt(2 * len(drawn)))
    assert np.mean((drawn / 0.7) ** 4) == pytest.approx(3, abs=5 * np.sqrt(96 / len(drawn)))  # a normal's kurtosis


def test_historic_targets_have_zero_mean_and_the_papers_have_the_teachers(context):
    where = context(range(MANY))
    noise = create("noisy_teacher", alpha=0.5, sigma=0.9).noise(where)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)  # historic: t′ = ξ t
    assert (1 + noise).mean().item() == pytest.approx(1, abs=0.01)


def test_noise_is_a_function_of_seed_step_and_index_alone(context):
    method = create("noisy_teacher", alpha=0.5, sigma=0.1)
    whole = method.noise(context(range(50)))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(method.noise(context(order)), whole[order])
    assert torch.equal(method.noise(context([17])), whole[17:18])
    assert torch.equal(create("noisy_teacher", alpha=0.5, sigma=0.1).noise(context(range(50))), whole)
    for other in (context(range(50), seed=4), context(range(50), step=12), context(range(50, 100))):
        assert not torch.equal(method.noise(other), whole)


def test_noise_leaves_the_global_generator_alone(context):
    before = torch.get_rng_state()
    create("noisy_teacher").noise(context(range(50)))
    assert torch.equal(torch.get_rng_state(), before)


def test_selection_and_size_of_the_noise_are_independent(context):
    half = create("noisy_teacher", alpha=0.5, sigma=1.0).noise(context(range(MANY)))
    whole = create("noisy_teacher", alpha=1.0, sigma=1.0).noise(context(range(MANY)))
    selected = half != 0
    assert torch.equal(half[selected], whole[selected])
    assert whole[selected].mean().item() == pytest.approx(0, abs=0.02)
    assert whole[selected].std().item() == pytest.approx(whole[~selected].std().item(), rel=0.02)


def test_noisy_teacher_without_noise_is_logit_regression(pair, evaluate, context):
    student, teacher, targets = pair
    plain, _ = evaluate(create("logits"), student, teacher, targets)
    for quiet in ({"alpha": 0.0}, {"sigma": 0.0}):
        values, _ = evaluate(create("noisy_teacher", **quiet), student, teacher, targets, context(range(len(student))))
        assert values == plain
        values, _ = evaluate(create("noisy_teacher", **quiet), student, student, targets, context(range(len(student))))
        assert values == {"logits": 0}


def test_noisy_teacher_takes_extreme_logits(evaluate, context):
    values, _ = evaluate(create("noisy_teacher"), [[1e4, -1e4]], [[-1e4, 1e4]], [0], context([0]), dtype=torch.float32)
    assert 1e8 < values["logits"] < 1e9


@pytest.mark.parametrize(
    "wrong", [{"alpha": -0.1}, {"alpha": 1.1}, {"alpha": "x"}, {"sigma": -1}, {"sigma": float("inf")}]
)
def test_noisy_teacher_refuses_impossible_values(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"noisy_teacher: {name} must be a .*number .*, got"):
        create("noisy_teacher", **wrong)
