"""Networks with weights, by name: registered, of a library, of a weights file or of a run folder."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model_compression.core import trust as code
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config_json import GIVEN
from model_compression.core.errors import FileFormatError, UsageError, WeightsMismatchError
from model_compression.core.files import seen_from_here, user_path
from model_compression.core.options import settings, speaks_flags
from model_compression.core.registry import unknown_name
from model_compression.core.trust import NAME
from model_compression.models.base import MODELS, Network
from model_compression.models.bounded import bounded_by, bounded_by_memory
from model_compression.models.create import create_model
from model_compression.models.external import INPUT_SHAPE, build_external, has_num_classes, is_external, library_of
from model_compression.models.foreign_weights import find_own_weights, own_tensors
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import check_sizes, find_weights, load_tensors, read_header, read_tensors


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
    check_sizes(module, str(source))
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
    if name.startswith(GIVEN):
        raise WeightsMismatchError(f"no name builds the {name.removeprefix(GIVEN)} that was given")
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


def read_model(path: str | Path) -> Network:
    """Builds the network that a weights file names, with its weights in float32 and its preprocessing."""
    header = read_header(path)
    try:
        with bounded_by(Path(path), header["options"]):
            model = build_named(header["model"], header["options"], None, from_file=True)
        _fill(model, path)
    except UsageError as error:
        raise FileFormatError(f"{path}: {error}") from None
    except WeightsMismatchError as error:
        name = header["model"].removeprefix(GIVEN)
        if NAME.fullmatch(name) is None:
            raise
        named = seen_from_here(path)
        way = f'load_model("mynets:build", weights="{named}")'
        if speaks_flags():
            way = f"{settings(model='mynets:build', weights=named)} for test and export; in Python {way}"
        raise WeightsMismatchError(
            f"{named} is not of the network that {name} builds; it was given from Python as a module. Name "
            f"what builds it: {way} ({error})"
        ) from None
    return model


def _fill(model: Network, path: str | Path, head: Head = frozenset) -> tuple[str, ...]:
    """Gives ``model`` weights, preprocessing and facts of a file of this package; see `load_own_weights`."""
    header = read_header(path)
    tensors, mean_image = read_tensors(path, header)
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
