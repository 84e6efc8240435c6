"""PyTorch's own map-style datasets and DataLoaders as datasets of this package."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset
from torch.utils.data import Dataset as TorchDataset

from model_compression.core.errors import DataError, UsageError
from model_compression.data.class_numbers import number_classes
from model_compression.data.dataset import Dataset, Labels
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import Images, OnDemandImages, evenly, mean_and_std

_READ_TWICE = 8  # images that are asked for twice, to see whether they stay the same
_ITEMS = "expected (image, label): a PIL image or a uint8 tensor (C, H, W), and a class number"

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TorchImages:
    """The images of a map-style dataset whose items are (image, label), or images alone."""

    dataset: TorchDataset[Any]
    image_shape: tuple[int, int, int]
    threads: int = 1  # nobody knows whether two may read at a time

    def decode(self, number: int) -> Images:
        """The image (C, H, W) of an item. Raises DataError with its number."""
        try:
            return pixels_of(_parts(self.dataset[number])[0])
        except UsageError as error:
            raise UsageError(f"item {number} of the dataset: {error}") from None
        except Exception as error:  # of code that is not ours
            raise DataError(f"item {number} of the dataset cannot be read: {type(error).__name__}: {error}") from error

    def identity(self, number: int) -> bytes:
        """Nothing: an item is known by being read."""
        return b""

    def content(self, number: int) -> bytes:
        """Its pixels."""
        return self.decode(number).tobytes()


def from_torch_datasets(
    train: TorchDataset[Any], test: TorchDataset[Any], report: Report, *, judged: bool = True
) -> tuple[Dataset, Dataset]:
    """A pair of map-style datasets, of whose items (PIL image or uint8 tensor, label) nothing is held.

    Items of ``train`` without labels make an unlabelled training set, and those of ``test`` an unlabelled test set
    unless the task is ``judged`` by labels. Class names are the dataset's ``classes``, else
    numbers. Raises UsageError for items that are something else, or that differ from one reading to the next.
    """
    sources = [_source(dataset, what) for dataset, what in ((train, "training"), (test, "test"))]
    labels = [_labels(dataset, what, report) for dataset, what in ((train, "training"), (test, "test"))]
    if labels[1] is None and judged:
        raise UsageError(f"items of the test dataset have no labels; {_ITEMS}")
    known = [part for part in labels if part is not None]
    names = _class_names((train, test), known) if known else ("",)
    on_demand = [OnDemandImages(source=source, rows=np.arange(_length(source.dataset))) for source in sources]
    mean, std = mean_and_std(on_demand[0].sample())
    name = type(train).__name__
    made = [
        Dataset(
            name=f"{name}{ending}",
            samples=images,
            labels=np.zeros(len(images), dtype=np.int64) if found is None else found,
            class_names=names,
            mean=mean,
            std=std,
            source="PyTorch dataset",
            labelled=found is not None,
        )
        for images, found, ending in zip(on_demand, labels, ("", "-test"), strict=True)
    ]
    return made[0], made[1]


def from_loaders(train: DataLoader[Any], test: DataLoader[Any]) -> tuple[Dataset, Dataset]:
    """A pair of DataLoaders whose batches are (float images (B, C, H, W), labels (B,)), to be taken as they are.

    The labels of the test images are read once. Raises UsageError for a loader without a length, and other batches.
    """
    for loader, what in ((train, "training"), (test, "test")):
        try:
            len(loader)
        except TypeError:
            raise UsageError(f"the {what} DataLoader has no length; give one of a dataset that has") from None
    first, first_labels = _first(train, "training")
    first_test, _ = _first(test, "test")
    test_labels = torch.cat([check_batch(batch, "test")[1] for batch in test]).long().cpu().numpy()
    names = _class_names((train.dataset, test.dataset), [test_labels, first_labels.long().cpu().numpy()])
    count = _count(train, len(first))
    channels = first.shape[1]
    # What is written into the networks: scaling by 1 / 255 of 255, and no shift, leaves every value as it is.
    as_it_is = {"mean": (0.0,) * channels, "std": (1 / 255,) * channels}
    images = (
        LoaderImages(loader=train, first=first.float().cpu().numpy(), count=count),
        LoaderImages(loader=test, first=first_test.float().cpu().numpy(), count=len(test_labels)),
    )
    labels = (np.zeros(count, dtype=np.int64), test_labels)  # of the training images each batch brings its own
    made = [
        Dataset(name=name, samples=part, labels=own, class_names=names, source="DataLoader", **as_it_is)  # type: ignore[arg-type]
        for name, part, own in zip(("loader", "loader-test"), images, labels, strict=True)
    ]
    return made[0], made[1]


def pixels_of(image: Any) -> Images:
    """(C, H, W) uint8 of a PIL image, grey (C = 1) or RGB, or of a uint8 tensor. Raises UsageError for other things."""
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise UsageError(f"an image has the mode {image.mode!r}, of more than 8 bits; expected 8 bits a channel")
        array = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3:
        return image.cpu().numpy()
    found = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, torch.Tensor) else type(image).__name__
    raise UsageError(
        f"an image of the dataset is {found}; expected a PIL image or a uint8 tensor (C, H, W): leave out ToTensor "
        "and Normalize, which each network does for itself, or give DataLoaders, which are taken as they are"
    )


def _source(dataset: TorchDataset[Any], what: str) -> TorchImages:
    if isinstance(dataset, IterableDataset):
        raise UsageError(
            f"the {what} dataset is a {type(dataset).__name__}: its items come as a stream, without the numbers on "
            "which order, views and stored answers depend; give hf:NAME, whose files are mapped into memory and not "
            "read as a whole, tar:PATTERN for shards of WebDataset, or DataLoaders, which are taken as they are"
        )
    if _length(dataset) < 2:
        raise UsageError(f"the {what} dataset cannot be asked for each of its items, or has fewer than two; {_ITEMS}")
    shape = pixels_of(_parts(dataset[0])[0]).shape
    source = TorchImages(dataset, (shape[0], shape[1], shape[2]))
    for number in range(min(_READ_TWICE, _length(dataset))):
        if not np.array_equal(source.decode(number), source.decode(number)):
            raise UsageError(
                f"item {number} of the {what} dataset is another image each time: it is transformed at random; leave "
                "that to `augmentation` in DataConfig, which teacher and student see alike, or give DataLoaders"
            )
    return source


def _length(dataset: TorchDataset[Any]) -> int:
    try:
        return len(dataset)  # type: ignore[arg-type]  # map-style ones have a length
    except TypeError:
        return 0


def _parts(item: Any) -> tuple[Any, Any]:
    """(image, label) of an item, with None for the label that it does not have."""
    if isinstance(item, Image.Image | torch.Tensor):
        return item, None
    if isinstance(item, Sequence) and not isinstance(item, str | bytes) and len(item) in (1, 2):
        return item[0], item[1] if len(item) == 2 else None
    raise UsageError(f"an item of the dataset is a {type(item).__name__}; {_ITEMS}")


def _labels(dataset: TorchDataset[Any], what: str, report: Report) -> Labels | None:
    """Labels (N,), or None where items have none; read from the dataset's own list where it has one."""
    first = _parts(dataset[0])[1]
    if first is None:
        return None
    listed = _read_list(dataset)
    if listed is not None and all(
        listed[number] == _class_number(_parts(dataset[int(number)])[1]) for number in evenly(len(listed), _READ_TWICE)
    ):
        return listed
    report(f"the {what} dataset lists no labels: each of its {_length(dataset):,} items is read for its own")
    return np.array([_class_number(_parts(dataset[number])[1]) for number in range(_length(dataset))], dtype=np.int64)


def _read_list(dataset: Any) -> Labels | None:
    """The attribute ``targets`` or ``labels`` that datasets by convention have, for a subset its share of it."""
    if isinstance(dataset, Subset):
        whole = _read_list(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices, dtype=np.int64)]
    if getattr(dataset, "target_transform", None) is not None:
        return None  # the list is of what goes into that
    for attribute in ("targets", "labels"):
        try:
            values = np.asarray(getattr(dataset, attribute, None))
        except (TypeError, ValueError, RuntimeError):
            continue
        if values.shape == (_length(dataset),) and np.issubdtype(values.dtype, np.integer):
            return values.astype(np.int64)
    return None


def _class_number(label: Any) -> int:
    value = label.item() if isinstance(label, torch.Tensor | np.generic) and np.ndim(label) == 0 else label
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"a label of the dataset is {label!r}; {_ITEMS}")
    return value


def _class_names(datasets: Sequence[Any], given: Sequence[Labels]) -> tuple[str, ...]:
    """Those that the datasets have, if they are names of all labels. Raises UsageError where the two differ."""
    largest = max(int(labels.max()) for labels in given)
    wholes = [dataset.dataset if isinstance(dataset, Subset) else dataset for dataset in datasets]
    classes = [getattr(whole, "classes", None) for whole in wholes]
    named = [tuple(map(str, names)) for names in classes if isinstance(names, Sequence) and not isinstance(names, str)]
    if len(set(named)) > 1:
        different = sorted(set(named[0]) ^ set(named[1]))
        how = f"only one of them has {', '.join(different[:5])}" if different else "the order differs"
        raise UsageError(
            f"the training and the test dataset have other classes: {how}, so that a class number means one thing "
            "here and another there; give both the same class folders, or the same attribute `classes`"
        )
    if named and len(set(named[0])) == len(named[0]) > largest:
        return named[0]
    return number_classes(given, type(datasets[0]).__name__)


def _first(loader: DataLoader[Any], what: str) -> tuple[torch.Tensor, torch.Tensor]:
    for batch in loader:
        return check_batch(batch, what)
    raise UsageError(f"the {what} DataLoader gives no batches")


def check_batch(batch: Any, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, labels) of a batch of the ``what`` DataLoader. Raises UsageError for a batch of another form."""
    parts: Sequence[Any] = batch if isinstance(batch, Sequence) else ()
    if len(parts) == 2 and all(isinstance(part, torch.Tensor) for part in parts):
        images, labels = parts
        fits = images.ndim == 4 and images.is_floating_point() and labels.shape == images.shape[:1]
        if fits and not labels.is_floating_point() and len(labels) and int(labels.min()) >= 0:
            return images, labels
        found = f"{images.dtype} {tuple(images.shape)} and {labels.dtype} {tuple(labels.shape)}"
    else:
        found = f"a {type(batch).__name__} of {len(parts)} parts" if parts else f"a {type(batch).__name__}"
    raise UsageError(
        f"a batch of the {what} DataLoader is {found}; expected (float images (B, C, H, W), class numbers (B,))"
    )


def _count(loader: DataLoader[Any], batch: int) -> int:
    """How many images a pass shows, or about as many."""
    known = _length(loader.dataset)
    return known if known and not loader.drop_last else len(loader) * batch
