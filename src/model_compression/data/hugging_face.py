"""Data sets of the Hugging Face hub, or saved to disk by its library, which are decoded when they are asked for."""

import io
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_compression.data.dataset import Dataset, Labels, hold_out_test, numbered_classes
from model_compression.data.image_files import decode_image, scaled
from model_compression.data.lazy import Images, LazyImages, Rows, mean_and_std
from model_compression.errors import DataError, MissingExtraError, UsageError
from model_compression.files import user_path
from model_compression.hub_connection import quick_without_network
from model_compression.registry import unknown_name

_KEYS = ("config", "image", "label", "test", "train")
_TEST = ("test", "validation", "valid", "val")
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
        image = decode_image(io.BytesIO(self.content(number)), self.told(number))
        if not self.is_scaled and image.size != self.size[::-1]:
            raise DataError(
                f"images of {self.name} differ in size: the first is {self.size[1]} × {self.size[0]} pixels, number "
                f"{number} {image.width} × {image.height}; give a side to scale them to, as --image-size 64"
            )
        return scaled(image, self.size if self.is_scaled else None)

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
            raise DataError(f"{self.told(number)} cannot be read: {error}") from None

    def told(self, number: int) -> str:
        """What an error calls an image: its number, and its file where there is one."""
        encoded = self.split[number][self.column]
        file = f" ({encoded['path']})" if encoded and encoded["path"] else ""
        return f"image {number} of {self.name}{file}"


def load_hugging_face(
    text: str, image_size: int = 0, report: Callable[[str], None] | None = None
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``text``, as "NAME" or "NAME,label=fine_label,config=plain_text".

    NAME is a data set of the hub, a folder that `save_to_disk` wrote, or one of files that the library reads. The
    splits are "train", and "test" or "validation", unless ``train=`` and ``test=`` name others; without one for the
    test a fifth of each class is held out. The image column and the label column are found by their types, unless
    ``image=`` and ``label=`` name them. ``image_size`` as in `load_folder`.

    Raises MissingExtraError without the library (extra 'hf'), UsageError for names that are not there, DataError.
    """
    name, _, rest = text.partition(",")
    options = _options(rest)
    splits = _splits(name.strip(), options.get("config"))
    train_name = _chosen("split", options.get("train", "train"), splits, name)
    test_name = options.get("test") or next((split for split in _TEST if split in splits), None)
    whole = _dataset(splits[train_name], f"{name} ({train_name})", options, image_size)
    if test_name is None:
        return hold_out_test(whole, f"{name} has no split for the test", report or (lambda text: None))
    test_name = _chosen("split", test_name, splits, name)
    test = _dataset(splits[test_name], f"{name} ({test_name})", options, image_size, like=whole)
    if test.image_shape != whole.image_shape:
        sizes = [f"{width} × {height}" for _, height, width in (whole.image_shape, test.image_shape)]
        raise DataError(f"images of {whole.name} are {sizes[0]} pixels, of {test.name} {sizes[1]}; give --image-size")
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
    """The splits by name; a data set that was saved alone is "train"."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(error.name or "datasets", "hf", "a Hugging Face data set") from error
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
            f"hf:{name} cannot be loaded: {reason}; expected a data set of the hub, a folder that save_to_disk wrote, "
            "or a folder of files that the library reads"
        ) from None
    return loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def _dataset(
    split: Any, name: str, options: Mapping[str, str], image_size: int, like: Dataset | None = None
) -> Dataset:
    if len(split) == 0:
        raise DataError(f"{name} holds no images")
    image_column, label_column = _image_column(split, options, name), _label_column(split, options, name)
    labels, classes = _labels(split, label_column, name)
    if like is not None:
        classes = like.class_names if len(like.class_names) >= len(classes) else classes
    images = _lazy(split, image_column, name, image_size)
    mean, std = mean_and_std(images.sample()) if like is None else (like.mean, like.std)
    return Dataset(
        name=name, images=images, labels=labels, class_names=classes, mean=mean, std=std, source="Hugging Face"
    )


def _lazy(split: Any, column: str, name: str, image_size: int) -> LazyImages:
    import datasets

    encoded = split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    settings = {"split": encoded, "column": column, "name": name, "sizes_bytes": _sizes_bytes(encoded, column)}
    size = (image_size, image_size)
    if not image_size:
        source = HubImages(**settings, size=size, is_scaled=True)
        first = decode_image(io.BytesIO(source.content(0)), source.told(0))
        size = (first.height, first.width)
    return LazyImages(source=HubImages(**settings, size=size, is_scaled=bool(image_size)), rows=np.arange(len(split)))


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
        return _chosen("image column", options["image"], found, name)
    if len(found) != 1:
        raise UsageError(
            f"{name} has {f'the image columns {_listed(found)}' if found else 'no image column'}; expected one: "
            f"{'name it, as ,image=' + found[0] if found else 'its columns are ' + _listed(split.features)}"
        )
    return found[0]


def _label_column(split: Any, options: Mapping[str, str], name: str) -> str:
    import datasets

    kinds = split.features.items()
    classes: list[str] = [column for column, kind in kinds if isinstance(kind, datasets.ClassLabel)]
    numbers: list[str] = [column for column, kind in kinds if isinstance(kind, datasets.Value) and "int" in kind.dtype]
    if "label" in options:
        return _chosen("label column", options["label"], classes + numbers, name)
    found = classes or numbers
    if len(found) != 1:
        raise UsageError(
            f"{name} has {f'the label columns {_listed(found)}' if found else 'no label column'}; expected one: "
            + (f"name it, as ,label={found[0]}" if found else f"its columns are {_listed(split.features)}")
        )
    return found[0]


def _labels(split: Any, column: str, name: str) -> tuple[Labels, tuple[str, ...]]:
    values = np.asarray(split[column][:])
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{name}: some images have no label in {column!r}; expected a class number for each")
    names = getattr(split.features[column], "names", None)
    classes = tuple(names) if names else numbered_classes(int(values.max()), f"{name}, column {column!r}")
    return values.astype(np.int64), classes


def _chosen(kind: str, name: str, known: Any, dataset: str) -> str:
    if name not in known:
        raise unknown_name(f"{kind} of {dataset}:", name, list(known))
    return name


def _listed(names: Any) -> str:
    return ", ".join(names)
