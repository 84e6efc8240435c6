"""Networks of timm, torchvision and Hugging Face's transformers, with the preprocessing that each declares."""

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from model_compression.core.errors import (
    MissingExtraError,
    ModelCompressionError,
    UnknownNameError,
    UsageError,
    WeightsMismatchError,
)
from model_compression.core.files import user_path
from model_compression.core.fitting import Fitting
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.models.bounded import bounded_by, bounded_by_memory
from model_compression.models.embeddings import take_head_off
from model_compression.models.hf_images import hf_preprocessing
from model_compression.models.preprocessing import Preprocessing

_OF_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network of a library.

    ``options`` build the same architecture again, without weights and without a network connection. ``preprocessing``
    is that of the weights it came with; None for fresh ones. ``size`` (H, W) is what the architecture insists on.
    ``facts`` are what its own files state of its answers, as names of classes.
    """

    module: nn.Module
    options: dict[str, Any]
    preprocessing: Preprocessing | None = None
    size: tuple[int, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def build_timm(name: str, options: Mapping[str, Any]) -> Built:
    """A network of timm; the option ``pretrained`` fetches weights from the hub, the others are its builder's."""
    rest = {key: value for key, value in options.items() if key != "pretrained"}
    pretrained = bool(options.get("pretrained", False))
    for key in _OF_FILES:
        if key in rest:  # older versions of timm unpickle what these name
            raise UsageError(f"{key} is no option of timm:{name} here; give a file of weights as {setting('weights')}")
    with quick_without_network() if pretrained else nullcontext():
        module = library("timm", "timm").create_model(name, pretrained=pretrained, **rest)
    declared = module.pretrained_cfg
    size = _pair(rest["img_size"]) if "img_size" in rest else _pair(declared["input_size"][1:])
    if not pretrained:
        fixed = declared.get("fixed_input_size", False) or "img_size" in rest
        return Built(module=module, options=rest, size=size if fixed else None)
    resolved = library("timm.data", "timm").resolve_model_data_config(module)
    return Built(module=module, options=rest, preprocessing=replace(_of_timm(resolved), size=size))


def preprocessing_of_tag(name: str) -> Preprocessing | None:
    """What timm declares for the weights that ``name`` has a tag of, as resnet18.a1_in1k; None without a tag."""
    if "." not in name or ":" in name:
        return None
    resolve = library("timm.data", "timm").resolve_data_config
    declared = resolve(pretrained_cfg=library("timm", "timm").get_pretrained_cfg(name).to_dict())
    return _of_timm(declared)


def _of_timm(resolved: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(
        mean=tuple(resolved["mean"]),
        std=tuple(resolved["std"]),
        size=_pair(resolved["input_size"][1:]),
        fitting=timm_fitting(resolved),
    )


def timm_fitting(resolved: Mapping[str, Any]) -> Fitting:
    """Of what timm's ``resolve_data_config`` gives."""
    fit = {"squash": "squash", "border": "pad"}.get(resolved["crop_mode"], "crop")
    share = 1.0 if fit == "pad" else resolved["crop_pct"]
    return Fitting.from_dict({"fit": fit, "crop_share": share, "interpolation": resolved["interpolation"]})


def check_timm(name: str) -> None:
    """Raises UnknownNameError, with near matches, when timm has no such network."""
    timm = library("timm", "timm")
    architecture = name.partition(".")[0]  # before the name of the weights
    if ":" not in name and not timm.is_model(architecture):  # with a colon it is one of the hub's
        raise _no_such("timm", architecture, timm.list_models(), "timm.list_models() lists them")


def build_torchvision(name: str, options: Mapping[str, Any]) -> Built:
    """A network of torchvision; the option ``pretrained`` fetches weights: true for the default ones, or their name.

    With another ``num_classes`` than the weights are for, what does not fit, the last layer, starts afresh. With 0 it
    has no head. Of one for segmentation ``pretrained`` may be "backbone"; its auxiliary head is left out.
    """
    if options.get("num_classes") == 0:
        built = build_torchvision(name, {key: value for key, value in options.items() if key != "num_classes"})
        take_head_off(built.module, f"torchvision:{name}")
        return replace(built, options={**built.options, "num_classes": 0})
    models = library("torchvision", "torchvision").models
    if name in models.list_models(module=models.segmentation):
        return _for_segmentation(models, name, options)
    rest = {key: value for key, value in options.items() if key != "pretrained"}
    pretrained = options.get("pretrained", False)
    if not pretrained:
        return Built(module=models.get_model(name, weights=None, **rest), options=rest)
    weights = torchvision_weights(models, name, pretrained)
    module = models.get_model(name, weights=weights, **{k: v for k, v in rest.items() if k != "num_classes"})
    if rest.get("num_classes", len(weights.meta["categories"])) != len(weights.meta["categories"]):
        module = _refitted(models.get_model(name, weights=None, **rest), module)
    transforms = weights.transforms()
    size = _pair(transforms.crop_size * 2 if len(transforms.crop_size) == 1 else transforms.crop_size)
    preprocessing = Preprocessing(
        mean=tuple(transforms.mean), std=tuple(transforms.std), size=size, fitting=torchvision_fitting(transforms)
    )
    return Built(module=module, options=rest, preprocessing=preprocessing)


def torchvision_fitting(transforms: Any) -> Fitting:
    """Of the transforms for evaluation that come with weights of torchvision."""
    return Fitting("crop", transforms.crop_size[0] / transforms.resize_size[0], transforms.interpolation.value)


def _for_segmentation(models: Any, name: str, options: Mapping[str, Any]) -> Built:
    rest = {key: value for key, value in options.items() if key not in ("pretrained", "aux_loss")}
    pretrained = options.get("pretrained", False)
    if "weights_backbone" in rest:
        raise UsageError(f"torchvision:{name} takes pretrained=backbone, instead of weights_backbone")
    preprocessing = None
    if pretrained in (False, "backbone"):
        backbone = {} if pretrained else {"weights_backbone": None}
        module = models.get_model(name, weights=None, **backbone, **rest)
    else:
        weights = torchvision_weights(models, name, pretrained)
        module = models.get_model(name, weights=weights, **{k: v for k, v in rest.items() if k != "num_classes"})
        if rest.get("num_classes", len(weights.meta["categories"])) != len(weights.meta["categories"]):
            module = _refitted(models.get_model(name, weights=None, weights_backbone=None, **rest), module)
        transforms = weights.transforms()
        preprocessing = Preprocessing(mean=tuple(transforms.mean), std=tuple(transforms.std))
    if getattr(module, "aux_classifier", None) is not None:
        module.aux_classifier = None
    return Built(module=module, options=rest, preprocessing=preprocessing)


def torchvision_weights(models: Any, name: str, pretrained: Any) -> Any:
    """The weights that the option ``pretrained`` names. Raises UnknownNameError."""
    known = models.get_model_weights(name)
    wanted = "DEFAULT" if pretrained is True else str(pretrained)
    if wanted not in known.__members__:
        raise unknown_name(f"weights of torchvision:{name}:", wanted, list(known.__members__))
    return known[wanted]


def check_torchvision(name: str) -> None:
    """Raises UnknownNameError, with near matches, when torchvision has no such network."""
    known = library("torchvision", "torchvision").models.list_models()
    if name not in known:
        raise _no_such("torchvision", name, known, "torchvision.models.list_models() lists them")


def build_hf(name: str, options: Mapping[str, Any]) -> Built:
    """An image classifier of transformers, or with ``num_classes`` 0 its backbone, from a local folder or the hub.

    It has its weights unless ``pretrained`` is false.

    ``num_classes`` other than its own starts its last layer afresh; ``config`` holds a whole configuration, instead of
    the one in the folder; further options override values of it. Code from the hub is never run.
    """
    transformers = library("transformers", "hf")
    folder = user_path(name)
    if "config" not in options and not folder.is_dir() and not ON_THE_HUB.fullmatch(name):
        raise UsageError(f"hf:{name} is no folder here, and networks on the hub are named USER/NAME")
    path = str(folder) if folder.is_dir() else name
    rest = {key: value for key, value in options.items() if key not in ("pretrained", "num_classes", "config")}
    pretrained, classes = options.get("pretrained", True), options.get("num_classes")
    headless = classes == 0
    loader = transformers.AutoModel if headless else transformers.AutoModelForImageClassification
    is_here = folder.is_dir() or ("config" in options and not pretrained)
    with quiet(transformers), nullcontext() if is_here else quick_without_network():
        if "config" in options:
            config, unused = transformers.AutoConfig.for_model(**options["config"]), rest
        else:
            config, unused = transformers.AutoConfig.from_pretrained(
                path, return_unused_kwargs=True, trust_remote_code=False, **rest
            )
        if unused:
            raise unknown_name(f"option of hf:{name}:", next(iter(unused)), sorted(config.to_dict()))
        refuse_foreign_attention(config, name)
        head_is_new = not headless and classes is not None and classes != config.num_labels
        if head_is_new:
            config.num_labels = classes
        own = _without_pooler(transformers, config) if headless else {}
        if not pretrained:
            with bounded_by_memory(f"hf:{name}", rest):
                module = loader.from_config(config, trust_remote_code=False, **own).float()
        else:
            complete = "backbone" if headless else "classifier" if classes is None else ""
            module = load_pretrained(loader, config, name, head_is_new=head_is_new, complete=complete, **own)
        preprocessing = hf_preprocessing(path) if pretrained else None
    values = {"config": json.loads(config.to_json_string(use_diff=False)), **({"num_classes": 0} if headless else {})}
    if headless and hasattr(module, "vision_model"):  # of a network of images and texts, as CLIP
        module, config = module.vision_model, config.vision_config
    size = getattr(config, "image_size", None)
    return Built(module=module, options=values, preprocessing=preprocessing, size=_pair(size) if size else None)


def load_pretrained(
    loader: Any, config: Any, name: str, *, head_is_new: bool, complete: str, **options: Any
) -> nn.Module:
    """The network of ``loader``, a class of transformers, with the weights of the folder ``name`` or of the hub.

    Raises WeightsMismatchError where they are of other shapes, unless ``head_is_new``, and UsageError where some are
    missing and it must be ``complete``, which says as what: "classifier" or "backbone"; "" where it need not.
    """
    folder = user_path(name)
    with bounded_by(folder, config.to_dict()) if folder.is_dir() else nullcontext():
        module, found = loader.from_pretrained(
            str(folder) if folder.is_dir() else name,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            **options,
        )
    if found["mismatched_keys"] and not head_is_new:
        key, *shapes = min(found["mismatched_keys"])  # a set, in an order that changes from process to process
        there, expected = (tuple(shape) for shape in shapes)
        raise WeightsMismatchError(
            f"{name}: its weights do not fit its config.json: {key}: found {there}, expected {expected}"
        )
    if found["missing_keys"] and complete:
        missing = ", ".join(sorted(found["missing_keys"])[:4])
        raise UsageError(
            f"{name} has no weights for {missing}: it is no trained {complete}; train it as a student first"
        )
    network: nn.Module = module
    return network


def refuse_foreign_attention(config: Any, name: str) -> None:
    """Raises UsageError where a configuration names code of the hub that computes attention."""
    attention = str(getattr(config, "_attn_implementation", None) or "")
    if "/" in attention:
        raise UsageError(f"hf:{name} asks for attention by the code {attention!a:.80} of the hub, which is never run")


def _without_pooler(transformers: Any, config: Any) -> dict[str, Any]:
    """The option that leaves out a layer behind the class token, which many published weights do not have."""
    kind = transformers.AutoModel._model_mapping.get(type(config), None)
    kind = kind[0] if isinstance(kind, tuple) else kind
    takes = kind is not None and "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


def build_open_clip(name: str, options: Mapping[str, Any]) -> Built:
    """The image tower of a network of OpenCLIP, ARCHITECTURE or ARCHITECTURE.WEIGHTS, as ViT-B-32.laion2b_s34b_b79k.

    The option ``pretrained`` fetches the weights that the name says, or that it says itself. It has no classes.
    """
    clip = library("open_clip", "open_clip", "open-clip-torch")
    architecture, _, tag = name.partition(".")
    if architecture not in clip.list_models():
        raise _no_such("open_clip", architecture, clip.list_models(), "open_clip.list_models() lists them")
    if options.get("num_classes", 0) != 0:
        raise UsageError(f"open_clip:{name} is an image tower without classes: give {setting('task', 'embedding')}")
    wanted = options.get("pretrained", False)
    tag = wanted if isinstance(wanted, str) else tag
    if wanted and not tag:
        known = ", ".join(clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UsageError(f"open_clip:{name} does not say which weights: write open_clip:{name}.WEIGHTS, of {known}")
    rest = {key: value for key, value in options.items() if key not in ("pretrained", "num_classes")}
    model = clip.create_model(architecture, pretrained=tag if wanted else None, **rest)
    how = clip.get_model_preprocess_cfg(model)
    size = _pair(how["size"])
    preprocessing = (
        Preprocessing(mean=tuple(how["mean"]), std=tuple(how["std"]), size=size, fitting=open_clip_fitting(how))
        if wanted
        else None
    )
    return Built(module=model.visual, options={**rest, "num_classes": 0}, preprocessing=preprocessing, size=size)


def open_clip_fitting(how: Mapping[str, Any]) -> Fitting:
    """Of what OpenCLIP says of the images of weights."""
    fit = {"squash": "squash", "longest": "pad"}.get(how.get("resize_mode", "shortest"), "crop")
    return Fitting.from_dict({"fit": fit, "interpolation": how.get("interpolation", "bicubic")})


def _refitted(fresh: nn.Module, trained: nn.Module) -> nn.Module:
    """``fresh`` with every weight of ``trained`` that has the shape of its own."""
    state = fresh.state_dict()
    same = {k: value for k, value in trained.state_dict().items() if k in state and state[k].shape == value.shape}
    fresh.load_state_dict({**state, **same})
    return fresh


def library(package: str, extra: str, project: str = "", prefix: str = "") -> Any:
    """The package. Raises MissingExtraError where there is none, ModelCompressionError where it does not start."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise MissingExtraError(project or package, extra, f"a network {prefix or extra}:NAME") from None
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
def quiet(transformers: Any) -> Iterator[None]:
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
