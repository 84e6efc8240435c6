"""Dataset: samples and their targets, with class names, normalisation of images and a digest of the content."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, SizesDifferError, UsageError
from model_compression.core.fitting import Fitting
from model_compression.core.options import setting
from model_compression.data.dataset_checks import (
    ImageSet,
    check_class_names,
    check_images,
    check_labels,
    check_normalisation,
    check_targets,
    is_real,
)
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import Images, label_bytes
from model_compression.data.samples import Arrays, Samples

Labels = npt.NDArray[np.int64]

_ONE_CLASS_EACH = "image-classification"


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Samples with targets of one task; checked when it is made.

    ``samples``: images (N, C, H, W) uint8 in memory, or `OnDemandImages`, which are indexed alike and decoded then, or
    `LoaderImages`, of which only the first are known; or `Samples` of another kind. ``labels``: (N,) int64 in 0…K−1;
    all 0, and never used, where the samples are not ``labelled``; or (N, …), numbers that ``task`` knows the meaning
    of. ``class_names``: K names, or none. ``mean``, ``std``: of images C values each, for pixels scaled to 0…1; of
    others none. ``digest``: SHA-256 of the content, see content_digest; computed when it is not given, not checked
    again when it is. ``source``: where the content was obtained; ``path``: the file or folder it was read from;
    ``notes``: what was left out, a line each; all for people only. ``target_names``: of real targets (N, D) their D
    names, with the unit in brackets, or none. ``target_mean``, ``target_std``: D values each, by which networks see
    real targets scaled, see `target_scale`; or none, as they are. ``fit``: how photographs became images of one size;
    None where they had it.

    Raises DataError when a field is not of this form.
    """

    name: str
    samples: ImageSet | Samples
    labels: npt.NDArray[Any]
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    digest: str = ""
    source: str = ""
    path: Path | None = None
    labelled: bool = True
    notes: tuple[str, ...] = ()
    task: str = _ONE_CLASS_EACH
    fit: Fitting | None = None
    target_names: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.samples, Samples):
            self._check_images(self.samples)
        elif not len(self.samples):
            raise DataError(f"{self.name}: there are no {self.samples.noun}; expected at least one")
        one_each = np.ndim(self.labels) <= 1 or self.task == _ONE_CLASS_EACH
        check_class_names(self.name, self.class_names)
        if one_each and (self.class_names or not is_real(self.labels)):
            check_labels(self.name, self.labels, len(self), self.class_names)
        else:
            check_targets(self.name, self.labels, len(self))
        if not self.digest:
            samples, labels = self.samples, self.labels
            digest = content_digest(samples, labels) if isinstance(samples, np.ndarray) else samples.digest(labels)
            object.__setattr__(self, "digest", digest)
        if not re.fullmatch("[0-9a-f]{64}", self.digest):
            raise DataError(f"{self.name}: digest is {self.digest!r}; expected 64 hexadecimal digits (SHA-256)")

    def _check_images(self, images: ImageSet) -> None:
        check_images(self.name, images)
        if isinstance(images, np.ndarray):  # torch wants no array that is read-only, or has negative strides
            needed = "C" if isinstance(images, np.memmap) else "CW"  # a file larger than memory stays one
            object.__setattr__(self, "samples", np.require(images, requirements=[*needed]))
        check_normalisation(self.name, self.mean, self.std, images.shape[1])

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def images(self) -> ImageSet:
        """The samples. Raises UsageError where they are no images, for what serves images only."""
        if isinstance(self.samples, Samples):
            raise UsageError(f"{self.name} has {self.samples.noun}, and this serves images only")
        return self.samples

    @property
    def noun(self) -> str:
        """What several samples are called, for messages."""
        return self.samples.noun if isinstance(self.samples, Samples) else "images"

    @property
    def holds_images(self) -> bool:
        """Whether the samples are images."""
        return not isinstance(self.samples, Samples)

    @property
    def has_masks(self) -> bool:
        """Whether a target has a number for each pixel of its image, which moves with it."""
        return self.holds_images and self.labels.ndim == 3 and self.labels.shape[1:] == self.image_shape[1:]

    def head(self, count: int) -> "Dataset":
        """The first ``count`` samples, or all, as a dataset of their own; of a DataLoader those of its first batch."""
        if not isinstance(self.samples, LoaderImages):
            return self.subset(np.arange(min(count, len(self))))
        samples, labels = self.samples.head(count, self.labels)
        return replace(self, samples=samples, labels=labels, digest="")

    def first(self, count: int) -> Arrays:
        """The first ``count`` samples, or all, as a network takes them: images as pixels."""
        if isinstance(self.samples, Samples):
            return self.samples.take(np.arange(min(count, len(self))))
        return self.samples[:count]

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def num_outputs(self) -> int:
        """How many numbers a row of answers has: one a class, or one a number of a sample's target."""
        return self.num_classes or math.prod(self.labels.shape[1:])

    @property
    def num_logits(self) -> int:
        """How many numbers answer a sample."""
        height, width = self.image_shape[1:] if self.has_masks else (1, 1)
        return self.num_outputs * height * width

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def has_ids(self) -> bool:
        """Whether a sample is known by its number, and its content from the start: not in a DataLoader's batches."""
        return not isinstance(self.samples, LoaderImages)

    @property
    def num_viewable(self) -> int:
        """How many images `thumbnails` can give: of a DataLoader its first batch, of samples of other kinds none."""
        if isinstance(self.samples, Samples):
            return 0
        return len(self.samples.first) if isinstance(self.samples, LoaderImages) else len(self)

    def thumbnails(self, rows: npt.NDArray[np.integer]) -> Images:
        """The images (M, C, H, W) at ``rows`` (M,), all below `num_viewable`, to be looked at."""
        return self.images.thumbnails(rows) if isinstance(self.images, LoaderImages) else self.images[rows]

    def class_counts(self) -> npt.NDArray[np.int64]:
        """How many samples each class has, (K,); all are of one where they have no single class each."""
        return np.bincount(self._strata, minlength=self.num_classes).astype(np.int64)

    @property
    def one_each(self) -> bool:
        """Whether each sample has one class."""
        return bool(self.class_names) and self.labels.ndim == 1

    @property
    def _strata(self) -> Labels:
        """(N,) the class of each sample; all are of one where they have no single class each."""
        return self.labels if self.one_each else np.zeros(len(self), dtype=np.int64)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer], name: str | None = None) -> "Dataset":
        """The samples at ``indices`` (M,), in that order, as a dataset of its own with its own digest.

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
            samples=self.samples[chosen] if isinstance(self.samples, np.ndarray) else self.samples.subset(chosen),
            labels=self.labels[chosen],
            digest=parent.hexdigest(),
        )


def check_pair(train: Dataset, test: Dataset) -> None:
    """Raises DataError unless a training and a test set are of the same classes, kind and number of channels."""
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
    if isinstance(train.samples, Samples) or isinstance(test.samples, Samples):
        if type(train.samples) is not type(test.samples):
            raise DataError(f"{train.name} and {test.name} hold samples of different kinds; expected one kind")
        return
    channels = [dataset.image_shape[0] for dataset in (train, test)]
    if channels[0] != channels[1]:
        raise DataError(
            f"images of {train.name} have {channels[0]} channels, of {test.name} {channels[1]}, not as many"
        )


def check_same_size(train: Dataset, test: Dataset) -> None:
    """Raises SizesDifferError unless a training and a test set, taken as they are, have images of one size."""
    if test.image_shape != train.image_shape:
        sizes = [f"{width} × {height}" for _, height, width in (train.image_shape, test.image_shape)]
        raise SizesDifferError(
            f"images of {train.path or train.name} are {sizes[0]} pixels, of {test.path or test.name} {sizes[1]}; "
            f"give {setting('image_size', 224)}"
        )


def content_digest(images: Images, labels: npt.NDArray[Any]) -> str:
    """SHA-256 (hexadecimal) of shape, pixels and labels: two datasets with equal digests train alike.

    ``images``: (N, C, H, W) uint8; ``labels``: (N,) integers or (N, …) numbers.
    """
    hasher = hashlib.sha256(f"uint8 {'x'.join(str(size) for size in images.shape)}\n".encode())
    hasher.update(np.ascontiguousarray(images).data)
    hasher.update(label_bytes(labels))
    return hasher.hexdigest()
