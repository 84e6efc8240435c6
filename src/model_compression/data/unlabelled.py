"""Samples of any source as a training set without labels, of the form of the one whose place they take."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model_compression.core.errors import DataError, NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset
from model_compression.data.dataset_checks import ImageSet
from model_compression.data.folder_files import Files, list_files
from model_compression.data.folder_images import FolderImages
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.texts import Texts
from model_compression.data.unlabelled_texts import load_unlabelled_texts

Report = Callable[[str], None]

_KINDS = ("folder:PATH", "csv:FILE", "tar:PATH", "hf:NAME")


def load_unlabelled(
    text: str,
    like: Dataset,
    registered: Callable[[str], Dataset | None],
    report: Report | None = None,
    fit: Fitting = WHOLE,
    table: TableConfig | None = None,
) -> Dataset:
    """The samples of ``text``, without labels, for the task of ``like``, whose place they take.

    Images are brought to the size of ``like`` and have its mean and deviation; for texts see `load_unlabelled_texts`.
    Of a folder these are all images below it, of tar: those in all shards, of csv: those of all rows, of hf: those of
    the split "train", or which ``train=`` names; of a dataset that is ``registered`` the training images, which must
    have the size. Labels that there are are ignored, which is reported.

    Raises UsageError for another form, and where samples of ``like`` are neither images nor texts; DataError where
    there are no images, or they cannot have the channels of ``like``.
    """
    say, table = report or (lambda line: None), table or TableConfig()
    if isinstance(like.samples, Texts):
        made, has_labels = load_unlabelled_texts(text, like, table)
    elif like.holds_images:
        made, has_labels = _images(text, like, registered, say, fit, table)
    else:
        raise UsageError(f"{setting('unlabelled')} is for images and texts; {like.name} has {like.noun}")
    if has_labels:
        say(f"the labels of {text} are ignored: its {made.noun} are trained on without")
    return replace(made, source=text)


def _images(
    text: str,
    like: Dataset,
    registered: Callable[[str], Dataset | None],
    say: Report,
    fit: Fitting,
    table: TableConfig,
) -> tuple[Dataset, bool]:
    """(images of ``text`` without labels, whether it has any)."""
    prefix, colon, rest = text.partition(":")
    channels, height, width = like.image_shape
    loaders = {"folder": _folder, "csv": _csv, "tar": _tar, "hf": _hub}
    if not colon:
        found = _registered(registered(text), text, like)
    elif prefix not in loaders or not rest.strip():
        raise UsageError(f"{setting('unlabelled')} must be {', '.join(_KINDS)} or a dataset's name, got {text!r}")
    elif prefix in ("tar", "hf") and channels != 3:
        raise DataError(f"images of {text} are RGB, those of {like.name} have {channels} channels, not as many")
    else:
        found = loaders[prefix](rest, (channels, height, width), say, fit, table)
    labels = np.zeros((len(found.images), *like.labels.shape[1:]), dtype=like.labels.dtype)
    made = replace(
        like, name=found.name, samples=found.images, labels=labels, digest="", path=found.path, labelled=False,
        notes=found.notes,
    )  # fmt: skip
    return made, found.has_labels


@dataclass(frozen=True)
class _Found:
    name: str
    images: ImageSet
    has_labels: bool
    path: Path | None = None
    notes: tuple[str, ...] = ()


def _registered(dataset: Dataset | None, name: str, like: Dataset) -> _Found:
    if dataset is None:
        raise unknown_name(f"source of {setting('unlabelled')}:", name, list(_KINDS))
    if not dataset.holds_images or dataset.image_shape != like.image_shape:
        found, expected = (one.image_shape if one.holds_images else one.noun for one in (dataset, like))
        raise DataError(f"{dataset.name} has images {found}, {like.name} {expected}; expected one shape")
    return _Found(dataset.name, dataset.images, dataset.labelled, dataset.path, dataset.notes)


def _folder(path: str, shape: tuple[int, int, int], say: Report, fit: Fitting, table: TableConfig) -> _Found:
    root = user_path(path)
    if not root.exists():
        raise NotThereError(f"{root} is not there; expected a folder that holds images")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds images")
    return _of_files(root.name, list_files(root, ("",), say), shape, fit, has_labels=False)


def _csv(path: str, shape: tuple[int, int, int], say: Report, fit: Fitting, config: TableConfig) -> _Found:
    from model_compression.data.labelled_table import input_column
    from model_compression.data.table import read_table
    from model_compression.data.table_images import files_of

    table = read_table(path, config.encoding, config.delimiter)
    files = files_of(table, input_column(table, config), user_path(config.image_root or table.path.parent))
    return _of_files(table.path.stem, files, shape, fit, has_labels=len(table.header) > 1)


def _of_files(name: str, files: Files, shape: tuple[int, int, int], fit: Fitting, *, has_labels: bool) -> _Found:
    images = OnDemandImages(source=FolderImages(files, shape[1:], True, shape[0], fit), rows=np.arange(len(files)))
    return _Found(name, images, has_labels, files.root, files.notes)


def _tar(text: str, shape: tuple[int, int, int], say: Report, fit: Fitting, table: TableConfig) -> _Found:
    from model_compression.data.tar import TarImages, find_shards
    from model_compression.data.tar_shards import list_shards

    shards = list_shards(find_shards(text), say)
    if not len(shards):
        raise DataError(f"tar:{text}: no images in it; expected KEY.jpg; found {shards.left_out or 'nothing'}")
    images = OnDemandImages(source=TarImages(shards, shape[1:], True, fit), rows=np.arange(len(shards)))
    folder = shards.paths[0].parent
    notes = (f"{folder}: left out: {shards.left_out}",) if shards.left_out else ()
    return _Found(folder.name, images, bool((shards.codes >= 0).any()), folder, notes)


def _hub(text: str, shape: tuple[int, int, int], say: Report, fit: Fitting, table: TableConfig) -> _Found:
    from model_compression.data.hugging_face import load_hub_images

    return _Found(*load_hub_images(text, shape[1:], fit))
