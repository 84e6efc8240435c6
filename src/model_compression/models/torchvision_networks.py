"""Networks of torchvision, "torchvision:NAME", with the preprocessing that their weights declare."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.fitting import Fitting
from model_compression.core.registry import unknown_name
from model_compression.models.embeddings import take_head_off
from model_compression.models.libraries import Built, library, no_such, pair
from model_compression.models.preprocessing import Preprocessing


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
    module, transforms = _trained(models, name, pretrained, rest)
    return Built(module=module, options=rest, preprocessing=torchvision_preprocessing(transforms))


def torchvision_preprocessing(transforms: Any) -> Preprocessing:
    """Of the transforms for evaluation that come with weights of torchvision."""
    crop = transforms.crop_size
    return Preprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        size=pair(crop * 2 if len(crop) == 1 else crop),
        fitting=Fitting("crop", crop[0] / transforms.resize_size[0], transforms.interpolation.value),
    )


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
        module, transforms = _trained(models, name, pretrained, rest, weights_backbone=None)
        preprocessing = Preprocessing(mean=tuple(transforms.mean), std=tuple(transforms.std))
    if getattr(module, "aux_classifier", None) is not None:
        module.aux_classifier = None
    return Built(module=module, options=rest, preprocessing=preprocessing)


def _trained(
    models: Any, name: str, pretrained: Any, options: Mapping[str, Any], **fresh: Any
) -> tuple[nn.Module, Any]:
    """(the network with the weights that ``pretrained`` names, the transforms that come with them).

    For another ``num_classes`` it is built anew, also with the options ``fresh``; what does not fit stays as it begins.
    """
    weights = torchvision_weights(models, name, pretrained)
    module = models.get_model(name, weights=weights, **{k: v for k, v in options.items() if k != "num_classes"})
    classes = len(weights.meta["categories"])
    if options.get("num_classes", classes) != classes:
        module = _refitted(models.get_model(name, weights=None, **fresh, **options), module)
    return module, weights.transforms()


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
        raise no_such("torchvision", name, known, "torchvision.models.list_models() lists them")


def _refitted(fresh: nn.Module, trained: nn.Module) -> nn.Module:
    """``fresh`` with every weight of ``trained`` that has the shape of its own."""
    state = fresh.state_dict()
    same = {k: value for k, value in trained.state_dict().items() if k in state and state[k].shape == value.shape}
    fresh.load_state_dict({**state, **same})
    return fresh
