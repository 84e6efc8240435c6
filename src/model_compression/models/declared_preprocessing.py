"""How weights were evaluated: what their library, or their file, says of pixels, before the network is built."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.models.base import MODELS
from model_compression.models.external import is_external, library_of
from model_compression.models.hf_images import declared_by_hf
from model_compression.models.libraries import library
from model_compression.models.open_clip_networks import open_clip_preprocessing
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.timm_networks import preprocessing_of_tag, timm_preprocessing
from model_compression.models.torchvision_networks import torchvision_preprocessing, torchvision_weights
from model_compression.models.weights import find_weights, read_header

_TIMM_FOLDER = "local-dir:"


def declared_preprocessing(name: str, options: Mapping[str, Any], weights: str | None = None) -> Preprocessing | None:
    """What was done to images when the weights of the network ``name`` were evaluated; None if unknown, or it is fresh.

    ``options`` go to its builder; ``weights`` is a file that the user names. The network is not built. Raises the
    errors of a wrong name or option.
    """
    kind, _, rest = name.partition(":")
    if library_of(name) == "timm" and weights is not None:
        return preprocessing_of_tag(rest)
    if weights is not None:
        return None
    if library_of(name) is not None:
        pretrained = options.get("pretrained", kind == "hf")
        return _OF_LIBRARIES[kind](rest, pretrained) if pretrained and kind in _OF_LIBRARIES else None
    return None if name in MODELS or is_external(name) else _of_file(find_weights(name))


def _of_timm(name: str, pretrained: Any) -> Preprocessing | None:
    timm = library("timm", "timm")
    if ":" in name:  # of the hub or of a folder, whose config.json says it
        local = name.startswith(_TIMM_FOLDER)
        with nullcontext() if local else quick_without_network():
            read = timm.models.load_model_config_from_path if local else timm.models.load_model_config_from_hf
            config = read(name.partition(":")[2])[0]
    else:
        config = timm.get_pretrained_cfg(name).to_dict()
    return timm_preprocessing(library("timm.data", "timm").resolve_data_config(pretrained_cfg=config))


def _of_torchvision(name: str, pretrained: Any) -> Preprocessing | None:
    models = library("torchvision", "torchvision").models
    if name in models.list_models(module=models.segmentation):
        return None
    return torchvision_preprocessing(torchvision_weights(models, name, pretrained).transforms())


def _of_hf(name: str, pretrained: Any) -> Preprocessing | None:
    library("transformers", "hf")
    folder = user_path(name)
    with nullcontext() if folder.is_dir() else quick_without_network():
        return declared_by_hf(str(folder) if folder.is_dir() else name)


def _of_open_clip(name: str, pretrained: Any) -> Preprocessing | None:
    clip = library("open_clip", "open_clip", "open-clip-torch")
    architecture, _, tag = name.partition(".")
    own = clip.get_pretrained_cfg(architecture, pretrained if isinstance(pretrained, str) else tag)
    size = clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    return open_clip_preprocessing(
        {"mean": clip.OPENAI_DATASET_MEAN, "std": clip.OPENAI_DATASET_STD, "size": size, **own}
    )


_OF_LIBRARIES = {"timm": _of_timm, "torchvision": _of_torchvision, "hf": _of_hf, "open_clip": _of_open_clip}


def _of_file(path: Path) -> Preprocessing | None:
    """What a weights file of this package says."""
    values = read_header(path)["preprocessing"]
    try:
        return Preprocessing.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: the preprocessing in the header is damaged: {error}") from None
