"""Dataset: images and labels, with class names, normalisation and a digest of the content."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, UsageError
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import Images, OnDemandImages, label_bytes

Labels = npt.NDArray[np.int64]

_MAX_CLASSES = 100_000  # a larger label is a number of something else


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images with targets of one task; checked when it is made.

    ``images``: (N, C, H, W) uint8 in memory, or `OnDemandImages`, which are indexed alike and decoded then, or
    `LoaderImages`, of which only the first are known. ``labels``: (N,) int64 in 0…K−1; all 0, and never used, where the
    images are not ``labelled``; without classes (N, …), numbers that ``task`` knows the meaning of. ``class_names``: K
    names, or none. ``mean``, ``std``: C
    values each, for pixels scaled to 0…1. ``digest``: SHA-256 of the content, see content_digest; computed when it is
    not given, not checked again when it is. ``source``: where the content was obtained; ``path``: the file or folder it
    was read from; ``notes``: what was left out, a line each; all for people only.

    Raises DataError when a field is not of this form.
    """

    name: str
    images: Images | OnDemandImages | LoaderImages
    labels: npt.NDArray[Any]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str = ""
    source: str = ""
    path: Path | None = None
    labelled: bool = True
    notes: tuple[str, ...] = ()
    task: str = "image-classification"

    def __post_init__(self) -> None:
        _check_images(self.name, self.images)
        if isinstance(self.images, np.ndarray):  # torch wants no array that is read-only, or has negative strides
            needed = "C" if isinstance(self.images, np.memmap) else "CW"  # a file larger than memory stays one
            object.__setattr__(self, "images", np.require(self.images, requirements=[*needed]))
        if self.class_names or not _is_real(self.labels):
            _check_labels(self.name, self.labels, len(self.images), self.class_names)
        else:
            _check_targets(self.name, self.labels, len(self.images))
        _check_normalisation(self.name, self.mean, self.std, self.images.shape[1])
        if not self.digest:
            images, labels = self.images, self.labels
            digest = content_digest(images, labels) if isinstance(images, np.ndarray) else images.digest(labels)
            object.__setattr__(self, "digest", digest)
        if not re.fullmatch("[0-9a-f]{64}", self.digest):
            raise DataError(f"{self.name}: digest is {self.digest!r}; expected 64 hexadecimal digits (SHA-256)")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def num_outputs(self) -> int:
        """How many numbers a network answers with to one image: one a class, or one a number of its target."""
        return self.num_classes or math.prod(self.labels.shape[1:])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def has_ids(self) -> bool:
        """Whether an image is known by its number, and its pixels from the start: not in a DataLoader's batches."""
        return not isinstance(self.images, LoaderImages)

    @property
    def num_viewable(self) -> int:
        """How many images `thumbnails` can give: the first batch of a DataLoader, else all."""
        return len(self.images.first) if isinstance(self.images, LoaderImages) else len(self)

    def thumbnails(self, rows: npt.NDArray[np.integer]) -> Images:
        """The images (M, C, H, W) at ``rows`` (M,), all below `num_viewable`, to be looked at."""
        return self.images.thumbnails(rows) if isinstance(self.images, LoaderImages) else self.images[rows]

    def class_counts(self) -> npt.NDArray[np.int64]:
        """How many images each class has, (K,); without classes all are of one."""
        return np.bincount(self._strata, minlength=self.num_classes).astype(np.int64)

    @property
    def _strata(self) -> Labels:
        """(N,) the class of each image; without classes all are of one."""
        return self.labels if self.class_names else np.zeros(len(self), dtype=np.int64)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer], name: str | None = None) -> "Dataset":
        """The images at ``indices`` (M,), in that order, as a dataset of its own with its own digest.

        Raises UsageError for an empty list, for indices that are not integers, and for those out of 0…N−1.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
            raise UsageError(
                f"indices into {self.name} have shape {chosen.shape} and dtype {chosen.dtype}; "
                "expected a list of at least one integer"
            )
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise UsageError(
                f"indices into {self.name} run from {chosen.min()} to {chosen.max()}; expected 0 to {len(self) - 1}"
            )
        parent = hashlib.sha256(f"of {self.digest}\n".encode())  # the same whether images are held in memory or read
        parent.update(np.ascontiguousarray(chosen, dtype="<i8").data)
        return replace(
            self,
            name=name or f"{self.name}[{len(chosen)}]",
            images=self.images[chosen] if isinstance(self.images, np.ndarray) else self.images.subset(chosen),
            labels=self.labels[chosen],
            digest=parent.hexdigest(),
        )


def check_pair(train: Dataset, test: Dataset) -> None:
    """Raises DataError unless a training and a test set are of the same classes and number of channels."""
    if train.class_names != test.class_names:
        pairs = zip(train.class_names, test.class_names, strict=False)
        other = next((pair for pair in pairs if pair[0] != pair[1]), None)
        how = (
            f"{len(train.class_names)} and {len(test.class_names)}"
            if other is None
            else f"{other[0]!r} and {other[1]!r}"
        )
        raise DataError(
            f"{train.name} and {test.name} have other classes, or another order of them: {how}; expected the same"
        )
    channels = [dataset.image_shape[0] for dataset in (train, test)]
    if channels[0] != channels[1]:
        raise DataError(
            f"images of {train.name} have {channels[0]} channels, of {test.name} {channels[1]}, not as many"
        )


def class_numbers(given: Sequence[npt.NDArray[Any]], source: str) -> tuple[list[Labels], tuple[str, ...]]:
    """(labels as class numbers, class names) of the label arrays ``given``, (N,) each, of training and test.

    Integers are class numbers already, see `number_classes`; texts are classes in sorted order. Raises DataError for
    other things.
    """
    if all(labels.dtype.kind in "iu" for labels in given):
        numbers = [labels.astype(np.int64) for labels in given]
        return numbers, number_classes(numbers, source)
    wrong = [one for labels in given for one in labels.tolist() if not isinstance(one, str)]
    if wrong:
        mixed = " beside texts" if any(isinstance(one, str) for labels in given for one in labels.tolist()) else ""
        raise DataError(f"{source}: a label is {wrong[0]!r}{mixed}; expected class numbers, 0…K−1, or names, for each")
    names = sorted({one for labels in given for one in labels.tolist()})
    places = {name: number for number, name in enumerate(names)}
    return [np.array([places[one] for one in labels.tolist()], dtype=np.int64) for labels in given], tuple(names)


def number_classes(given: Sequence[npt.NDArray[np.integer]], source: str) -> tuple[str, ...]:
    """Class names "0", "1", … up to the largest label in ``given``, (N,) each, of training and test.

    Raises DataError where labels can be no class numbers, and where they begin with 1: class 0 would have no images.
    """
    smallest, largest = (int(edge(edge(labels) for labels in given)) for edge in (min, max))
    if not 0 <= smallest <= largest < _MAX_CLASSES:
        raise DataError(
            f"{source}: labels run from {smallest} to {largest}; expected class numbers, 0…K−1, of at most "
            f"{_MAX_CLASSES:,} classes"
        )
    if smallest == 1:
        raise DataError(
            f"{source}: labels must be 0…K−1; got 1…{largest}: subtract 1, or name the classes, 0 among them"
        )
    return tuple(map(str, range(largest + 1)))


def content_digest(images: Images, labels: npt.NDArray[Any]) -> str:
    """SHA-256 (hexadecimal) of shape, pixels and labels: two datasets with equal digests train alike.

    ``images``: (N, C, H, W) uint8; ``labels``: (N,) integers or (N, …) numbers.
    """
    hasher = hashlib.sha256(f"uint8 {'x'.join(str(size) for size in images.shape)}\n".encode())
    hasher.update(np.ascontiguousarray(images).data)
    hasher.update(label_bytes(labels))
    return hasher.hexdigest()


def _check_images(name: str, images: Images | OnDemandImages | LoaderImages) -> None:
    if not isinstance(images, OnDemandImages | LoaderImages) and (
        not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4
    ):
        raise DataError(
            f"{name}: images are {_describe(images)}; expected a uint8 array of shape (N, C, H, W), pixels 0 to 255"
        )
    if 0 in images.shape:
        raise DataError(f"{name}: images have shape {images.shape}; expected at least one image and one pixel")


def _check_labels(name: str, labels: Labels, num_images: int, class_names: tuple[str, ...]) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (num_images,):
        raise DataError(
            f"{name}: labels are {_describe(labels)}; expected an int64 array of shape ({num_images},), one an image"
        )
    if not class_names or len(set(class_names)) != len(class_names):
        raise DataError(f"{name}: class names are {class_names!r}; expected at least one, no two the same")
    unprintable = [class_name for class_name in class_names if not class_name.isprintable()]
    if unprintable:
        raise DataError(
            f"{name}: the class name {unprintable[0]!a} has characters that cannot be printed; give it another"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if wrong.size:
        raise DataError(
            f"{name}: {wrong.size} labels are out of range, the first is {labels[wrong[0]]} of image {wrong[0]}; "
            f"expected 0 to {len(class_names) - 1}"
        )


def _is_real(labels: Any) -> bool:
    """Whether they are numbers that are no classes."""
    return isinstance(labels, np.ndarray) and labels.dtype.kind == "f"


def _check_targets(name: str, targets: npt.NDArray[Any], num_images: int) -> None:
    if targets.shape[:1] != (num_images,):
        raise DataError(
            f"{name}: targets without classes are {_describe(targets)}; expected an array of {num_images} rows of "
            "numbers, one an image, or class names"
        )
    if not np.isfinite(targets).all():
        raise DataError(f"{name}: targets are NaN or infinite; expected finite numbers")


def _check_normalisation(name: str, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    if len(mean) != channels or len(std) != channels or not all(np.isfinite((*mean, *std))) or min(std) <= 0:
        raise DataError(
            f"{name}: mean is {mean} and std {std}; expected {channels} finite values each, std > 0, "
            "for pixels scaled to 0 to 1"
        )


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
