"""What every registered method keeps to; a new one is picked up by itself."""

import pytest
import torch

from model_compression.methods import METHODS, Context, Method, create
from model_compression.outputs import Outputs

pytestmark = pytest.mark.parametrize("name", METHODS.names())
NUM_CLASSES, NUM_SAMPLES = 10, 50


def built(name):
    """The method, ready for models with logits only; a method that needs more is for its own tests."""
    method = create(name)
    if not method.needs <= {"logits"}:
        pytest.skip(f"{name} needs {sorted(method.needs)}")
    method.setup({side: {"logits": (1, NUM_CLASSES)} for side in ("student", "teacher")}, NUM_SAMPLES, NUM_CLASSES)
    return method


def answered(method, batch):
    """(student's logits, teacher's, terms) for a batch."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(batch, NUM_CLASSES, generator=generator).requires_grad_() for _ in range(2))
    targets = torch.randint(0, NUM_CLASSES, (batch,), generator=generator)
    context = Context(indices=torch.arange(batch), epoch=1, step=7, seed=0)
    return student, teacher, method(Outputs(logits=student), Outputs(logits=teacher), targets, context)


def test_method_states_its_weights_and_needs(name):
    method = create(name)
    assert isinstance(method, Method)
    assert method.needs <= {"logits", "embedding", "features"}
    assert method.default_weights
    assert all(weight > 0 for weight in method.default_weights.values())
    assert method.default_label_weight >= 0


@pytest.mark.parametrize("batch", [1, 2, 13, NUM_SAMPLES])
def test_method_returns_finite_scalars_under_the_names_of_its_weights(name, batch):
    method = built(name)
    student, teacher, terms = answered(method, batch)
    assert terms.keys() == method.default_weights.keys()
    assert all(term.shape == () and term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.any()
    assert teacher.grad is None


def test_method_state_is_saved_and_restored(name):
    method, other = built(name), built(name)
    other.load_state_dict(method.state_dict())
    _, _, terms = answered(method, 5)
    _, _, again = answered(other, 5)
    assert {key: value.item() for key, value in terms.items()} == {key: value.item() for key, value in again.items()}


def test_method_does_not_touch_the_global_generator(name):
    method = built(name)
    before = torch.get_rng_state()
    answered(method, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_method_documents_its_parameters(name):
    assert METHODS.get(name).__doc__
