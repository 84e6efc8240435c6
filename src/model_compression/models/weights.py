"""Weights files: safetensors that say in their header which network they belong to, and how it wants its pixels."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from model_compression.core import trust as code
from model_compression.core.checksummed import seal, unseal
from model_compression.core.errors import (
    FileFormatError,
    NotThereError,
    NumericalError,
    UsageError,
    WeightsMismatchError,
)
from model_compression.core.files import user_path, write_atomically
from model_compression.core.manifest import check_manifest
from model_compression.core.options import has_setting, setting, settings
from model_compression.core.registry import unknown_name
from model_compression.models.base import MODELS, Network
from model_compression.models.external import has_lazy, is_external, library_of
from model_compression.models.hub import fetch, is_hub

FORMAT = "model_compression.weights/2"
_UNSEALED_FORMAT = "model_compression.weights/1"  # without digests, as the first shipped networks
_HEADER = "model_compression"
_OF_A_RUN = "student.safetensors"
_MEAN_IMAGE = "preprocessing.mean_image"
_NAMED = 5  # tensors that an error names
_EXPORTED = (".onnx", ".pt2")


def shipped_weights() -> dict[str, Path]:
    """Name → file of the trained networks inside the package."""
    folder = Path(str(resources.files("model_compression") / "weights"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def save_weights(
    path: str | Path, model: Network, *, dtype: torch.dtype = torch.float32, facts: dict[str, Any] | None = None
) -> None:
    """Writes the network's deployed form, what is needed to build it again, and ``facts`` about it (plain values).

    Raises NumericalError, before anything is written, when a weight is NaN or infinite in ``dtype``.
    """
    model = model.deployed()
    tensors = {
        name: (tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    if model.preprocessing.mean_image is not None:
        tensors[_MEAN_IMAGE] = model.preprocessing.mean_image.cpu().contiguous()
    wrong = not_finite(tensors)
    if wrong is not None:
        raise NumericalError(
            f"{path} is not written: {wrong} holds NaN or infinity as {dtype}; train anew, or use float32"
        )
    header = {
        "format": FORMAT,
        "model": model.name,
        "options": model.options,
        "preprocessing": model.preprocessing.to_dict(),
        "facts": facts or {},
    }
    code.write_sealed(Path(path), [header["model"], header["options"]], seal(tensors, _HEADER, header))


def save_backbone(path: Path, model: Network) -> None:
    """Writes the weights under the names that the network's own library gives them, as timm and torch load them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.deployed().body.state_dict().items()}
    write_atomically(path, save(tensors, metadata={"format": "pt"}))


def find_weights(name: str) -> Path:
    """The weights file of a shipped network, or of a file or run folder. Raises UnknownNameError."""
    if not name.strip():
        raise UsageError("the name of a network is empty; give a name, a weights file or a run folder")
    shipped = shipped_weights()
    if name in shipped:
        return shipped[name]
    if is_hub(name):
        return fetch(name)
    if is_external(name):
        raise no_weights(name)
    path = user_path(name)
    for folder in (path, path / "final"):  # of a run, or of several in turn that end there
        if (folder / _OF_A_RUN).is_file():
            check_manifest(folder, [_OF_A_RUN])
            return folder / _OF_A_RUN
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder without student.safetensors; expected a finished run or a file")
    if path.is_file():
        return path
    if ".py:" in name:
        raise UsageError(f"{name!r} names no module; what a/nets.py builds is written a.nets:builder")
    if path.suffix or len(path.parts) > 1:
        raise NotThereError(f"{path} does not exist; expected a .safetensors file, a run folder or a name")
    if name in MODELS:
        raise no_weights(name)
    raise unknown_name("model", name, [*MODELS, *shipped])


def no_weights(name: str) -> UsageError:
    """The error for a network built anew where a trained one is meant: with fresh weights it answers at random."""
    shipped = ", ".join(shipped_weights()) or "none"
    fault = f"network {name!r} has no weights; give a weights file, a run folder or a shipped one ({shipped})"
    own = [setting(option) for option in ("weights", "teacher_weights") if has_setting(option)]
    if not own:
        return UsageError(fault)
    fetched = "the option pretrained=true, or " if library_of(name) else ""
    return UsageError(f"{fault}, or weights for it: {fetched}a file of its own ({', '.join(own)})")


def read_header(path: str | Path) -> dict[str, Any]:
    """{"format", "model", "options", "preprocessing", "facts"} of a weights file. Raises FileFormatError."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER, "{}")
    except (SafetensorError, OSError) as error:
        raise _no_safetensors(Path(path), error) from None
    try:
        header = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path}: the header is damaged: {error}") from None
    found = header.get("format", "none") if isinstance(header, dict) else "none"
    if not header:
        raise FileFormatError(f"{path} {_nameless(path)}")
    if found not in (FORMAT, _UNSEALED_FORMAT):
        raise FileFormatError(
            f"{path}: format is {found!r}, expected {FORMAT!r}; `model-compression import` reads others"
        )
    parts = {key: header.get(key) for key in ("format", "model", "options", "preprocessing", "facts")}
    plain = dict.fromkeys(("options", "preprocessing", "facts"), dict) | {"model": str}
    if not all(isinstance(parts[key], kind) for key, kind in plain.items()):
        raise FileFormatError(f"{path}: the header is damaged: it does not say which model this is, or how it is built")
    code.read([parts["model"], parts["options"]], path, Path(path))
    return parts


def read_tensors(path: str | Path, header: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor | None]:
    """(weights by name, the mean image that is subtracted from images) of a file with this ``header``."""
    tensors, _ = unseal(Path(path), _HEADER, sealed=header["format"] == FORMAT)
    return tensors, tensors.pop(_MEAN_IMAGE, None)


def _nameless(path: str | Path) -> str:
    roles = [("teacher", "teacher_weights"), ("model", "weights"), ("student", "student_weights")]
    role = next((pair for pair in roles if all(map(has_setting, pair))), None)
    if role is None:
        return "holds weights and does not say of which network; `model-compression import` makes a file that does"
    return (
        "holds weights and does not say of which network; name what builds it and give the file as its weights: "
        + settings(**dict(zip(role, ("mynets:build", str(path)), strict=True)))
    )


def _no_safetensors(path: Path, error: Exception) -> FileFormatError:
    """What a file is that is no safetensors file, and what to do with it."""
    if path.suffix in _EXPORTED:
        return FileFormatError(
            f"{path} is an exported network, which cannot be trained or teach; give the run or the weights file that "
            "it was exported from"
        )
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        start = b""
    if start[:2] == b"\x80\x02" or start == b"PK\x03\x04":  # torch.save's, of before and since version 1.6
        return FileFormatError(f"{path} {_nameless(path)}")
    return FileFormatError(f"{path} is not a readable safetensors file: {error}")


def not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, if one does."""
    floating = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    return next((name for name, tensor in floating if not bool(torch.isfinite(tensor).all())), None)


def check_sizes(module: nn.Module, source: str) -> None:
    """Raises WeightsMismatchError where layers have no sizes yet."""
    if has_lazy(module):
        raise WeightsMismatchError(
            f"{source} cannot fill layers that get their sizes from the first images, as nn.LazyLinear: let the "
            "network's builder call it once with images of the right size, or write the sizes"
        )


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copies ``tensors`` into ``model``, all or nothing.

    Raises WeightsMismatchError that names some of the missing, unknown and misshapen tensors and counts them, and
    FileFormatError for NaN or infinity.
    """
    check_sizes(model, source)
    state = model.state_dict()
    faults = [f"{name}: missing, expected {tuple(state[name].shape)}" for name in state if name not in tensors]
    faults += [f"{name!r}: unknown to the model" for name in tensors if name not in state]
    for name, expected in state.items():
        found = tensors.get(name, expected)
        if found.shape != expected.shape:
            faults.append(f"{name}: found {tuple(found.shape)}, expected {tuple(expected.shape)}")
        elif found.is_floating_point() != expected.is_floating_point():
            faults.append(f"{name}: found {found.dtype}, expected {expected.dtype}")
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        none = "" if state.keys() & tensors.keys() else "they have no name in common: "
        raise WeightsMismatchError(f"{source} does not fit the model: {none}{'; '.join(faults[:_NAMED])}{more}")
    tensors = {name: tensor.to(state[name].dtype) for name, tensor in tensors.items()}
    wrong = not_finite(tensors)
    if wrong is not None:
        raise FileFormatError(f"{source}: {wrong} holds NaN or infinity; the file is damaged or was saved after one")
    model.load_state_dict(tensors)
