"""Whether a network of the user's code can be built again from the file of its weights."""

import torch
from torch import Tensor

from model_compression.core.config_json import GIVEN
from model_compression.core.errors import UsageError
from model_compression.core.inputs import Inputs
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer
from model_compression.models.base import MODELS, Network
from model_compression.models.copies import copy_of
from model_compression.models.eval_mode import evaluating
from model_compression.models.external import build_external, is_external, library_of

NOT_REBUILT = (
    "() without arguments does not build the student that you gave. The run folder stores the student's weights, but "
    "load_model cannot rebuild it from them; give the name of the student's builder instead, as 'mynets:small'"
)


def check_rebuilt(student: Network, data: Dataset, seed: int, observer: Observer, *, given: bool) -> None:
    """Compares a fresh ``student`` of the user's code with what its name builds again, and gives it the same weights.

    That may have other layers, and it may compute something else with the same ones: by another default of its class, a
    hook, a changed method or a buffer that is not stored. The name of a module that was ``given`` is then marked, so
    that its weights fill no other network; UsageError for what was built by its name.
    """
    if library_of(student.name) or student.name in MODELS:
        return
    if _is_rebuilt(student, to_tensors(data.first(2)), seed + 1):
        return
    if not given:
        raise UsageError(
            f"{student.name} builds a network that answers otherwise each time it is built, with the same weights, so "
            "no file of weights holds it: store what it draws in persistent buffers"
        )
    observer.message(f"{student.name}{NOT_REBUILT}")
    student.name = f"{GIVEN}{student.name}"


def _is_rebuilt(student: Network, inputs: Inputs, seed: int) -> bool:
    """Whether the name of ``student`` builds a network that has its tensors and answers ``inputs`` as it does."""
    if not is_external(student.name):  # a class within a function
        return False
    try:
        again = build_external(student.name, student.options, seed=seed)
        again.preprocessing = student.preprocessing
        again.load_state_dict(student.state_dict())
        answers = [_answer(one, inputs) for one in (copy_of(student), again)]
        torch.testing.assert_close(*answers, equal_nan=True)
    except Exception:  # of tensors or answers that differ, or of anything in the code of others
        return False
    return True


def _answer(network: Network, inputs: Inputs) -> Tensor:
    with evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of networks that draw in each call
        answer: Tensor = network(network.preprocessing(inputs))
    return answer
