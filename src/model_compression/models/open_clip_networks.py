"""Image towers of OpenCLIP, "open_clip:ARCHITECTURE.WEIGHTS", with the preprocessing of their weights."""

from collections.abc import Mapping
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.core.fitting import Fitting
from model_compression.core.options import setting
from model_compression.models.libraries import Built, library, no_such, pair
from model_compression.models.preprocessing import Preprocessing


def build_open_clip(name: str, options: Mapping[str, Any]) -> Built:
    """The image tower of a network of OpenCLIP, ARCHITECTURE or ARCHITECTURE.WEIGHTS, as ViT-B-32.laion2b_s34b_b79k.

    The option ``pretrained`` fetches the weights that the name says, or that it says itself. It has no classes.
    """
    clip = library("open_clip", "open_clip", "open-clip-torch")
    architecture, _, tag = name.partition(".")
    if architecture not in clip.list_models():
        raise no_such("open_clip", architecture, clip.list_models(), "open_clip.list_models() lists them")
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
    size = pair(how["size"])
    preprocessing = open_clip_preprocessing(how) if wanted else None
    return Built(module=model.visual, options={**rest, "num_classes": 0}, preprocessing=preprocessing, size=size)


def open_clip_preprocessing(how: Mapping[str, Any]) -> Preprocessing:
    """Of what OpenCLIP says of the images of weights."""
    return Preprocessing(mean=tuple(how["mean"]), std=tuple(how["std"]), size=pair(how["size"]), fitting=_fitting(how))


def _fitting(how: Mapping[str, Any]) -> Fitting:
    fit = {"squash": "squash", "longest": "pad"}.get(how.get("resize_mode", "shortest"), "crop")
    return Fitting.from_dict({"fit": fit, "interpolation": how.get("interpolation", "bicubic")})
