"""The scale of regression targets: networks answer with (target − mean) / deviation of the training data."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, UsageError
from model_compression.core.options import setting
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset

_DIGITS = 6
_SPARE = 3  # digits of a mean behind the first of the deviation
_FINE = 100  # steps of float32, in which targets are held, in a deviation
Numbers = tuple[float, ...]


def scaled(train: Dataset, test: Dataset, config: TableConfig | None = None) -> tuple[Dataset, Dataset]:
    """Both sets with the scale that ``config`` gives, else with mean and deviation of the training targets.

    Data of other tasks stay as they are. Raises UsageError for a scale that does not fit the targets, DataError for a
    number that is the same in all training rows.
    """
    given = config is not None and config.target_mean
    if train.task != "regression":
        if given:
            raise UsageError(f"{setting('target_mean')} is for regression; the labels of {train.name} are classes")
        return train, test
    if given:
        assert config is not None
        mean, std = (_numbers(name, getattr(config, name), train) for name in ("target_mean", "target_std"))
        if min(std) <= 0:
            raise UsageError(f"{setting('target_std')} must be above 0, got {config.target_std}")
    else:
        mean, std = _measured(train)
    _check_resolution(train, mean, std)
    return replace(train, target_mean=mean, target_std=std), replace(test, target_mean=mean, target_std=std)


def _measured(train: Dataset) -> tuple[Numbers, Numbers]:
    """(mean, deviation) of each number, in as many digits as do not matter. Raises DataError for a constant one."""
    targets = train.labels.reshape(len(train), -1).astype(np.float64)
    mean, std = targets.mean(axis=0), targets.std(axis=0)
    if not std.all():
        raise DataError(
            f"{train.name}: {_name(train, std)!r} is the same in all training rows, as float32 holds it; leave the "
            "column out, or subtract a constant"
        )
    digits = [max(_DIGITS, _SPARE + math.ceil(math.log10(max(abs(m), s) / s))) for m, s in zip(mean, std, strict=True)]
    return (
        tuple(float(f"{one:.{count}g}") for one, count in zip(mean, digits, strict=True)),
        tuple(float(f"{one:.{_DIGITS}g}") for one in std),
    )


def _check_resolution(train: Dataset, mean: Numbers, std: Numbers) -> None:
    """Raises DataError for numbers so far from 0 that float32 holds their differences coarsely."""
    steps = np.spacing(np.abs(train.labels.reshape(len(train), -1)).max(axis=0).astype(np.float32)).astype(np.float64)
    wrong = steps * _FINE > std
    if wrong.any():
        number = int(wrong.argmax())
        raise DataError(
            f"{train.name}: {_name(train, ~wrong)!r} has the mean {mean[number]:g} and the deviation {std[number]:g}; "
            f"float32 holds such numbers in steps of {steps[number]:g}: subtract a constant, or divide"
        )


def _name(train: Dataset, wrong: npt.NDArray[Any]) -> str:
    """The name of the first number that is 0 in ``wrong`` (D,)."""
    number = int(np.asarray(wrong == 0).argmax())
    return train.target_names[number] if train.target_names else f"number {number}"


def _numbers(name: str, text: str, train: Dataset) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != train.num_outputs or not np.isfinite(found).all():
        raise UsageError(
            f"{setting(name)} must be {train.num_outputs} finite numbers with commas between them, one a target, "
            f"got {text!r}"
        )
    return found
