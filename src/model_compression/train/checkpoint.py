"""The resumable state of a run: safetensors with a JSON header, nothing that could execute."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model_compression.errors import FileFormatError
from model_compression.files import write_atomically

FORMAT = "model_compression.state/1"


@dataclass(frozen=True, kw_only=True)
class State:
    """``tensors`` by name and ``progress``, plain values."""

    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def save_state(path: Path, state: State) -> None:
    """Writes the state atomically: the old one stays whole until the new one is."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    write_atomically(path, save(tensors, {FORMAT: json.dumps(state.progress)}))


def load_state(path: Path) -> State:
    """Reads a state. Raises FileFormatError when it is missing, damaged or of a newer format."""
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist: there is nothing to continue from")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies: what safetensors gives is a view of the file, which the next save replaces.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    if FORMAT not in header:
        raise FileFormatError(f"{path}: format is {next(iter(header), 'none')!r}, expected {FORMAT!r}")
    try:
        return State(tensors=tensors, progress=json.loads(header[FORMAT]))
    except json.JSONDecodeError as error:
        raise FileFormatError(f"{path}: the header is damaged: {error}") from None


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
