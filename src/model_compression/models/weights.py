"""Weights files: safetensors that say in their header which network they belong to, and how it wants its pixels."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from model_compression.errors import FileFormatError, UsageError, WeightsMismatchError
from model_compression.files import write_atomically
from model_compression.models.base import MODELS, Network, create_model
from model_compression.models.preprocessing import Preprocessing
from model_compression.registry import unknown_name

FORMAT = "model_compression.weights/1"
_MEAN_IMAGE = "preprocessing.mean_image"


def shipped_weights() -> dict[str, Path]:
    """Name → file of the trained networks inside the package."""
    folder = Path(str(resources.files("model_compression") / "weights"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def save_weights(
    path: str | Path, model: Network, *, dtype: torch.dtype = torch.float32, facts: dict[str, Any] | None = None
) -> None:
    """Writes the network's deployed form, with what is needed to build it again and ``facts`` about it (plain values)."""
    model = model.deployed()
    tensors = {
        name: (tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    if model.preprocessing.mean_image is not None:
        tensors[_MEAN_IMAGE] = model.preprocessing.mean_image.cpu().contiguous()
    header = {
        "format": FORMAT,
        "model": model.name,
        "options": json.dumps(model.options),
        "preprocessing": json.dumps(model.preprocessing.to_dict()),
        "facts": json.dumps(facts or {}),
    }
    write_atomically(path, save(tensors, header))


def load_model(name: str, options: dict[str, Any] | None = None, *, seed: int | None = None) -> Network:
    """The network that ``name`` means: a registered model with fresh weights, a shipped one, or a file or run folder.

    Raises UnknownNameError with near matches, FileFormatError and WeightsMismatchError.
    """
    if name in MODELS:
        return create_model(name, seed=seed, **(options or {}))
    if options:
        raise UsageError(f"options {sorted(options)} are for a model built anew; {name!r} has weights that fix its own")
    return read_model(find_weights(name))


def find_weights(name: str) -> Path:
    """The weights file of a shipped network, or of a file or run folder. Raises UnknownNameError."""
    shipped = shipped_weights()
    if name in shipped:
        return shipped[name]
    path = Path(name).expanduser()
    if (path / "student.safetensors").is_file():
        return path / "student.safetensors"
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder without student.safetensors; expected a finished run or a file")
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise FileFormatError(f"{path} does not exist; expected a .safetensors file, a run folder or a name")
    raise unknown_name("model", name, [*MODELS, *shipped])


def read_header(path: str | Path) -> dict[str, Any]:
    """{"model", "options", "preprocessing", "facts"} of a weights file. Raises FileFormatError."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is not a readable safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        found = header.get("format", "none")
        raise FileFormatError(f"{path}: format is {found!r}, expected {FORMAT!r}; `model-compression import` reads others")
    try:
        return {"model": header["model"]} | {
            key: json.loads(header[key]) for key in ("options", "preprocessing", "facts")
        }
    except (KeyError, json.JSONDecodeError) as error:
        raise FileFormatError(f"{path}: the header is damaged: {error}") from None


def read_model(path: str | Path) -> Network:
    """Builds the network that a weights file names, with its weights in float32 and its preprocessing."""
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    try:
        model = create_model(header["model"], **header["options"])
    except UsageError as error:
        raise FileFormatError(f"{path}: {error}") from None
    mean_image = tensors.pop(_MEAN_IMAGE, None)
    try:
        model.preprocessing = Preprocessing.from_dict(header["preprocessing"], mean_image)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: the preprocessing in the header is damaged: {error}") from None
    load_tensors(model, tensors, str(path))
    return model


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copies ``tensors`` into ``model``, all or nothing.

    Raises WeightsMismatchError that names every missing, unknown and misshapen tensor, and FileFormatError for NaN or
    infinity.
    """
    state = model.state_dict()
    faults = [f"{name}: missing, expected {tuple(state[name].shape)}" for name in state if name not in tensors]
    faults += [f"{name}: unknown to the model" for name in tensors if name not in state]
    faults += [
        f"{name}: found {tuple(tensors[name].shape)}, expected {tuple(state[name].shape)}"
        for name in state
        if name in tensors and tensors[name].shape != state[name].shape
    ]
    if faults:
        raise WeightsMismatchError(f"{source} does not fit the model: " + "; ".join(faults))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FileFormatError(f"{source}: {name} holds NaN or infinity; the file is damaged or was saved after one")
    model.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in tensors.items()})
