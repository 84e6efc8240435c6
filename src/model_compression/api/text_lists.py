"""Texts given as lists: of texts with labels, or of lists of words with a tag for each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model_compression.api.array_targets import array_targets
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import DataError, UsageError
from model_compression.data.class_numbers import class_numbers
from model_compression.data.dataset import Dataset
from model_compression.data.table_targets import Targets
from model_compression.data.target_scale import scaled
from model_compression.data.text_datasets import CLASSES, TAGS, Part, tagged_datasets, text_dataset, unlabelled_texts
from model_compression.data.tokenizers import TokenizerChoice

_SIDES = ("training", "test")
_LISTS = (list, tuple, np.ndarray)


def are_texts(data: Sequence[Any], task: str) -> bool:
    """Whether the four parts ``data`` are texts: ``task`` says so, or the first training or test text is one."""
    return task in (CLASSES, TAGS) or any(map(_begins_with_text, (data[0], data[2])))


def datasets_of_texts(data: Sequence[Any], config: DataConfig, networks: Sequence[str]) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``data``: training texts, their labels or None, test texts, their labels.

    Texts are a list of str with a label each: a class by name or number, or what `array_targets` takes; or lists of
    words with a list of tags each. They are cut by the tokenizer that ``config`` names, else by that of the first of
    ``networks`` that has one.

    Raises UsageError that names the first text, word, label or tag that cannot be by its index.
    """
    choice = TokenizerChoice(name=config.tokenizer, max_length=config.max_length, networks=tuple(networks))
    texts, labels = [_listed(data[0]), _listed(data[2])], [data[1], data[3]]
    if labels[1] is None:
        raise UsageError("the test labels are None; expected one for each text: only the training labels may be None")
    in_words = config.task == TAGS or (not config.task and any(map(_begins_with_words, texts)))
    parts = [_part(*given, in_words=in_words) for given in zip(_SIDES, texts, strict=True)]
    labelled = [(side, part, own) for side, part, own in zip(_SIDES, parts, labels, strict=True) if own is not None]
    for side, part, own in labelled:
        if not hasattr(own, "__len__") or isinstance(own, str) or len(own) != len(part.texts):
            count = len(own) if hasattr(own, "__len__") and not isinstance(own, str) else repr(own)[:60]
            raise UsageError(f"there are {len(part.texts)} {side} texts and the labels are {count}; expected one each")
    known = [part for _, part, _ in labelled]
    try:
        tokenizer = choice.load("data")
        if in_words:
            made = tagged_datasets(known, tokenizer, [_tags(side, own) for side, _, own in labelled])
        else:
            targets = _targets(known, [own for _, _, own in labelled], config.task)
            made = [
                text_dataset(part, tokenizer, values, targets.names, targets.kind or CLASSES)
                for part, values in zip(known, targets.values, strict=True)
            ]
        train = made[0] if len(made) == 2 else unlabelled_texts(parts[0], made[-1])
        return scaled(train, made[-1], config.table)
    except DataError as error:  # here they are arguments
        raise UsageError(str(error)) from None


def _part(side: str, texts: Any, *, in_words: bool) -> Part:
    """The texts of one side, each of the kind that it should be."""
    if not isinstance(texts, _LISTS) or len(texts) < 2:
        count = f"a list of {len(texts)}" if isinstance(texts, _LISTS) else f"a {type(texts).__name__}"
        raise UsageError(f"the {side} texts are {count}; expected a list of at least two")
    for row, text in enumerate(texts):
        if in_words and not isinstance(text, _LISTS):
            raise UsageError(f"{side} text {row} is {_shown(text)}; expected a list of words")
        for number, word in enumerate(text if in_words else [text]):
            if not isinstance(word, str):
                where = f"{side} text {row}, word {number}" if in_words else f"{side} text {row}"
                raise UsageError(f"{where} is {_shown(word)}; expected a str")
        if in_words and not len(text):
            raise UsageError(f"{side} text {row} has no words; expected one at least")
    own = [[str(word) for word in text] for text in texts] if in_words else [str(text) for text in texts]
    name = "texts" if side == _SIDES[0] else "texts-test"
    return Part(name=name, texts=own, where=lambda row: f"{side} text {row}", source="arrays")


def _tags(side: str, labels: Any) -> list[list[str]]:
    """The tags of each text; numbers are names of their own."""
    for row, tags in enumerate(labels):
        if not isinstance(tags, _LISTS) or not all(_is_tag(tag) for tag in tags):
            raise UsageError(
                f"the labels of {side} text {row} are {_shown(tags)}; expected a list of tags, names or numbers, "
                "one for each word"
            )
    return [[str(tag) for tag in tags] for tags in labels]


def _targets(parts: Sequence[Part], labels: Sequence[Any], task: str) -> Targets:
    """Classes by name or number, several classes, or numbers: as arrays of images have them."""
    arrays = [_array(part, own) for part, own in zip(parts, labels, strict=True)]
    found = array_targets(arrays, "" if task == CLASSES else task)
    if found is not None:
        if task and found.kind != task:
            raise UsageError(f"the labels are of {found.kind}; got the task {task!r}")
        return found
    for array in arrays:
        if array.ndim != 1:
            raise UsageError(f"the labels have the shape {array.shape}; expected a class for each text ({len(array)},)")
    numbers, names = class_numbers(arrays, "the labels", [part.where for part in parts])
    for part, own in zip(parts[1:], arrays[1:], strict=True):
        unseen = ~np.isin(own, arrays[0]) if own.dtype.kind not in "iu" else np.zeros(len(own), dtype=bool)
        if unseen.any():
            row = int(np.flatnonzero(unseen)[0])
            raise UsageError(
                f"{part.where(row)}: the label {own[row]!r} is of no training text; known: "
                f"{', '.join(sorted({*arrays[0].tolist()})[:8])}"
            )
    return Targets("", [*numbers], names)


def _array(part: Part, labels: Any) -> npt.NDArray[Any]:
    """Labels (N, …), texts among numbers kept apart. Raises UsageError for rows of different lengths."""
    kept = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    if isinstance(kept, np.ndarray):
        return kept
    rows = list(kept)
    if any(isinstance(one, str) or one is None for one in rows):
        return np.array([*rows, None], dtype=object)[:-1]  # the None keeps numpy from making lists a second dimension
    try:
        return np.array(rows)
    except ValueError:
        widths = [np.size(one) for one in rows]
        row = next(row for row, width in enumerate(widths) if width != widths[0])
        raise UsageError(
            f"{part.where(row)} has {widths[row]} labels, and the first has {widths[0]}; expected one class a text, or "
            "a row of 0 and 1 of the same length for each"
        ) from None


def _listed(part: Any) -> Any:
    """A column of a table, as of pandas or `datasets`, as a list; other things as they are."""
    if isinstance(part, (*_LISTS, str, torch.Tensor)):
        return part
    return list(part) if isinstance(part, Sequence) else part.tolist() if hasattr(part, "tolist") else part


def _begins_with_text(part: Any) -> bool:
    part = _listed(part)
    return isinstance(part, _LISTS) and bool(len(part)) and (isinstance(part[0], str) or _begins_with_words(part))


def _begins_with_words(part: Any) -> bool:
    first = part[0] if isinstance(part, _LISTS) and len(part) else None
    return isinstance(first, _LISTS) and bool(len(first)) and isinstance(first[0], str)


def _is_tag(value: Any) -> bool:
    return isinstance(value, str | int | np.integer) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return f"the {type(value).__name__} {value!r:.60}"
