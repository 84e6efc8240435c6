"""What the parts of a dataset must be like. Each check raises DataError, with the dataset's name."""

from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import Images, OnDemandImages

ImageSet = Images | OnDemandImages | LoaderImages


def check_images(name: str, images: ImageSet) -> None:
    """Images (N, C, H, W) uint8, at least one."""
    if not isinstance(images, OnDemandImages | LoaderImages) and (
        not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4
    ):
        raise DataError(
            f"{name}: images are {_describe(images)}; expected a uint8 array of shape (N, C, H, W), pixels 0 to 255"
        )
    if 0 in images.shape:
        raise DataError(f"{name}: images have shape {images.shape}; expected at least one image and one pixel")


def check_labels(name: str, labels: npt.NDArray[np.int64], num_images: int, class_names: tuple[str, ...]) -> None:
    """Class numbers (N,) of the classes that there are."""
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (num_images,):
        raise DataError(
            f"{name}: labels are {_describe(labels)}; expected an int64 array of shape ({num_images},), one an image"
        )
    if not class_names:
        raise DataError(f"{name}: class names are {class_names!r}; expected at least one, no two the same")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if wrong.size:
        raise DataError(
            f"{name}: {wrong.size} labels are out of range, the first is {labels[wrong[0]]} of image {wrong[0]}; "
            f"expected 0 to {len(class_names) - 1}"
        )


def check_class_names(name: str, class_names: tuple[str, ...]) -> None:
    """Names that differ and can be printed."""
    if len(set(class_names)) != len(class_names):
        raise DataError(f"{name}: class names are {class_names!r}; expected at least one, no two the same")
    unprintable = [class_name for class_name in class_names if not class_name.isprintable()]
    if unprintable:
        raise DataError(
            f"{name}: the class name {unprintable[0]!a} has characters that cannot be printed; give it another"
        )


def is_real(labels: Any) -> bool:
    """Whether they are numbers that are no classes."""
    return isinstance(labels, np.ndarray) and labels.dtype.kind == "f"


def check_targets(name: str, targets: npt.NDArray[Any], count: int) -> None:
    """Finite numbers, a row for each of ``count`` samples."""
    if not isinstance(targets, np.ndarray) or targets.dtype.kind not in "fiub" or targets.shape[:1] != (count,):
        raise DataError(
            f"{name}: targets are {_describe(targets)}; expected an array of {count} rows of numbers, one a sample"
        )
    wrong = np.flatnonzero(~np.isfinite(targets).reshape(count, -1).all(axis=1))
    if wrong.size:
        raise DataError(f"{name}: the target of sample {wrong[0]} is NaN or infinite; expected finite numbers")


def check_normalisation(name: str, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Mean and deviation of each channel."""
    if len(mean) != channels or len(std) != channels or not all(np.isfinite((*mean, *std))) or min(std) <= 0:
        raise DataError(
            f"{name}: mean is {mean} and std {std}; expected {channels} finite values each, std > 0, "
            "for pixels scaled to 0 to 1"
        )


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
