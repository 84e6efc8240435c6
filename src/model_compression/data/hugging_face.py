"""Datasets of the Hugging Face hub, or saved to disk by its library, which are decoded when they are asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, UsageError
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.masks import IGNORE
from model_compression.data.dataset import Dataset, check_same_size
from model_compression.data.hold_out import hold_out_test
from model_compression.data.hub_images import HubImages
from model_compression.data.hub_labels import label_column, labels_of
from model_compression.data.hub_masks import mask_column, read_masks, table_of
from model_compression.data.hub_splits import choose, opened, training_split
from model_compression.data.hub_targets import hub_targets
from model_compression.data.labelled_table import TEXTS
from model_compression.data.masks import TASK as MASKS
from model_compression.data.masks import ClassTable
from model_compression.data.on_demand import OnDemandImages, Rows, mean_and_std
from model_compression.data.table_targets import REGRESSION
from model_compression.data.target_scale import scaled
from model_compression.data.tokenizers import TokenizerChoice

_TEST = ("test", "validation", "valid", "val")
_ROWS_AT_ONCE = 1000


def load_hugging_face(
    text: str,
    image_size: int = 0,
    report: Callable[[str], None] | None = None,
    fit: Fitting = WHOLE,
    tokens: TokenizerChoice | None = None,
    task: str = "",
    ignore: int = IGNORE,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``text``, as "NAME" or "NAME,label=fine_label,config=plain_text".

    NAME is a dataset of the hub, a folder that `save_to_disk` wrote, or one of files that the library reads. The
    splits are "train", and "test" or "validation", unless ``train=`` and ``test=`` name others; without one for the
    test a fifth of each class is held out. The image column and the label column are found by their types, unless
    ``image=`` and ``label=`` name them; labels are class labels, integers, or texts, which become classes in sorted
    order; lists of them, and numbers, are those of `hub_targets`, as ``task`` says. ``image_size`` and ``fit`` as in
    `load_folder`. A second column of images, which ``mask=`` or its name tells, are masks of class numbers, for the
    task "segmentation"; pixels that are ``ignore`` do not count, and classes.txt in a folder names the classes, as in
    `load_mask_folder`. Without images the samples are texts, in the column that
    ``text=`` names, or lists of words with a list of tags, cut by the tokenizer of ``tokens``.

    Raises MissingExtraError without the library (extra 'hf'), UsageError for names that are not there, DataError.
    """
    name, options, splits, train_name = opened(text)
    test_name = options.get("test") or next((split for split in _TEST if split in splits), None)
    say = report or (lambda text: None)
    parts = {f"{name} ({train_name})": splits[train_name]}
    if test_name is not None:
        test_name = choose("split", test_name, splits, name)
        parts[f"{name} ({test_name})"] = splits[test_name]
    for title, split in parts.items():
        if len(split) == 0:
            raise DataError(f"{title} holds no samples")
    made = _texts(parts, options, tokens or TokenizerChoice())
    if not made and (masks := _mask_columns(parts, options, task)):
        made = _mask_datasets(parts, options, masks, table_of(name), ignore, image_size, fit)
    made = made or _image_datasets(parts, options, image_size, fit, task)
    whole, test = made if len(made) == 2 else hold_out_test(made[0], f"{name} has no split for the test", say)
    if whole.holds_images:
        check_same_size(whole, test)
    return scaled(whole, test)


def _texts(parts: Mapping[str, Any], options: Mapping[str, str], tokens: TokenizerChoice) -> list[Dataset]:
    """The splits as texts; none where they have images."""
    import datasets

    from model_compression.data.hub_texts import labelled_texts, tagged_texts, text_column, words_column

    features = next(iter(parts.values())).features
    if "image" in options or any(isinstance(kind, datasets.Image) for kind in features.values()):
        return []
    if all(map(words_column, parts.values())):
        return tagged_texts(parts, options, tokens)
    if not any(column.lower() in TEXTS for column in features) and "text" not in options:
        return []
    label = {title: label_column(split, options, title) for title, split in parts.items()}
    columns = {title: text_column(split, options, title, label[title]) for title, split in parts.items()}
    labels, classes = labels_of(parts, options)
    return labelled_texts(parts, columns, labels, classes, tokens)


def _image_datasets(
    parts: Mapping[str, Any], options: Mapping[str, str], image_size: int, fit: Fitting, task: str
) -> list[Dataset]:
    images = _images_of(parts, options, {}, image_size, fit)
    targets = hub_targets(parts, options.get("label", ""), task)
    if targets is None:
        labels, classes = labels_of(parts, options)
        named: dict[str, Any] = {"class_names": classes}
    else:
        key = "target_names" if targets.kind == REGRESSION else "class_names"
        labels, named = targets.values, {key: targets.names, "task": targets.kind or "image-classification"}
    return _made(images, labels, **named)


def _mask_columns(parts: Mapping[str, Any], options: Mapping[str, str], task: str) -> dict[str, str]:
    """The column of masks of each part by its title; empty where the images have other labels."""
    found = {title: mask_column(one, _image_columns(one), options, title, task) for title, one in parts.items()}
    return found if all(found.values()) else {}


def _mask_datasets(
    parts: Mapping[str, Any],
    options: Mapping[str, str],
    masks: Mapping[str, str],
    table: ClassTable,
    ignore: int,
    image_size: int,
    fit: Fitting,
) -> list[Dataset]:
    """The splits as images with masks, in the columns ``masks`` by title."""
    if "label" in options:
        raise UsageError(f"hf: label={options['label']} has no effect on images with masks; leave it out")
    images = _images_of(parts, options, masks, image_size, fit)
    labels, classes = read_masks(parts, masks, [*images.values()], table, ignore, scaled=bool(image_size), fit=fit)
    return _made(images, labels, class_names=classes, task=MASKS)


def _images_of(
    parts: Mapping[str, Any], options: Mapping[str, str], masks: Mapping[str, str], image_size: int, fit: Fitting
) -> dict[str, OnDemandImages]:
    """The images of each part by its title, in another column than ``masks``."""
    size = (image_size, image_size) if image_size else None
    columns = {title: _image_column(split, options, title, masks.get(title)) for title, split in parts.items()}
    return {title: _images(split, columns[title], title, size, fit) for title, split in parts.items()}


def _made(images: Mapping[str, OnDemandImages], labels: Sequence[npt.NDArray[Any]], **named: Any) -> list[Dataset]:
    """A dataset for each part, with mean and deviation of the first."""
    mean, std = mean_and_std(next(iter(images.values())).sample())
    return [
        Dataset(name=title, samples=one, labels=own, mean=mean, std=std, source="Hugging Face", **named)
        for (title, one), own in zip(images.items(), labels, strict=True)
    ]


def load_hub_images(text: str, size: tuple[int, int], fit: Fitting) -> tuple[str, OnDemandImages, bool]:
    """(title, images of the training split brought to ``size`` (H, W), whether it has more than them) of ``text``."""
    title, split, options = training_split(text)
    return title, _images(split, _image_column(split, options, title), title, size, fit), len(split.features) > 1


def _images(split: Any, column: str, name: str, size: tuple[int, int] | None, fit: Fitting) -> OnDemandImages:
    import datasets

    encoded = split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    settings = {
        "split": encoded,
        "column": column,
        "name": name,
        "sizes_bytes": _sizes_bytes(encoded, column),
        "fit": fit,
    }
    is_scaled = size is not None
    if size is None:
        first = HubImages(**settings, size=(0, 0), is_scaled=True).first()
        size = (first.height, first.width)
    return OnDemandImages(source=HubImages(**settings, size=size, is_scaled=is_scaled), rows=np.arange(len(split)))


def _sizes_bytes(encoded: Any, column: str) -> Rows:
    """Bytes of each encoded image, from the table's offsets: no image is read. 0 for those that lie in other files."""
    import pyarrow.compute as pc

    parts = [
        pc.fill_null(pc.binary_length(pc.struct_field(table.column(column), "bytes")), 0).to_numpy()
        for table in encoded.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.int64)


def _image_columns(split: Any) -> list[str]:
    import datasets

    return [column for column, kind in split.features.items() if isinstance(kind, datasets.Image)]


def _image_column(split: Any, options: Mapping[str, str], name: str, masks: str | None = None) -> str:
    """The column of images, which is not that of the ``masks``."""
    if len(split) == 0:
        raise DataError(f"{name} holds no images")
    found = [column for column in _image_columns(split) if column != masks]
    if "image" in options:
        return choose("image column", options["image"], found, name)
    if len(found) != 1:
        listed = ", ".join(found)
        raise UsageError(
            f"{name} has {f'the image columns {listed}' if found else 'no image column'}; expected one: "
            f"{'name it, as ,image=' + found[0] if found else 'its columns are ' + ', '.join(split.features)}"
        )
    return found[0]
