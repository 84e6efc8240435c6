"""The resumable state of a run, in two generations of sealed safetensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_compression.core.checksummed import seal, unseal
from model_compression.core.errors import FileFormatError
from model_compression.core.files import write_atomically

FORMAT = "model_compression.state/2"


@dataclass(frozen=True, kw_only=True)
class State:
    """``tensors`` by name and ``progress``, plain values."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def previous(path: Path) -> Path:
    """Where the state before the one at ``path`` is kept."""
    return path.with_stem(f"{path.stem}-previous")


def save_state(path: Path, state: State) -> None:
    """Writes the state atomically; the one before it stays, as `previous`."""
    write_atomically(path, seal(state.tensors, FORMAT, state.progress), keep=previous(path))


def load_state(path: Path, report: Callable[[str], None] = lambda message: None) -> State | None:
    """The newest whole state, None where none was saved. ``report`` is told when that is not the last one.

    Raises FileFormatError when none is whole, or the last one is of a newer format.
    """
    damage: Exception | None = None
    for candidate in (path, previous(path)):
        if not candidate.is_file():
            damage = damage or FileNotFoundError(f"{candidate} is missing")
            continue
        try:
            tensors, progress = unseal(candidate, FORMAT)
        except FileFormatError as error:
            damage = damage or error
            continue
        if damage is not None:
            report(f"{damage}; continuing from the state before it, of step {progress.get('step')}")
        return State(tensors=tensors, progress=progress)
    if isinstance(damage, FileFormatError):
        raise damage
    return None


def delete_states(path: Path) -> None:
    """Removes what a finished run no longer needs."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, ``NUMBER.KEY``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{key}": value for number, entry in state.items() for key, value in entry.items() if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`, in the memory layout that each parameter has."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        # A fused step walks parameter and state side by side in memory: the strides must be the parameter's.
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
