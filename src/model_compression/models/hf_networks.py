"""Networks of transformers, "hf:FOLDER" or "hf:USER/NAME": those of images, and what those of texts share with them."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from model_compression.core.errors import UsageError, WeightsMismatchError
from model_compression.core.files import user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.registry import unknown_name
from model_compression.models.bounded import bounded_by, bounded_by_memory
from model_compression.models.hf_images import hf_preprocessing
from model_compression.models.libraries import Built, library, pair

ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")


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
    return Built(module=module, options=values, preprocessing=preprocessing, size=pair(size) if size else None)


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
