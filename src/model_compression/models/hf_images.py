"""What the image processor beside a network of transformers does to pixels, read and then compared with the processor.

Its fields are read, as they are exact, and its code is run on a few images: where both disagree, a field means
something that is not known here, and the network is refused.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from model_compression.core.errors import UsageError, reason_of, shown
from model_compression.core.fitting import Fitting
from model_compression.core.options import setting
from model_compression.models.preprocessing import Preprocessing, is_side

_TOLERANCE = 0.02  # of a normalised value: a processor may round resized pixels to whole numbers
_FIELDS = (
    "do_rescale", "rescale_factor", "rescale_offset", "do_normalize", "image_mean", "image_std", "include_top",
    "do_center_crop", "do_resize", "do_flip_channel_order", "resample", "crop_pct",
)  # fmt: skip
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_SQUASHED = 384  # pixels, from which on ConvNeXt's processor keeps no shape
_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40))


def hf_preprocessing(path: str) -> Preprocessing | None:
    """What the image processor beside a Hugging Face model does to pixels; None where there is none.

    Raises UsageError where the processor itself computes something else than was read.
    """
    values = _values(path)
    if values is None:
        return None
    for field, value in values.items():  # the processor resizes to what they say
        numbers = [leaf for leaf in tree_leaves(value) if type(leaf) in (int, float)]
        if "size" in field and not all(map(is_side, numbers)):
            raise UsageError(
                f"hf:{path}: {field} of its image processor must be from 1 to 2048 pixels, got {shown(value)}"
            )
    processor = _processor(path)
    found = _read(_with_defaults(values, processor))
    if processor is not None:
        _check(found, processor, path)
    return found


def declared_by_hf(path: str) -> Preprocessing | None:
    """What the fields of the image processor beside a Hugging Face model say; None where there is none."""
    values = _values(path)
    return None if values is None else _read(_with_defaults(values, _processor(path)))


def _values(path: str) -> dict[str, Any] | None:
    """The fields in the file of the image processor; None where there is none."""
    base = importlib.import_module("transformers.image_processing_base")
    try:
        values: dict[str, Any] = base.ImageProcessingMixin.get_image_processor_dict(path)[0]
    except OSError:
        return None
    return values


def _with_defaults(values: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """``values``, and of what the file leaves out the defaults, which the class knows."""
    return {**values, **{field: getattr(processor, field) for field in _FIELDS if hasattr(processor, field)}}


def _fitting(values: Mapping[str, Any]) -> Fitting | None:
    """Cropped where the shorter side is named, else squashed."""
    size = values.get("size")
    if not size or not values.get("do_resize", True):
        return None
    resample = values.get("resample")
    by = "bilinear" if resample is None else _FILTERS[int(resample)]
    sides = isinstance(size, Mapping) and "height" in size
    whole = min(_size(size))
    share = min(_size(values["crop_size"])) / whole if values.get("do_center_crop") and values.get("crop_size") else 1.0
    if values.get("crop_pct") and not sides:  # ConvNeXt's, which squashes large images
        sides, share = whole >= _SQUASHED, 1.0 if whole >= _SQUASHED else values["crop_pct"]
    return Fitting.from_dict({"fit": "squash" if sides else "crop", "crop_share": min(1.0, share), "interpolation": by})


def _read(values: Mapping[str, Any]) -> Preprocessing:
    scale = 255 * (values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0)  # of white
    offset = 1.0 if values.get("do_rescale", True) and values.get("rescale_offset") else 0.0
    normalised = values.get("do_normalize", True) and values.get("image_mean") is not None
    mean, std = (values["image_mean"], values["image_std"]) if normalised else ((0.0,) * 3, (1.0,) * 3)
    again = std if values.get("include_top") else (1.0,) * len(std)  # EfficientNet's, which divides twice
    size = values.get("crop_size") if values.get("do_center_crop") else values.get("size")
    return Preprocessing(
        mean=tuple((value + offset) / scale for value in mean),
        std=tuple(value * twice / scale for value, twice in zip(std, again, strict=True)),
        channel_order="bgr" if values.get("do_flip_channel_order") else "rgb",
        size=_size(size) if size and values.get("do_resize", True) else None,
        fitting=_fitting(values),
    )


def _size(size: Any) -> tuple[int, int]:
    """(H, W) of what an image processor calls a size: a number, both sides, or the shorter one."""
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _processor(path: str) -> Any:
    """The processor itself; None where its file does not say which one it is, or it needs a library that is missing."""
    transformers = importlib.import_module("transformers")
    try:
        return transformers.AutoImageProcessor.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError):
        return None


def _check(found: Preprocessing, processor: Any, path: str) -> None:
    """Raises UsageError unless ``processor`` gives what ``found`` gives, in the middle of plain images."""
    height, width = found.size or (64, 64)
    images = torch.tensor(_COLOURS, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, height, width).contiguous()
    try:
        theirs = processor(images=list(images), return_tensors="pt", data_format="channels_first")["pixel_values"]
    except Exception as error:  # of code that may want other images
        raise UsageError(f"hf:{path}: its image processor takes no RGB images: {reason_of(error)}") from error
    ours = found(images)
    a, b = (_middle(one) for one in (ours, torch.as_tensor(theirs).float()))
    if a.shape != b.shape or not bool(((a - b).abs() <= _TOLERANCE * b.abs().clamp(min=1)).all()):
        theirs_said, ours_said = (", ".join(f"{value:.3g}" for value in one[-1].tolist()) for one in (b, a))
        raise UsageError(
            f"hf:{path}: its image processor ({type(processor).__name__}) makes {theirs_said} of a pixel "
            f"{_COLOURS[-1]}, where its fields say {ours_said}; remove its preprocessor_config.json and say how it was "
            f"trained: {setting('teacher_mean')} and {setting('teacher_std')}"
        )


def _middle(images: Tensor) -> Tensor:
    """(B, C) of the pixel in the middle."""
    return images[..., images.shape[-2] // 2, images.shape[-1] // 2]
