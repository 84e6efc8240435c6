"""Masks of Hugging Face datasets: a column of images of class numbers beside that of the images."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_compression.core.errors import DataError, UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import Fitting
from model_compression.core.masks import Masks
from model_compression.core.registry import unknown_name
from model_compression.data.image_files import encoded_size
from model_compression.data.masks import TABLE, TASK, ClassTable, number_classes, read_mask, read_table
from model_compression.data.on_demand import OnDemandImages

_NAMES = (
    "mask", "masks", "annotation", "annotations", "label", "labels", "target", "segmentation", "segmentation_mask",
    "semantic_segmentation", "seg_map",
)  # fmt: skip


def mask_column(split: Any, images: Sequence[str], options: Mapping[str, str], name: str, task: str) -> str:
    """Which of the columns ``images`` holds masks; "" where the images have other labels, or none.

    They are asked for by ``mask=`` or the ``task``, or are the only label: then the split ``name`` has two columns, of
    which one is called as masks are. Raises UsageError where they are asked for and not found.
    """
    if "mask" in options:
        if options["mask"] not in images or options["mask"] == options.get("image"):
            raise unknown_name(f"mask column of {name}:", options["mask"], [*images])
        return options["mask"]
    others = [column for column in images if column != options.get("image")]
    called = [column for column in others if column.lower() in _NAMES]
    found = called or (others if "image" in options or len(others) == 1 < len(images) else [])
    if task == TASK:
        if len(found) != 1 or len(images) < 2:
            listed = ", ".join(images) or "none"
            raise UsageError(
                f"{name} has the image columns {listed}; expected one of images and one of masks: name them, as "
                ",image=image,mask=annotation"
            )
        return found[0]
    is_only_label = len(images) == 2 == len(split.features) and not task
    return called[0] if is_only_label and len(called) == 1 else ""


def table_of(name: str) -> ClassTable:
    """The classes that `TABLE` in the folder of a dataset names; none for one of the hub, and without that file."""
    file = user_path(name) / TABLE
    return read_table(file) if file.exists() else ClassTable()


def read_masks(
    parts: Mapping[str, Any],
    columns: Mapping[str, str],
    images: Sequence[OnDemandImages],
    table: ClassTable,
    ignore: int,
    *,
    scaled: bool,
    fit: Fitting,
) -> tuple[list[Masks], tuple[str, ...]]:
    """(masks (N, H, W) of each of ``parts`` {title: split}, names of the classes), as `mask_folder` reads files.

    ``columns`` are those of the masks by title, ``images`` those of each part, which are ``scaled`` to one size as
    ``fit`` says, or all have it. Raises DataError with the number of a mask that is missing, has another size, or holds
    a value that is no class.
    """
    found = []
    for (title, split), own in zip(parts.items(), images, strict=True):
        encoded = _encoded(split, columns[title])
        height, width = own.shape[2:]
        masks = np.empty((len(split), height, width), dtype=np.uint8)
        for row in range(len(split)):
            size, image = (height, width), f"image {row}"
            if scaled:
                size = encoded_size(io.BytesIO(own.content(row)), f"image {row} of {title}")
            what = f"mask {row} of {title}"
            content = _content(encoded[row][columns[title]], what)
            masks[row] = read_mask(content, what, image, size, table, ignore, (height, width) if scaled else None, fit)
        found.append(masks)
    return found, table.names or number_classes(found)


def _encoded(split: Any, column: str) -> Any:
    import datasets

    return split.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _content(cell: Mapping[str, Any] | None, what: str) -> bytes | Path:
    """The encoded mask, or its file."""
    if cell is None or not (cell["bytes"] or cell["path"]):
        raise DataError(f"{what} is missing; expected an image of class numbers for each image")
    return cell["bytes"] or Path(cell["path"])
