"""Operations on one image, by torchvision's functional kernels: those of ColorJitter, RandAugment and TrivialAugment.

Names and magnitudes are torchvision's. Geometric operations move a mask along with its image.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from model_compression.core.errors import MissingExtraError

BINS = 31  # steps of magnitudes, the first of which changes nothing
Magnitudes = Callable[[int, int], "np.ndarray[tuple[int], np.dtype[np.float64]]"]


@dataclass(frozen=True)
class Operation:
    """An operation by its name, and how strong it is, in the units of its kernel."""

    name: str
    magnitude: float = 0.0


def _up_to(largest: float) -> Magnitudes:
    return lambda height, width: np.linspace(0.0, largest, BINS)


def _of_side(axis: int) -> Magnitudes:
    return lambda height, width: np.linspace(0.0, 150 / 331 * (height, width)[axis], BINS)


def _bits(fewest: int) -> Magnitudes:
    return lambda height, width: (8 - np.arange(BINS) / ((BINS - 1) / (8 - fewest))).round()


_FALLING: Magnitudes = lambda height, width: np.linspace(1.0, 0.0, BINS)  # noqa: E731  # a threshold, 1 = white
_NONE: Magnitudes = lambda height, width: np.zeros(BINS)  # noqa: E731

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
Space = dict[str, tuple[Magnitudes, bool]]
"""By name: the magnitudes by bin, for the height and width of the image, and whether half of them are negative."""

RANDAUGMENT: Space = {
    "Identity": (_NONE, False),
    "ShearX": (_up_to(0.3), True),
    "ShearY": (_up_to(0.3), True),
    "TranslateX": (_of_side(1), True),
    "TranslateY": (_of_side(0), True),
    "Rotate": (_up_to(30.0), True),
    "Brightness": (_up_to(0.9), True),
    "Color": (_up_to(0.9), True),
    "Contrast": (_up_to(0.9), True),
    "Sharpness": (_up_to(0.9), True),
    "Posterize": (_bits(4), False),
    "Solarize": (_FALLING, False),
    "AutoContrast": (_NONE, False),
    "Equalize": (_NONE, False),
}
"""Cubuk et al. 2019 (arXiv 1909.13719), as torchvision has it."""

TRIVIALAUGMENT: Space = {
    **RANDAUGMENT,
    "ShearX": (_up_to(0.99), True),
    "ShearY": (_up_to(0.99), True),
    "TranslateX": (_up_to(32.0), True),
    "TranslateY": (_up_to(32.0), True),
    "Rotate": (_up_to(135.0), True),
    **{name: (_up_to(0.99), True) for name in ("Brightness", "Color", "Contrast", "Sharpness")},
    "Posterize": (_bits(2), False),
}
"""The wide space of Müller & Hutter 2021 (arXiv 2103.10158), as torchvision has it."""


def kernels(purpose: str) -> Any:
    """torchvision's functional kernels. Raises MissingExtraError, which names ``purpose``."""
    try:
        return importlib.import_module("torchvision.transforms.v2.functional")
    except ImportError as error:
        raise MissingExtraError("torchvision", "torchvision", purpose) from error


def apply_operation(image: Tensor, operation: Operation, fill: Sequence[float]) -> Tensor:
    """``image`` (C, H, W) uint8 after ``operation``; of 1 or 3 channels, unless the operation is geometric.

    ``fill`` (C,) is what comes in from outside of the image.
    """
    name, size = operation.name, operation.magnitude
    if name == "Identity":
        return image
    if name in GEOMETRIC:
        return _moved(image, operation, fill)
    functional = kernels(name)
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        kernel = {"Color": "saturation"}.get(name, name.lower())
        changed: Tensor = getattr(functional, f"adjust_{kernel}")(image, 1.0 + size)
    elif name == "Hue":
        changed = functional.adjust_hue(image, size)
    elif name == "Grey":
        changed = functional.rgb_to_grayscale(image, num_output_channels=len(image))
    elif name == "Posterize":
        changed = functional.posterize(image, bits=int(size))
    elif name == "Solarize":
        changed = functional.solarize(image, threshold=255.0 * size)
    else:  # autocontrast, equalize
        changed = getattr(functional, name.lower())(image)
    return changed


def move_mask(mask: Tensor, operation: Operation, fill: int) -> Tensor:
    """``mask`` (H, W) after a geometric operation, its nearest values; other operations leave it."""
    return mask if operation.name not in GEOMETRIC else _moved(mask[None], operation, [fill])[0]


def _moved(image: Tensor, operation: Operation, fill: Sequence[float]) -> Tensor:
    """Sheared, shifted or turned, with nearest sampling, which torchvision's classes have by default."""
    name, size = operation.name, operation.magnitude
    functional, ground = kernels(name), list(fill)
    if name == "Rotate":
        moved: Tensor = functional.rotate(image, angle=size, fill=ground)
        return moved
    along = [1, 0] if name.endswith("X") else [0, 1]
    if name.startswith("Shear"):
        shear = [math.degrees(math.atan(size)) * part for part in along]
        moved = functional.affine(image, 0.0, [0, 0], 1.0, shear, fill=ground, center=[0, 0])
    else:
        moved = functional.affine(image, 0.0, [int(size) * part for part in along], 1.0, [0.0, 0.0], fill=ground)
    return moved
