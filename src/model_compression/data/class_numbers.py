"""Class numbers from labels of any form: names, or numbers that are checked."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError
from model_compression.data.dataset import Labels

_MAX_CLASSES = 100_000  # a larger label is a number of something else


def class_numbers(
    given: Sequence[npt.NDArray[Any]], source: str, names: Sequence[Callable[[int], str]] = ()
) -> tuple[list[Labels], tuple[str, ...]]:
    """(labels as class numbers, class names) of the label arrays ``given``, (N,) each, of training and test.

    Integers are class numbers already, see `number_classes`; texts are classes in sorted order. ``names`` gives the
    name of a sample of each array by its row, for messages. Raises DataError for other things.
    """
    if all(labels.dtype.kind in "iu" for labels in given):
        numbers = [labels.astype(np.int64) for labels in given]
        return numbers, number_classes(numbers, source, names)
    is_text = [np.array([isinstance(one, str) for one in labels.tolist()], dtype=bool) for labels in given]
    if not all(map(np.all, is_text)):
        count = sum(map(np.sum, is_text))
        few = count and 2 * count < sum(map(len, is_text))  # the rarer kind is the one that is wrong
        wrong, where = _first([found if few else ~found for found in is_text], given, names)
        mixed = f" beside {'numbers' if few else 'texts'}" if count else ""
        raise DataError(
            f"{source}: a label is {wrong!r}{mixed}{where}; expected class numbers, 0…K−1, or names, for each"
        )
    classes = sorted({one for labels in given for one in labels.tolist()})
    places = {name: number for number, name in enumerate(classes)}
    return [np.array([places[one] for one in labels.tolist()], dtype=np.int64) for labels in given], tuple(classes)


def number_classes(
    given: Sequence[npt.NDArray[np.integer]], source: str, names: Sequence[Callable[[int], str]] = ()
) -> tuple[str, ...]:
    """Class names "0", "1", … up to the largest label in ``given``, (N,) each, of training and test.

    Raises DataError where labels can be no class numbers, and where they begin with 1: class 0 would have no images.
    """
    smallest, largest = (int(edge(edge(labels) for labels in given)) for edge in (min, max))
    if not 0 <= smallest <= largest < _MAX_CLASSES:
        _, where = _first([(labels < 0) | (labels >= _MAX_CLASSES) for labels in given], given, names)
        raise DataError(
            f"{source}: labels run from {smallest} to {largest}{where}; expected class numbers, 0…K−1, of at most "
            f"{_MAX_CLASSES:,} classes"
        )
    if smallest == 1:
        raise DataError(
            f"{source}: labels must be 0…K−1; got 1…{largest}: subtract 1, or name the classes, 0 among them"
        )
    return tuple(map(str, range(largest + 1)))


def _first(
    wrong: Sequence[npt.NDArray[np.bool_]], given: Sequence[npt.NDArray[Any]], names: Sequence[Callable[[int], str]]
) -> tuple[Any, str]:
    """(the first label that is ``wrong``, the sample that has it, where ``names`` knows it)."""
    part = next(number for number, found in enumerate(wrong) if found.any())
    row = int(wrong[part].argmax())
    return given[part].tolist()[row], f" ({names[part](row)})" if names else ""
