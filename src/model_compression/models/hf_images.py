"""What the image processor beside a network of transformers does to pixels, read and then compared with the processor.

Its fields are read, as they are exact, and its code is run on a few images: where both disagree, a field means
something that is not known here, and the network is refused.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.models.preprocessing import Preprocessing

_TOLERANCE = 0.02  # of a normalised value: a processor may round resized pixels to whole numbers
_FIELDS = (
    "do_rescale", "rescale_factor", "rescale_offset", "do_normalize", "image_mean", "image_std", "include_top",
    "do_center_crop", "do_resize", "do_flip_channel_order",
)  # fmt: skip
_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40))


def hf_preprocessing(path: str) -> Preprocessing | None:
    """What the image processor beside a Hugging Face model does to pixels; None where there is none.

    Raises UsageError where the processor itself computes something else than was read.
    """
    base = importlib.import_module("transformers.image_processing_base")
    try:
        values, _ = base.ImageProcessingMixin.get_image_processor_dict(path)
    except OSError:
        return None
    processor = _processor(path)
    # Of what the file leaves out the class knows the defaults.
    own = {field: getattr(processor, field) for field in _FIELDS if hasattr(processor, field)}
    found = _read({**values, **own})
    if processor is not None:
        _check(found, processor, path)
    return found


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
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"hf:{path}: its image processor takes no RGB images: {reason}") from error
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
