"""Copies of networks, and where their weights lie."""

from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from model_compression.core.errors import UsageError, reason_of

N = TypeVar("N", bound=nn.Module)


def place(model: N, device: torch.device) -> N:
    """``model`` on ``device`` with channels-last weights, the layout in which convolutions are fastest."""
    trained = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # the parameters of TorchScript are no leaves otherwise
        model = model.to(device).to(memory_format=torch.channels_last)
    _set_trained(model, trained)
    return model


def _set_trained(model: nn.Module, trained: Iterable[bool]) -> None:
    """Lets each parameter of ``model`` learn, or not."""
    for parameter, wanted in zip(model.parameters(), trained, strict=True):
        if parameter.requires_grad != wanted:
            parameter.requires_grad_(wanted)


def copy_of(module: N) -> N:
    """A copy of ``module``, as deepcopy makes it, also of one that holds results of computations or is TorchScript.

    Raises UsageError for a module that holds what cannot be copied, as a lock.
    """
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with torch.no_grad():  # the parameters of TorchScript's copies are no leaves otherwise
            copy = deepcopy(module, dict(computed))
    except Exception as error:  # of anything that a user's module may hold
        raise UsageError(
            f"a {type(module).__name__} cannot be copied, and yours stays as it is: {reason_of(error)}; take that out "
            "of the module, or give the name of what builds it, as 'mynets:build'"
        ) from error
    _set_trained(copy, [parameter.requires_grad for parameter in module.parameters()])
    return copy


def tied(module: nn.Module) -> dict[int, list[str]]:
    """The names of each parameter of ``module`` that has several, by its id: of tied weights, or of a shared layer."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {key: several for key, several in names.items() if len(several) > 1}
