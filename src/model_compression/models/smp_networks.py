"""Networks of segmentation-models-pytorch, "smp:ARCHITECTURE", with the preprocessing of their encoder."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.models.libraries import Built, library
from model_compression.models.preprocessing import Preprocessing

_ENCODER = "resnet34"


def build_smp(name: str, options: Mapping[str, Any]) -> Built:
    """A network for segmentation; the option ``pretrained`` fetches ImageNet's weights for its encoder.

    ``encoder_name`` is by default "resnet34"; the others are those of ``segmentation_models_pytorch.create_model``.
    """
    smp = _library()
    rest = {key: value for key, value in options.items() if key not in ("pretrained", "num_classes")}
    if "encoder_weights" in rest or "classes" in rest:
        raise UsageError(
            f"smp:{name} takes num_classes and pretrained here, instead of classes and encoder_weights; give a "
            f"weights file as {setting('weights')}"
        )
    encoder, pretrained = rest.get("encoder_name", _ENCODER), options.get("pretrained", False)
    if pretrained not in (True, False):
        raise UsageError(f"pretrained of smp:{name} must be true, for ImageNet's weights, or false, got {pretrained!r}")
    weights = "imagenet" if pretrained else None
    classes = options.get("num_classes", 2)
    preprocessing = None
    with quick_without_network() if pretrained else nullcontext():
        module = smp.create_model(name, **{"encoder_name": encoder, **rest}, encoder_weights=weights, classes=classes)
        declared = smp.encoders.get_preprocessing_params(encoder, pretrained=weights) if pretrained else None
    if declared is not None:
        white = 1 / declared.get("input_range", (0, 1))[1]  # some take pixels up to 255
        mean, std = (tuple(white * value for value in declared[key]) for key in ("mean", "std"))
        preprocessing = Preprocessing(
            mean=mean, std=std, channel_order="bgr" if declared.get("input_space") == "BGR" else "rgb"
        )
    return Built(module=module, options={**rest, "num_classes": classes}, preprocessing=preprocessing)


def check_smp(name: str) -> None:
    """Raises UnknownNameError, with near matches, when there is no such architecture."""
    known = sorted(_library().MODEL_ARCHITECTURES_MAPPING)
    if name not in known:
        raise unknown_name("smp architecture", name, known)


def _library() -> Any:
    return library("segmentation_models_pytorch", "segmentation", "segmentation-models-pytorch", "smp")
