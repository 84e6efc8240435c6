"""Datasets of the Hugging Face hub, or saved to disk by its library, which are decoded when they are asked for."""

import io
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, MissingExtraError, UsageError
from model_compression.core.files import user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.data.dataset import Dataset, Labels, class_numbers
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import decode_image, scale
from model_compression.data.on_demand import Images, OnDemandImages, Rows, mean_and_std

_KEYS = ("config", "image", "label", "test", "train")
_TEST = ("test", "validation", "valid", "val")
_LABELS = ("label", "labels", "class", "target", "category")
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class HubImages:
    """The column ``column`` of encoded images of a split, as RGB of one size."""

    split: Any
    column: str
    name: str
    sizes_bytes: Rows
    size: tuple[int, int]
    """Height and width."""
    is_scaled: bool
    threads: int = 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return (3, *self.size)

    def decode(self, number: int) -> Images:
        """The image (3, H, W). Raises DataError with its number."""
        image = decode_image(io.BytesIO(self.content(number)), self.describe(number))
        if not self.is_scaled and image.size != self.size[::-1]:
            raise DataError(
                f"images of {self.name} differ in size: the first is {self.size[1]} × {self.size[0]} pixels, number "
                f"{number} {image.width} × {image.height}; give a side to scale them to, as {setting('image_size', 64)}"
            )
        return scale(image, self.size if self.is_scaled else None)

    def identity(self, number: int) -> bytes:
        """Its encoded size in bytes."""
        return str(self.sizes_bytes[number]).encode()

    def content(self, number: int) -> bytes:
        """The encoded image."""
        encoded = self.split[number][self.column]
        if encoded is None or not (encoded["bytes"] or encoded["path"]):
            raise DataError(f"image {number} of {self.name} is missing")
        try:
            return encoded["bytes"] or Path(encoded["path"]).read_bytes()
        except OSError as error:
            raise DataError(f"{self.describe(number)} cannot be read: {error}") from None

    def describe(self, number: int) -> str:
        """What an error calls an image: its number, and its file where there is one."""
        encoded = self.split[number][self.column]
        file = f" ({encoded['path']})" if encoded and encoded["path"] else ""
        return f"image {number} of {self.name}{file}"


def load_hugging_face(
    text: str, image_size: int = 0, report: Callable[[str], None] | None = None
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``text``, as "NAME" or "NAME,label=fine_label,config=plain_text".

    NAME is a dataset of the hub, a folder that `save_to_disk` wrote, or one of files that the library reads. The
    splits are "train", and "test" or "validation", unless ``train=`` and ``test=`` name others; without one for the
    test a fifth of each class is held out. The image column and the label column are found by their types, unless
    ``image=`` and ``label=`` name them; labels are class labels, integers, or texts, which become classes in sorted
    order. ``image_size`` as in `load_folder`.

    Raises MissingExtraError without the library (extra 'hf'), UsageError for names that are not there, DataError.
    """
    name, _, rest = text.partition(",")
    options = _options(rest)
    splits = _splits(name.strip(), options.get("config"))
    train_name = _choose("split", options.get("train", "train"), splits, name)
    test_name = options.get("test") or next((split for split in _TEST if split in splits), None)
    say = report or (lambda text: None)
    parts = {f"{name} ({train_name})": splits[train_name]}
    if test_name is not None:
        test_name = _choose("split", test_name, splits, name)
        parts[f"{name} ({test_name})"] = splits[test_name]
    for title, split in parts.items():
        if len(split) == 0:
            raise DataError(f"{title} holds no images")
    columns = {title: _image_column(split, options, title) for title, split in parts.items()}
    labels, classes = _labels(parts, options)
    made: list[Dataset] = []
    for (title, split), own in zip(parts.items(), labels, strict=True):
        images = _images(split, columns[title], title, image_size)
        mean, std = (made[0].mean, made[0].std) if made else mean_and_std(images.sample())
        made.append(
            Dataset(
                name=title, images=images, labels=own, class_names=classes, mean=mean, std=std, source="Hugging Face"
            )
        )
    if len(made) == 1:
        return hold_out_test(made[0], f"{name} has no split for the test", say)
    whole, test = made
    if test.image_shape != whole.image_shape:
        sizes = [f"{width} × {height}" for _, height, width in (whole.image_shape, test.image_shape)]
        raise DataError(
            f"images of {whole.name} are {sizes[0]} pixels, of {test.name} {sizes[1]}; give {setting('image_size')}"
        )
    return whole, test


def _options(text: str) -> dict[str, str]:
    options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        if not (equals and value):
            raise UsageError(f"hf: options are KEY=VALUE with commas between them, as label=fine_label; got {part!r}")
        if key not in _KEYS:
            raise unknown_name("option of hf:", key, list(_KEYS))
        options[key] = value
    return options


def _splits(name: str, config: str | None) -> Mapping[str, Any]:
    """The splits by name; a dataset that was saved alone is "train"."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(error.name or "datasets", "hf", "a Hugging Face dataset") from error
    folder = user_path(name)
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    if saved and config is not None:
        raise UsageError(f"config={config} has no effect: {folder} was saved to disk, with one configuration")
    try:
        if saved:
            loaded = datasets.load_from_disk(str(folder))
        else:
            with nullcontext() if folder.is_dir() else quick_without_network():
                loaded = datasets.load_dataset(name, config)
    except Exception as error:  # the library's own errors, and those of what it reads and downloads with
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise DataError(
            f"hf:{name} cannot be loaded: {reason}; expected a dataset of the hub, a folder that save_to_disk wrote, "
            "or a folder of files that the library reads"
        ) from None
    return loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def _images(split: Any, column: str, name: str, image_size: int) -> OnDemandImages:
    import datasets

    encoded = split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    settings = {"split": encoded, "column": column, "name": name, "sizes_bytes": _sizes_bytes(encoded, column)}
    size = (image_size, image_size)
    if not image_size:
        source = HubImages(**settings, size=size, is_scaled=True)
        first = decode_image(io.BytesIO(source.content(0)), source.describe(0))
        size = (first.height, first.width)
    return OnDemandImages(
        source=HubImages(**settings, size=size, is_scaled=bool(image_size)), rows=np.arange(len(split))
    )


def _sizes_bytes(encoded: Any, column: str) -> Rows:
    """Bytes of each encoded image, from the table's offsets: no image is read. 0 for those that lie in other files."""
    import pyarrow.compute as pc

    parts = [
        pc.fill_null(pc.binary_length(pc.struct_field(table.column(column), "bytes")), 0).to_numpy()
        for table in encoded.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.int64)


def _image_column(split: Any, options: Mapping[str, str], name: str) -> str:
    import datasets

    found: list[str] = [column for column, kind in split.features.items() if isinstance(kind, datasets.Image)]
    if "image" in options:
        return _choose("image column", options["image"], found, name)
    if len(found) != 1:
        raise UsageError(
            f"{name} has {f'the image columns {_join(found)}' if found else 'no image column'}; expected one: "
            f"{'name it, as ,image=' + found[0] if found else 'its columns are ' + _join(split.features)}"
        )
    return found[0]


def _label_column(split: Any, options: Mapping[str, str], name: str) -> str:
    """The column of class labels, else the one of integers, else the one of texts; of several one called "label"."""
    import datasets

    kinds = split.features.items()
    classes: list[str] = [column for column, kind in kinds if isinstance(kind, datasets.ClassLabel)]
    values = {column: kind.dtype for column, kind in kinds if isinstance(kind, datasets.Value)}
    numbers = [column for column, dtype in values.items() if "int" in dtype]
    texts = [column for column, dtype in values.items() if "string" in dtype]
    if "label" in options:
        return _choose("label column", options["label"], classes + numbers + texts, name)
    named = [column for column in (*numbers, *texts) if column.lower() in _LABELS]
    for found in (classes, named, numbers, texts):
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{name} has the label columns {_join(found)}; expected one: name it, as ,label={found[0]}"
            )
    raise UsageError(f"{name} has no label column; expected one: its columns are {_join(split.features)}")


def _label_values(split: Any, column: str, name: str) -> npt.NDArray[Any]:
    values = split[column][:]
    missing = [number for number, value in enumerate(values) if value is None]
    if missing:
        raise DataError(
            f"{name}: {len(missing):,} images have no label in {column!r}, the first is image {missing[0]}; expected a "
            "class for each"
        )
    return np.asarray(values)


def _labels(parts: Mapping[str, Any], options: Mapping[str, str]) -> tuple[list[Labels], tuple[str, ...]]:
    """(class numbers of each of ``parts`` {name: split}, class names): ClassLabel's, else `class_numbers`."""
    columns = {name: _label_column(split, options, name) for name, split in parts.items()}
    given = [_label_values(split, columns[name], name) for name, split in parts.items()]
    orders = {name: tuple(getattr(split.features[columns[name]], "names", None) or ()) for name, split in parts.items()}
    first, *_ = orders
    if len(set(orders.values())) > 1:
        raise DataError(
            f"{' and '.join(orders)} have other classes, or another order of them: "
            f"{'; '.join(', '.join(names) or 'none named' for names in orders.values())}; expected the same"
        )
    if orders[first]:
        unlabelled = next((name for name, labels in zip(orders, given, strict=True) if labels.min() < 0), None)
        if unlabelled is not None:
            raise DataError(f"{unlabelled}: some labels are −1, as the hub marks images without; choose another split")
        return [labels.astype(np.int64) for labels in given], orders[first]
    return class_numbers(given, f"{first}, column {columns[first]!r}")


def _choose(kind: str, name: str, known: Any, dataset: str) -> str:
    if name not in known:
        raise unknown_name(f"{kind} of {dataset}:", name, list(known))
    return name


def _join(names: Any) -> str:
    return ", ".join(names)
