"""Data given as objects instead of a name: arrays, texts in lists, PyTorch datasets, DataLoaders."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from model_compression.api.array_targets import array_targets
from model_compression.api.text_lists import are_texts, datasets_of_texts
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import GIVEN, LOADERS
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import DataError, UsageError
from model_compression.core.options import option_of
from model_compression.core.run_options import with_values
from model_compression.data.class_numbers import class_numbers
from model_compression.data.dataset import Dataset
from model_compression.data.masks import TASK as MASKS
from model_compression.data.masks import masks_of_arrays, number_classes
from model_compression.data.placement import place_images
from model_compression.data.sources import samples_of
from model_compression.data.table_targets import REGRESSION
from model_compression.data.target_scale import scaled
from model_compression.data.task_views import EMBEDDING
from model_compression.data.torch_datasets import from_loaders, from_torch_datasets
from model_compression.engine.observer import Observer

Arrays = Sequence[npt.NDArray[Any] | torch.Tensor | None]
GivenData = (
    tuple[Dataset, Dataset]
    | tuple[TorchDataset[Any], TorchDataset[Any]]
    | tuple[DataLoader[Any], DataLoader[Any]]
    | Arrays
    | Sequence[Sequence[Any] | None]
)

_EXPECTED = (
    "expected a name, as 'folder:photos', a pair (training, test) of datasets or of DataLoaders, or four arrays: "
    "training images, training labels or masks, test images, test labels or masks; or four such lists of texts"
)
_SHOWN = 4
_AS_THEY_ARE = (
    "the DataLoaders are taken as they are: teacher and student see their batches without another normalisation, the "
    "teacher answers each batch anew and is not compared with the labels beforehand, and a resumed run does not end "
    "with the weights of an uninterrupted one"
)


def given_data(
    data: GivenData, config: DataConfig, observer: Observer, networks: Sequence[str] = ()
) -> tuple[tuple[Dataset, Dataset], str]:
    """(training set, test set) of ``data``, held or streamed as ``config`` says, and what the data is called.

    ``networks`` may bring the tokenizer of texts, see `datasets_of_texts`.

    Raises UsageError for what is none of the forms, or holds something else than it should.
    """
    report = observer.message
    if not isinstance(data, Sequence):
        raise UsageError(f"data is a {type(data).__name__}; {_EXPECTED}")
    for name in ("image_size", "data_dir"):
        if getattr(config, name):
            raise UsageError(f"{name} {getattr(config, name)!r} has no effect on data that are given as objects")
    if len(data) == 2 and all(isinstance(part, DataLoader) for part in data):
        _check_as_they_are(config)
        if config.unlabelled:
            raise UsageError("unlabelled has no effect on DataLoaders; give one of these images for the training")
        report(_AS_THEY_ARE)
        return from_loaders(data[0], data[1]), LOADERS  # type: ignore[arg-type]
    if len(data) == 2 and all(isinstance(part, Dataset) for part in data):
        pair, name = data, f"{GIVEN}arrays"
    elif len(data) == 2 and all(isinstance(part, TorchDataset) for part in data):
        pair = from_torch_datasets(data[0], data[1], report, judged=config.task != EMBEDDING)  # type: ignore[arg-type]
        name = f"{GIVEN}{type(data[0]).__name__}"
    elif len(data) == 4 and are_texts(data, config.task):
        pair, name = datasets_of_texts(data, config, networks), f"{GIVEN}texts"
    elif len(data) == 4:
        pair, name = _from_arrays(data, config), f"{GIVEN}arrays"  # type: ignore[arg-type]
    else:
        raise UsageError(f"data has {len(data)} parts ({_kinds(data)}); {_EXPECTED}")
    train, test = pair
    if config.unlabelled:
        train = samples_of(config.unlabelled, train, report, config.fitting, config.table)  # type: ignore[arg-type]
    return place_images(train, test, config.resident, config.workers, report, crops=config.crops), name  # type: ignore[arg-type]


def _kinds(data: Sequence[Any]) -> str:
    return ", ".join(type(part).__name__ for part in data[:_SHOWN]) + (", …" if len(data) > _SHOWN else "")


def with_loaders_settings(config: TrainConfig, train_set: Dataset) -> TrainConfig:
    """``config`` as it holds where ``train_set`` is a DataLoader's batches: of their size, and no answers stored.

    Raises UsageError for another batch size.
    """
    if train_set.has_ids:
        return config
    own, default = train_set.num_viewable, TrainConfig(student=config.student).batch_size
    if "batch_size" not in config.left_open and config.batch_size not in (own, default):
        raise UsageError(f"batch_size {config.batch_size} has no effect on DataLoaders; these give batches of {own}")
    return with_values(config, {"batch_size": own, "teacher_cache": "off"})


def _check_as_they_are(config: DataConfig) -> None:
    for field in dataclasses.fields(config):
        said = option_of(field)
        is_of_views = said.affects == "result" and (said.answers or said.needs is not None)
        if (is_of_views or said.affects == "speed") and getattr(config, field.name) != field.default:
            raise UsageError(
                f"{field.name} {getattr(config, field.name)!r} has no effect on DataLoaders, which are taken as they "
                "are; give the datasets in their place, or leave it out"
            )


def _from_arrays(data: Arrays, config: DataConfig) -> tuple[Dataset, Dataset]:
    train_images, train_given, test_images, test_given = map(_array, data)
    judged = config.task != EMBEDDING or test_given is not None
    if test_images is not None and not judged:  # by no labels
        train_given, test_given = None, np.zeros(len(test_images), np.int64)
    if train_images is None or test_images is None or test_given is None:
        raise UsageError(f"an array is None; {_EXPECTED}; of them only the training labels may be None")
    labelled = train_given is not None
    given = [labels for labels in (train_given, test_given) if labels is not None]
    targets = array_targets(given, config.task)
    for what, images, labels in (("training", train_images, train_given), ("test", test_images, test_given)):
        _check_arrays(what, images, labels, one_each=targets is None)
    if train_images.shape[1] != test_images.shape[1]:
        raise UsageError(
            f"training images have {train_images.shape[1]} channels, test images {test_images.shape[1]}, not as many"
        )
    try:
        if targets is not None:
            numbers, classes = targets.values, targets.names
            task = {"task": targets.kind}
        elif test_given.ndim == 3:
            sides = (("training", train_given, train_images), ("test", test_given, test_images))
            numbers = [
                masks_of_arrays(what, one, images.shape, config.ignore_index)
                for what, one, images in sides
                if one is not None
            ]
            classes, task = number_classes(numbers), {"task": MASKS}
        else:
            class_labels, classes = class_numbers(given, "the arrays")
            numbers, task = [*class_labels], {}
    except DataError as error:  # here they are arguments
        raise UsageError(str(error)) from None
    train_labels = numbers[0] if labelled else np.zeros((len(train_images), *numbers[0].shape[1:]), numbers[0].dtype)
    pixels = train_images.transpose(1, 0, 2, 3).reshape(train_images.shape[1], -1) / np.float32(255)
    settings: dict[str, Any] = {
        "target_names" if task.get("task") == REGRESSION else "class_names": classes,
        **task,
        "mean": tuple(float(channel.mean(dtype=np.float64)) for channel in pixels),
        "std": tuple(max(float(channel.std(dtype=np.float64)), 1e-5) for channel in pixels),
    }
    return scaled(
        Dataset(name="arrays", samples=train_images, labels=train_labels, labelled=labelled, **settings),
        Dataset(name="arrays-test", samples=test_images, labels=numbers[-1], labelled=judged, **settings),
        config.table,
    )


def _check_arrays(what: str, images: npt.NDArray[Any], labels: npt.NDArray[Any] | None, *, one_each: bool) -> None:
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        raise UsageError(
            f"{what} images are {images.shape}, channels last; expected (N, C, H, W): give images.transpose(0, 3, 1, 2)"
        )
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) < 2:
        raise UsageError(
            f"{what} images are {images.dtype} of shape {images.shape}; expected uint8 (N, C, H, W), pixels of 0 "
            f"to 255, at least two images{'' if images.dtype == np.uint8 else _REMEDIES.get(images.dtype.kind, '')}"
        )
    if labels is not None and not one_each and len(labels) != len(images):
        raise UsageError(f"there are {len(images)} {what} images and {len(labels)} labels; expected one for each")
    if not one_each or (labels is not None and labels.ndim == 3):
        return  # several classes, numbers, masks
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iuUOT"):
        raise UsageError(
            f"{what} labels are {labels.dtype} of shape {labels.shape}; expected class numbers or names "
            f"({len(images)},){_ONE_HOT if labels.ndim == 2 else ''}"
        )


_ONE_HOT = (
    ": give labels.argmax(axis=1) where each row is an image's, labels[:, 0] where it is one number, "
    "or task='multi-label'"
)
# by the kind of number that pixels are
_REMEDIES = {
    "f": ": give (images * 255).round().astype(np.uint8) where 1 is white",
    "b": ": give images.astype(np.uint8) * 255",
    "u": ": give (images >> 8).astype(np.uint8) where 65535 is white",
}


def _array(part: npt.NDArray[Any] | torch.Tensor | None) -> npt.NDArray[Any] | None:
    if part is None:
        return None
    try:
        return part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
    except ValueError:
        raise UsageError(
            "a list in data has rows of several lengths, which make no array: images must have one size, and several "
            "classes of a sample are a row of 0 and 1, as MultiLabelBinarizer of sklearn gives them"
        ) from None
