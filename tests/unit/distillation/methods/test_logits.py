"""Logit regression against ½ Σ (s − t)² written out, and its gradient s − t."""

import numpy as np
import pytest
import torch

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create


def test_logits_is_half_the_sum_of_squares_over_classes(pair, evaluate):
    student, teacher, targets = pair
    values, gradients = evaluate(create("logits"), student, teacher, targets)
    batch, classes = student.shape
    expected = sum(0.5 * (student[i, k] - teacher[i, k]) ** 2 for i in range(batch) for k in range(classes))
    assert list(values) == ["logits"]
    assert values["logits"] == pytest.approx(expected / len(student), rel=1e-12)
    np.testing.assert_allclose(gradients["logits"], (student - teacher) / len(student), rtol=1e-12)


def test_logits_is_exactly_zero_when_logits_match(pair, evaluate):
    student, _, targets = pair
    values, gradients = evaluate(create("logits"), student, student, targets)
    assert values["logits"] == 0
    assert not gradients["logits"].any()


def test_logits_takes_extreme_logits_in_float32(evaluate):
    values, gradients = evaluate(create("logits"), [[1e4, -1e4]], [[-1e4, 1e4]], [0], dtype=torch.float32)
    assert values["logits"] == pytest.approx(4e8)
    np.testing.assert_allclose(gradients["logits"], [[2e4, -2e4]])


def test_logits_is_not_centred(evaluate):
    values, _ = evaluate(create("logits"), [[3.0, 4.0]], [[2.0, 3.0]], [0])
    assert values["logits"] == 1.0


@pytest.mark.parametrize("name", ["logits", "kd", "noisy_teacher"])
@pytest.mark.parametrize(("student", "teacher"), [((4, 1), (4, 1)), ((4, 3), (4, 2)), ((4,), (4,)), ((2, 3), (3, 3))])
def test_methods_refuse_one_class_and_other_shapes(name, student, teacher, context):
    outputs = [Outputs(logits=torch.zeros(shape)) for shape in (student, teacher)]
    with pytest.raises(UsageError, match="logits"):
        create(name)(*outputs, torch.zeros(4, dtype=torch.int64), context(range(4)))
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["logits", "kd"])
def test_methods_compute_in_float32_for_half_precision_logits(name, kind):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(32, 10, generator=generator).to(kind) for _ in range(2))
    targets = torch.zeros(32, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        half = create(name)(Outputs(logits=student), Outputs(logits=teacher), targets)
    full = create(name)(Outputs(logits=student.float()), Outputs(logits=teacher.float()), targets)
    for term, value in full.items():
        assert half[term].dtype == torch.float32
        assert half[term].item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["logits", "kd", "noisy_teacher"])
def test_methods_give_means_over_the_batch(name, context):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(12, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    targets, method = torch.zeros(12, dtype=torch.int64), create(name)

    def term(rows):
        outputs = [Outputs(logits=logits[rows]) for logits in (student, teacher)]
        return next(iter(method(*outputs, targets[rows], context(rows)).values())).item()

    parts = torch.arange(12).split(5)  # the last is smaller
    mean = sum(len(rows) * term(rows) for rows in parts) / 12
    assert mean == pytest.approx(term(torch.arange(12)), rel=1e-12)
