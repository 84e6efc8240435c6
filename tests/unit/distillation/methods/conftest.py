"""Random logits for the losses, and their independent gradients by central differences."""

import pytest
import torch
from numerics import SHAPES, random_logits

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import Context


@pytest.fixture(params=SHAPES, ids=str)
def pair(request):
    """Logits of student and teacher (B, K) and targets (B,), as float64 arrays."""
    return random_logits(request.param)


@pytest.fixture
def evaluate():
    """Function of (method, student, teacher, targets) → ({term: value}, {term: gradient for the student's logits})."""

    def evaluated(method, student, teacher, targets, context=None, dtype=torch.float64):
        s = torch.tensor(student, dtype=dtype, requires_grad=True)
        t = torch.tensor(teacher, dtype=dtype, requires_grad=True)
        terms = method(Outputs(logits=s), Outputs(logits=t), torch.tensor(targets), context)
        gradients = {}
        for name, term in terms.items():
            assert term.shape == ()
            gradient, of_teacher = torch.autograd.grad(term, (s, t), retain_graph=True, allow_unused=True)
            assert of_teacher is None
            gradients[name] = gradient.double().numpy()
        return {name: term.item() for name, term in terms.items()}, gradients

    return evaluated


@pytest.fixture
def context():
    """Function of (indices, seed, step) → Context."""

    def built(indices, seed=3, step=11):
        return Context(ids=torch.as_tensor(indices), epoch=0, step=step, seed=seed)

    return built
