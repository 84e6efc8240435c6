"""Networks of timm, "timm:NAME", with the preprocessing that their weights declare."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.core.fitting import Fitting
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.options import setting
from model_compression.models.libraries import Built, library, no_such, pair
from model_compression.models.preprocessing import Preprocessing

_OF_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


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
    size = pair(rest["img_size"]) if "img_size" in rest else pair(declared["input_size"][1:])
    if not pretrained:
        fixed = declared.get("fixed_input_size", False) or "img_size" in rest
        return Built(module=module, options=rest, size=size if fixed else None)
    resolved = library("timm.data", "timm").resolve_model_data_config(module)
    return Built(module=module, options=rest, preprocessing=replace(timm_preprocessing(resolved), size=size))


def preprocessing_of_tag(name: str) -> Preprocessing | None:
    """What timm declares for the weights that ``name`` has a tag of, as resnet18.a1_in1k; None without a tag."""
    if "." not in name or ":" in name:
        return None
    resolve = library("timm.data", "timm").resolve_data_config
    declared = resolve(pretrained_cfg=library("timm", "timm").get_pretrained_cfg(name).to_dict())
    return timm_preprocessing(declared)


def timm_preprocessing(resolved: Mapping[str, Any]) -> Preprocessing:
    """Of what timm's ``resolve_data_config`` gives."""
    return Preprocessing(
        mean=tuple(resolved["mean"]),
        std=tuple(resolved["std"]),
        size=pair(resolved["input_size"][1:]),
        fitting=_fitting(resolved),
    )


def _fitting(resolved: Mapping[str, Any]) -> Fitting:
    fit = {"squash": "squash", "border": "pad"}.get(resolved["crop_mode"], "crop")
    share = 1.0 if fit == "pad" else resolved["crop_pct"]
    return Fitting.from_dict({"fit": fit, "crop_share": share, "interpolation": resolved["interpolation"]})


def check_timm(name: str) -> None:
    """Raises UnknownNameError, with near matches, when timm has no such network."""
    timm = library("timm", "timm")
    architecture = name.partition(".")[0]  # before the name of the weights
    if ":" not in name and not timm.is_model(architecture):  # with a colon it is one of the hub's
        raise no_such("timm", architecture, timm.list_models(), "timm.list_models() lists them")
