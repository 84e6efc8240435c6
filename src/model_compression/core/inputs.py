"""What a network is called with, as one argument: a tensor (B, …), or tensors (B, …) by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Inputs = Tensor | dict[str, Tensor]


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Any:
    """``function`` of ``inputs``, or of each of its tensors by name."""
    if isinstance(inputs, Mapping):
        return {name: function(tensor) for name, tensor in inputs.items()}
    return function(inputs)


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The tensors of ``inputs``, at least one."""
    return list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]


def join_inputs(parts: Sequence[Any]) -> Any:
    """Batches of inputs, one behind the other."""
    if isinstance(parts[0], Mapping):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(list(parts))
