"""Labels in arrays that are several classes a sample, or numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import UsageError
from model_compression.data.table_targets import MULTI_LABEL, REGRESSION, Targets

Array = npt.NDArray[Any]
_SIDES = ("training", "test")


def array_targets(given: Sequence[Array], task: str) -> Targets | None:
    """The targets in ``given``, the test array last; None where they are one class each, or a mask.

    ``task`` is "multi-label", for arrays (N, K) of 0 and 1, "regression", for numbers (N,) or (N, D), or "": then an
    array of bool (N, K), and one of fractions, say it themselves. Raises UsageError for arrays that are no such
    targets.
    """
    if task not in ("", MULTI_LABEL, REGRESSION) or any(one.ndim > 2 or one.dtype.kind not in "iufb" for one in given):
        if task in (MULTI_LABEL, REGRESSION):
            raise UsageError(
                f"labels of the task {task!r} are {_forms(given)}; expected numbers, a row for each sample"
            )
        return None
    kind = task or _kind(given)
    if not kind:
        return None
    if kind == REGRESSION:
        values = [_numbers(what, one) for what, one in zip(_SIDES[-len(given) :], given, strict=True)]
    else:
        values = [_ones(what, one) for what, one in zip(_SIDES[-len(given) :], given, strict=True)]
    if len({one.shape[1] for one in values}) > 1:
        raise UsageError(f"training and test labels are {_forms(given)}; expected as many numbers a sample")
    count = values[-1].shape[1]
    names = tuple(map(str, range(count))) if kind == MULTI_LABEL else tuple(f"value {n}" for n in range(1, count + 1))
    return Targets(kind, values, names)


def _kind(given: Sequence[Array]) -> str:
    if all(one.dtype.kind == "b" and one.ndim == 2 for one in given):
        return MULTI_LABEL
    has_fractions = any(one.dtype.kind == "f" and bool((np.nan_to_num(one) % 1 != 0).any()) for one in given)
    return REGRESSION if has_fractions else ""


def _numbers(what: str, values: Array) -> Array:
    found = values.reshape(len(values), -1).astype(np.float64)
    wrong = np.flatnonzero(~(np.abs(found) <= np.finfo(np.float32).max).all(axis=1))
    if wrong.size:
        raise UsageError(f"{what} label {wrong[0]} is {found[wrong[0]].tolist()}; expected finite numbers")
    return found.astype(np.float32)


def _ones(what: str, values: Array) -> Array:
    if values.ndim != 2:
        raise UsageError(f"{what} labels are {_forms([values])}; expected (N, K), 0 or 1 for each class")
    wrong = np.flatnonzero(~np.isin(values, (0, 1)).all(axis=1))
    if wrong.size:
        raise UsageError(f"{what} label {wrong[0]} is {values[wrong[0]].tolist()}; expected 0 or 1 for each class")
    return values.astype(np.uint8)


def _forms(given: Sequence[Array]) -> str:
    return " and ".join(f"{one.dtype} of shape {one.shape}" for one in given)
