"""The objective: weights are applied here and only here."""

import dataclasses

import numpy as np
import pytest
import torch

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import UnknownNameError
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Mixed
from model_compression.distillation.methods import Context, create
from model_compression.distillation.objective import Objective
from model_compression.tasks import TASKS

LABELS = TrainConfig(student=ModelConfig(name="lenet"))
CONTEXT = Context(ids=torch.arange(6), epoch=0, step=0, seed=0)


def distilled(name, **options):
    return dataclasses.replace(LABELS, teacher=ModelConfig(name="nin"), method=MethodConfig(name=name, **options))


def batch_of(targets, mixed=None):
    return Batch(inputs=torch.zeros(6, 1, 2, 2), targets=targets, ids=torch.arange(6), view=0, mixed=mixed)


def objective_of(config):
    return Objective(config, TASKS.create("image-classification"), 100, 4)


def answered(config):
    """(loss, terms, student's logits, teacher's, targets) of random logits."""
    rng = np.random.default_rng(0)
    student, teacher = (torch.tensor(logits, requires_grad=True) for logits in rng.normal(size=(2, 6, 4)))
    targets = torch.tensor([0, 3, 1, 2, 2, 0])
    outputs = None if config.method is None else Outputs(logits=teacher)
    loss, terms = objective_of(config)(Outputs(logits=student), outputs, batch_of(targets), CONTEXT)
    return loss, {name: term.item() for name, term in terms.items()}, student, teacher, targets


def cross_entropy(student, targets, smoothing=0.0, soft=None):
    logits = student.detach().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = (np.eye(4)[targets] if soft is None else soft) * (1 - smoothing) + smoothing / 4
    return -(wanted * log_p).sum(axis=1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_objective_on_labels_is_cross_entropy(smoothing):
    loss, terms, student, _, targets = answered(dataclasses.replace(LABELS, label_smoothing=smoothing))
    assert terms == {"label": pytest.approx(cross_entropy(student, targets, smoothing))}
    assert loss.item() == terms["label"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_objective_on_mixed_images_counts_both_labels_by_their_shares(smoothing):
    rng = np.random.default_rng(1)
    student, share = torch.tensor(rng.normal(size=(6, 4)), requires_grad=True), torch.tensor(rng.uniform(size=6))
    own, other = torch.tensor([0, 3, 1, 2, 2, 0]), torch.tensor([1, 3, 0, 0, 2, 3])
    config = dataclasses.replace(LABELS, label_smoothing=smoothing)
    loss, _ = objective_of(config)(
        Outputs(logits=student), None, batch_of(own, Mixed(targets=other, share=share)), CONTEXT
    )
    soft = share[:, None] * torch.eye(4)[own] + (1 - share[:, None]) * torch.eye(4)[other]
    assert loss.item() == pytest.approx(cross_entropy(student, soft.argmax(1), soft=soft.numpy(), smoothing=smoothing))
    (gradient,) = torch.autograd.grad(loss, student)
    wanted = torch.softmax(student.detach(), 1) - (soft * (1 - smoothing) + smoothing / 4)
    torch.testing.assert_close(gradient, wanted / 6)


def test_objective_applies_the_default_weights_of_the_method():
    loss, terms, student, _, targets = answered(distilled("kd"))
    assert terms["label"] == pytest.approx(cross_entropy(student, targets))
    assert loss.item() == pytest.approx(0.1 * terms["label"] + 0.9 * terms["kd"])


def test_objective_applies_given_weights_to_unweighted_terms():
    _, plain, *_ = answered(distilled("kd"))
    loss, terms, *_ = answered(distilled("kd", weights={"kd": 3.0}, label_weight=0.5))
    assert terms == plain
    assert loss.item() == pytest.approx(0.5 * terms["label"] + 3 * terms["kd"])


def test_objective_leaves_the_labels_out_where_their_weight_is_zero():
    for config in (distilled("logits"), distilled("kd", label_weight=0)):
        loss, terms, *_ = answered(config)
        assert "label" not in terms
        (term,) = terms.values()
        assert loss.item() == pytest.approx((0.9 if "kd" in terms else 1) * term)


def test_objective_of_2016_has_labels_of_its_own():
    loss, terms, *_ = answered(distilled("kd", params={"variant": "historic", "temperature": 3.0}))
    assert list(terms) == ["kd", "sigmoid_labels"]
    assert loss.item() == pytest.approx(0.7 * terms["kd"] + 0.3 * terms["sigmoid_labels"])


def test_objective_gives_no_gradient_to_the_teacher():
    loss, _, student, teacher, _ = answered(distilled("kd"))
    loss.backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_objective_raises_a_methods_weights_as_the_run_goes_on():
    rng = np.random.default_rng(0)
    student, teacher = (Outputs(logits=torch.tensor(logits)) for logits in rng.normal(size=(2, 6, 4)))
    targets = torch.tensor([0, 3, 1, 2, 2, 0])
    objective = objective_of(distilled("kd,logits", warmup=0.25))
    for done, factor in ((0.05, 0.2), (0.125, 0.5), (0.25, 1.0), (1.0, 1.0)):
        loss, terms = objective(student, teacher, batch_of(targets), CONTEXT, done=done)
        expected = 0.1 * terms["label"] + factor * (0.9 * terms["kd"] + terms["logits"])
        assert loss.item() == pytest.approx(expected.item())
    unchanged, _ = objective_of(distilled("kd,logits"))(student, teacher, batch_of(targets), CONTEXT, done=0.01)
    assert unchanged.item() == pytest.approx(loss.item())


def test_methods_bring_their_own_warmup():
    assert create("review_kd").default_warmups == {"review_kd": 1 / 12}
    assert create("kd,review_kd").default_warmups == {"kd": 0.0, "review_kd": 1 / 12}


def test_objective_refuses_weights_of_terms_that_the_method_lacks():
    with pytest.raises(UnknownNameError, match="unknown term of method 'kd': 'kl'; known: kd"):
        objective_of(distilled("kd", weights={"kl": 1.0}))
