"""Networks of timm, torchvision and Hugging Face's transformers, with the preprocessing that each declares."""

import difflib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from model_compression.core.errors import MissingExtraError, ModelCompressionError, UnknownNameError, UsageError
from model_compression.core.files import user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.models.hf_images import hf_preprocessing
from model_compression.models.preprocessing import Preprocessing

_OF_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
_ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network of a library.

    ``options`` build the same architecture again, without weights and without a network connection. ``preprocessing``
    is that of the weights it came with; None for fresh ones. ``size`` (H, W) is what the architecture insists on.
    """

    module: nn.Module
    options: dict[str, Any]
    preprocessing: Preprocessing | None = None
    size: tuple[int, int] | None = None


def build_timm(name: str, options: Mapping[str, Any]) -> Built:
    """A network of timm; the option ``pretrained`` fetches weights from the hub, the others are its builder's."""
    rest = {key: value for key, value in options.items() if key != "pretrained"}
    pretrained = bool(options.get("pretrained", False))
    for key in _OF_FILES:
        if key in rest:  # older versions of timm unpickle what these name
            raise UsageError(f"{key} is no option of timm:{name} here; give a file of weights as {setting('weights')}")
    module = _library("timm", "timm").create_model(name, pretrained=pretrained, **rest)
    declared = module.pretrained_cfg
    size = _pair(rest["img_size"]) if "img_size" in rest else _pair(declared["input_size"][1:])
    if not pretrained:
        fixed = declared.get("fixed_input_size", False) or "img_size" in rest
        return Built(module=module, options=rest, size=size if fixed else None)
    resolved = _library("timm.data", "timm").resolve_model_data_config(module)
    preprocessing = Preprocessing(mean=tuple(resolved["mean"]), std=tuple(resolved["std"]), size=size)
    return Built(module=module, options=rest, preprocessing=preprocessing)


def check_timm(name: str) -> None:
    """Raises UnknownNameError, with near matches, when timm has no such network."""
    timm = _library("timm", "timm")
    architecture = name.partition(".")[0]  # before the name of the weights
    if ":" not in name and not timm.is_model(architecture):  # with a colon it is one of the hub's
        raise _no_such("timm", architecture, timm.list_models(), "timm.list_models() lists them")


def build_torchvision(name: str, options: Mapping[str, Any]) -> Built:
    """A network of torchvision; the option ``pretrained`` fetches weights: true for the default ones, or their name.

    With another ``num_classes`` than the weights are for, what does not fit, the last layer, starts afresh.
    """
    models = _library("torchvision", "torchvision").models
    rest = {key: value for key, value in options.items() if key != "pretrained"}
    pretrained = options.get("pretrained", False)
    if not pretrained:
        return Built(module=models.get_model(name, weights=None, **rest), options=rest)
    known = models.get_model_weights(name)
    wanted = "DEFAULT" if pretrained is True else str(pretrained)
    if wanted not in known.__members__:
        raise unknown_name(f"weights of torchvision:{name}:", wanted, list(known.__members__))
    weights = known[wanted]
    module = models.get_model(name, weights=weights, **{k: v for k, v in rest.items() if k != "num_classes"})
    if rest.get("num_classes", len(weights.meta["categories"])) != len(weights.meta["categories"]):
        module = _refitted(models.get_model(name, weights=None, **rest), module)
    transforms = weights.transforms()
    size = _pair(transforms.crop_size * 2 if len(transforms.crop_size) == 1 else transforms.crop_size)
    preprocessing = Preprocessing(mean=tuple(transforms.mean), std=tuple(transforms.std), size=size)
    return Built(module=module, options=rest, preprocessing=preprocessing)


def check_torchvision(name: str) -> None:
    """Raises UnknownNameError, with near matches, when torchvision has no such network."""
    known = _library("torchvision", "torchvision").models.list_models()
    if name not in known:
        raise _no_such("torchvision", name, known, "torchvision.models.list_models() lists them")


def build_hf(name: str, options: Mapping[str, Any]) -> Built:
    """An image classifier of transformers, from a local folder or the hub, with its weights unless ``pretrained`` is
    false.

    ``num_classes`` other than its own starts its last layer afresh; ``config`` holds a whole configuration, in the
    place of the one in the folder; further options override values of it. Code from the hub is never run.
    """
    transformers = _library("transformers", "hf")
    folder = user_path(name)
    if "config" not in options and not folder.is_dir() and not _ON_THE_HUB.fullmatch(name):
        raise UsageError(f"hf:{name} is no folder here, and networks on the hub are named USER/NAME")
    path = str(folder) if folder.is_dir() else name
    rest = {key: value for key, value in options.items() if key not in ("pretrained", "num_classes", "config")}
    pretrained, classes = options.get("pretrained", True), options.get("num_classes")
    classifier = transformers.AutoModelForImageClassification
    is_here = folder.is_dir() or ("config" in options and not pretrained)
    with _quiet(transformers), nullcontext() if is_here else quick_without_network():
        if "config" in options:
            config, unused = transformers.AutoConfig.for_model(**options["config"]), rest
        else:
            config, unused = transformers.AutoConfig.from_pretrained(
                path, return_unused_kwargs=True, trust_remote_code=False, **rest
            )
        if unused:
            raise unknown_name(f"option of hf:{name}:", next(iter(unused)), sorted(config.to_dict()))
        attention = str(getattr(config, "_attn_implementation", None) or "")
        if "/" in attention:
            raise UsageError(
                f"hf:{name} asks for attention by the code {attention!a:.80} of the hub, which is never run"
            )
        head_is_new = classes is not None and classes != config.num_labels
        if head_is_new:
            config.num_labels = classes
        if not pretrained:
            module = classifier.from_config(config, trust_remote_code=False).float()
        else:
            module, found = classifier.from_pretrained(
                path,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=head_is_new,
                output_loading_info=True,
                trust_remote_code=False,
            )
            if found["missing_keys"] and classes is None:
                missing = ", ".join(sorted(found["missing_keys"])[:4])
                raise UsageError(
                    f"{name} has no weights for {missing}: it is no trained classifier; train it as a student first"
                )
        preprocessing = hf_preprocessing(path) if pretrained else None
    values = {"config": json.loads(config.to_json_string(use_diff=False))}
    size = getattr(config, "image_size", None)
    return Built(module=module, options=values, preprocessing=preprocessing, size=_pair(size) if size else None)


def _refitted(fresh: nn.Module, trained: nn.Module) -> nn.Module:
    """``fresh`` with every weight of ``trained`` that has the shape of its own."""
    state = fresh.state_dict()
    same = {key: value for key, value in trained.state_dict().items() if state[key].shape == value.shape}
    fresh.load_state_dict({**state, **same})
    return fresh


def _library(package: str, extra: str) -> Any:
    """The package. Raises MissingExtraError where there is none, ModelCompressionError where it does not start."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise MissingExtraError(package, extra, f"a network {extra}:NAME") from None
        raise ModelCompressionError(f"{package} cannot be imported: {error}; install it anew") from error
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision's, beside a torch of another build
        raise ModelCompressionError(
            f"{package} is installed and cannot be imported: {str(error).partition(chr(10))[0]}; "
            "torch and torchvision must be of one build (both for the CPU, or both for the same CUDA)"
        ) from error


def _no_such(library: str, name: str, known: list[str], remedy: str) -> UnknownNameError:
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(other) for other in near)}? " if near else ""
    return UnknownNameError(f"unknown {library} model {name!r}; {hint}{remedy}")


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' bars and tables; what was wrong is raised."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
