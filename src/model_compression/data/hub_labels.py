"""The labels of a dataset of Hugging Face: the column that holds them, and their class numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, UsageError
from model_compression.data.class_numbers import class_numbers
from model_compression.data.dataset import Labels
from model_compression.data.hub_splits import choose
from model_compression.data.labelled_table import TEXTS

_LABELS = ("label", "labels", "class", "target", "category")


def label_column(split: Any, options: Mapping[str, str], name: str) -> str:
    """The column of class labels, else the one of integers, else the one of texts; of several one called "label"."""
    import datasets

    kinds = split.features.items()
    classes: list[str] = [column for column, kind in kinds if isinstance(kind, datasets.ClassLabel)]
    values = {column: kind.dtype for column, kind in kinds if isinstance(kind, datasets.Value)}
    numbers = [column for column, dtype in values.items() if "int" in dtype]
    texts = [column for column, dtype in values.items() if "string" in dtype]
    if "label" in options:
        return choose("label column", options["label"], classes + numbers + texts, name)
    texts = [column for column in texts if column.lower() not in TEXTS]
    named = [column for column in (*numbers, *texts) if column.lower() in _LABELS]
    for found in (classes, named, numbers, texts):
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{name} has the label columns {', '.join(found)}; expected one: name it, as ,label={found[0]}"
            )
    raise UsageError(f"{name} has no label column; expected one: its columns are {', '.join(split.features)}")


def _label_values(split: Any, column: str, name: str) -> npt.NDArray[Any]:
    values = split.select_columns([column]).with_format("arrow")[:].column(column)
    if values.null_count:
        first = values.is_null().to_pylist().index(True)
        raise DataError(
            f"{name}: {values.null_count:,} images have no label in {column!r}, the first is image {first}; expected a "
            "class for each"
        )
    labels: npt.NDArray[Any] = values.to_numpy()
    return labels


def labels_of(parts: Mapping[str, Any], options: Mapping[str, str]) -> tuple[list[Labels], tuple[str, ...]]:
    """(class numbers of each of ``parts`` {name: split}, class names): ClassLabel's, else `class_numbers`."""
    columns = {name: label_column(split, options, name) for name, split in parts.items()}
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
