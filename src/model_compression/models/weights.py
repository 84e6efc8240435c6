"""Weights files: safetensors that say in their header which network they belong to, and how it wants its pixels."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from model_compression.core import trust as code
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.checksummed import seal, unseal
from model_compression.core.errors import (
    FileFormatError,
    NotThereError,
    NumericalError,
    UsageError,
    WeightsMismatchError,
)
from model_compression.core.files import seen_from_here, user_path, write_atomically
from model_compression.core.manifest import check_manifest
from model_compression.core.options import has_setting, setting, settings, speaks_flags
from model_compression.core.registry import unknown_name
from model_compression.core.trust import NAME
from model_compression.models.base import MODELS, Network
from model_compression.models.bounded import bounded_by, bounded_by_memory
from model_compression.models.create import create_model
from model_compression.models.external import (
    INPUT_SHAPE,
    build_external,
    has_lazy,
    has_num_classes,
    is_external,
    library_of,
)
from model_compression.models.foreign_weights import find_own_weights, own_tensors
from model_compression.models.hub import fetch, is_hub
from model_compression.models.preprocessing import Preprocessing

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


@checked_arguments
def load_model(
    name: str | Path,
    options: dict[str, Any] | None = None,
    *,
    seed: int | None = None,
    weights: str | Path | None = None,
    trust: bool = False,
) -> Network:
    """The network that ``name`` means.

    Args:
        name: a registered model, "timm:NAME", "torchvision:NAME" or "module.path:builder", with fresh weights;
            "hf:FOLDER_OR_NAME", with its own; a shipped network; a weights file or a run folder; "hub:USER/REPO", what
            `push` has uploaded.
        options: of the builder. ``pretrained`` asks a library for weights, or not to use those of "hf:".
        seed: of fresh weights; None draws them from torch's global generator.
        weights: a file with weights for a network that is built anew: .safetensors, or .pt with tensors and plain
            values alone, also in dictionaries in dictionaries (FILE#KEY names one) and with a prefix before all names.
        trust: whether code that a stranger's file names is imported. What you name yourself always is, and so is what
            your own runs name.

    Raises:
        UnknownNameError: no such network or option; near matches are listed.
        UntrustedCodeError: a stranger's file that names code; nothing was imported.
        FileFormatError: a file that cannot be read; WeightsMismatchError: one that does not fit, with the tensors.
        ModelCompressionError: a library that is missing, or weights that it cannot fetch.
    """
    code.give(str(name), options)
    with code.all_files(trust):
        return build_model(name, options, seed=seed, weights=weights)


def build_model(
    name: str | Path,
    options: dict[str, Any] | None = None,
    *,
    seed: int | None = None,
    weights: str | Path | None = None,
    fits_head: bool = False,
) -> Network:
    """What `load_model` gives, for a ``name`` that stands in a configuration: it is not trusted for that.

    With ``fits_head`` weights of the same network without a classifier, or with one for another number of classes,
    serve: it then starts afresh. Of a network without one the classifier of ``weights`` is left out.
    """
    name, options = str(name), dict(options or {})
    if name not in MODELS and not is_external(name):
        if options:
            raise UsageError(
                f"options {sorted(options)} are for a model built anew; {name!r} has weights that fix its own"
            )
        if weights is not None:
            check_own_weights(name, weights)
        return read_model(find_weights(name))
    if weights is None:
        return build_named(name, options, seed)
    if options.get("pretrained"):
        raise UsageError(f"pretrained and the weights {weights} both say which weights {name!r} has; give one of them")
    if _is_ours(weights):
        of_file = read_header(find_own_weights(weights)[0])["options"]
        options = {key: value for key, value in of_file.items() if key == INPUT_SHAPE} | options
    model = build_named(name, {**options, "pretrained": False} if library_of(name) else options, seed)
    head = partial(head_tensors, name, model.options) if fits_head else frozenset
    if _is_ours(weights):
        model.fresh = _fill(model, find_own_weights(weights)[0], head)
    else:
        model.fresh = load_own_weights(model.body, weights, head)
    return model


Head = Callable[[], frozenset[str]]
"""Gives the names of the tensors of a network's classifier, in its body and in the network itself."""


def head_tensors(name: str, options: dict[str, Any]) -> frozenset[str]:
    """The names of the tensors of a network's classifier: those that it has not when it is built for 0 classes."""
    if name not in MODELS and library_of(name) not in ("timm", "torchvision"):
        return frozenset()
    own = {key: value for key, value in options.items() if key != "num_classes"}
    try:
        whole, headless = (build_named(name, one, 0) for one in (own, {**own, "num_classes": 0}))
    except UsageError:  # it does not end with an inner product
        return frozenset()
    return frozenset(whole.state_dict().keys() - headless.state_dict().keys()) | frozenset(
        whole.body.state_dict().keys() - headless.body.state_dict().keys()
    )


def check_own_weights(name: str, source: str | Path) -> None:
    """Raises UsageError unless ``name`` is a network that is built anew, FileFormatError unless the file is there."""
    if name not in MODELS and not is_external(name):
        raise UsageError(f"weights {source} are for a network that is built anew, as resnet20; {name!r} has its own")
    find_own_weights(source)


def load_own_weights(module: nn.Module, source: str | Path, head: Head = frozenset) -> tuple[str, ...]:
    """Copies the weights of a user's file into ``module``, see `load_model`; all or nothing.

    Of the ``head`` the module keeps what the file has not, and returns its names.
    """
    _check_sizes(module, str(source))
    tensors, fresh = _with_head(own_tensors(source, module.state_dict()), module, head)
    load_tensors(module, tensors, str(source))
    return fresh


def _with_head(tensors: dict[str, Tensor], module: nn.Module, head: Head) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """``tensors`` without those of the ``head`` that ``module`` lacks, and with its own for those that they lack, or
    have of another number of classes.
    """
    state = module.state_dict()
    fits = {name for name, tensor in tensors.items() if name in state and state[name].shape == tensor.shape}
    if state.keys() == tensors.keys() == fits:
        return tensors, ()
    names = head()
    fresh = tuple(name for name in state if name in names and name not in fits)
    kept = {name: tensor for name, tensor in tensors.items() if name in state or name not in names}
    return {**kept, **{name: state[name] for name in fresh}}, fresh


def build_named(name: str, options: dict[str, Any], seed: int | None, *, from_file: bool = False) -> Network:
    """A registered network or one of other origin, built anew."""
    if "seed" in options:
        raise UsageError(f"model {name!r}: seed is not an option of a network; the run's seed draws its weights")
    if name not in MODELS and not is_external(name):
        raise unknown_name("model", name, MODELS.names())
    if from_file and library_of(name):
        options = {**options, "pretrained": False}
    # A user's own code is not bounded: it may do anything with tensors. `build_hf` bounds itself, by its folder.
    is_bounded = name in MODELS or library_of(name) in ("timm", "torchvision")
    with bounded_by_memory(name, options) if is_bounded else nullcontext():
        return create_model(name, seed=seed, **options) if name in MODELS else build_external(name, options, seed=seed)


def build_body(body: str, options: dict[str, Any] | None, num_classes: int | None) -> Network:
    """What a network that another one is made of begins as; ``num_classes`` goes to a body that has such an option."""
    options = dict(options or {})
    if num_classes is not None and (body in MODELS or has_num_classes(body)):
        options["num_classes"] = num_classes
    return build_named(body, options, None, from_file=True)  # it may be: see `read_model`


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


def read_model(path: str | Path) -> Network:
    """Builds the network that a weights file names, with its weights in float32 and its preprocessing."""
    header = read_header(path)
    try:
        with bounded_by(Path(path), header["options"]):
            model = build_named(header["model"], header["options"], None, from_file=True)
    except UsageError as error:
        raise FileFormatError(f"{path}: {error}") from None
    try:
        _fill(model, path)
    except WeightsMismatchError as error:
        if NAME.fullmatch(header["model"]) is None:
            raise
        named = seen_from_here(path)
        way = f'load_model("mynets:build", weights="{named}")'
        if speaks_flags():
            way = f"{settings(model='mynets:build', weights=named)} for test and export; in Python {way}"
        raise WeightsMismatchError(
            f"{named} is not of the network that {header['model']} builds; it was given from Python as a module. Name "
            f"what builds it: {way} ({error})"
        ) from None
    return model


def _fill(model: Network, path: str | Path, head: Head = frozenset) -> tuple[str, ...]:
    """Gives ``model`` weights, preprocessing and facts of a file of this package; see `load_own_weights`."""
    header = read_header(path)
    tensors, _ = unseal(Path(path), _HEADER, sealed=header["format"] == FORMAT)
    mean_image = tensors.pop(_MEAN_IMAGE, None)
    try:
        model.preprocessing = Preprocessing.from_dict(header["preprocessing"], mean_image)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: the preprocessing in the header is damaged: {error}") from None
    model.declares_preprocessing, model.facts = True, header["facts"]
    tensors, fresh = _with_head(tensors, model, head)
    if fresh:  # what a file says of answers is of its own classifier
        model.facts = {name: value for name, value in model.facts.items() if name in ("config", "image_shape")}
    load_tensors(model, tensors, str(path))
    return fresh


def _is_ours(source: str | Path) -> bool:
    """Whether a file of weights was written by `save_weights`."""
    try:
        return bool(read_header(user_path(source)))
    except FileFormatError:
        return False


def not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, if one does."""
    floating = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    return next((name for name, tensor in floating if not bool(torch.isfinite(tensor).all())), None)


def _check_sizes(module: nn.Module, source: str) -> None:
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
    _check_sizes(model, source)
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
