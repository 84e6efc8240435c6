"""Datasets of texts, with one class or several each or with a tag for each word, from any source of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError
from model_compression.data.dataset import Dataset
from model_compression.data.text_files import check_characters
from model_compression.data.texts import Texts
from model_compression.data.tokenizers import Ragged, Tokenizer

CLASSES, TAGS = "text-classification", "token-classification"
IGNORED = -100
"""The target of a token that has none."""
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Training or test texts of a source: ``where`` names the place of one by its number, for messages.

    ``texts`` are whole, or lists of words.
    """

    name: str
    texts: Sequence[str] | Sequence[Sequence[str]]
    where: Callable[[int], str]
    path: Path | None = None
    source: str = "file"
    notes: tuple[str, ...] = ()


def text_dataset(
    part: Part, tokenizer: Tokenizer, labels: npt.NDArray[Any], names: tuple[str, ...], task: str = CLASSES
) -> Dataset:
    """Texts with ``labels`` (N, …), ``names`` of classes, or of the numbers of a regression.

    Raises DataError with the place of an empty text.
    """
    texts = [str(text) for text in part.texts]
    for row, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"{part.where(row)}: the text is empty; expected one of at least a word")
        check_characters(text, part.where(row))
    samples = Texts(texts, tokenizer.encode(texts), tokenizer)
    return _dataset(part, samples, labels, names, task)


def tagged_datasets(
    parts: Sequence[Part], tokenizer: Tokenizer, tags: Sequence[Sequence[Sequence[str]]]
) -> list[Dataset]:
    """Texts with a tag for each word, the training part first, all padded to the longest.

    The first token of a word has its class; words behind `Tokenizer.max_length` have none. Raises DataError, with the
    place, for a text with another number of tags than words, an empty word, and a tag that no training text has.
    """
    names = tuple(sorted({tag for row in tags[0] for tag in row}))
    numbers = {name: number for number, name in enumerate(names)}
    if len(names) < 2:
        raise DataError(f"{parts[0].name} has the tags {', '.join(names) or 'none'}; expected at least two")
    for part, own in zip(parts, tags, strict=True):
        for row, (words, spelled) in enumerate(zip(part.texts, own, strict=True)):
            if len(words) != len(spelled):
                raise DataError(f"{part.where(row)}: {len(words)} words have {len(spelled)} tags; expected as many")
            if not all(word.strip() for word in words):
                raise DataError(f"{part.where(row)}: a word is empty; expected words of at least a letter")
            check_characters(" ".join(words), part.where(row))
            if unknown := [tag for tag in spelled if tag not in numbers]:
                raise DataError(
                    f"{part.where(row)}: the tag {unknown[0]!r} is in no training text; known: "
                    f"{', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
                )
    encoded = [tokenizer.encode(part.texts, in_words=True) for part in parts]
    longest = max(int(tokens.lengths.max()) for tokens in encoded)
    found = []
    for part, own, tokens in zip(parts, tags, encoded, strict=True):
        targets = _targets(tokens, [[numbers[tag] for tag in row] for row in own], longest)
        _check_words(part, targets)
        texts = [" ".join(words) for words in part.texts]
        found.append(_dataset(part, Texts(texts, tokens, tokenizer, longest), targets, names, TAGS))
    return found


def unlabelled_texts(part: Part, like: Dataset) -> Dataset:
    """Texts, whole or in words, without labels, for the task and with the tokenizer and the classes of ``like``.

    Words get the class 0 where ``like`` has one for each, which only says where a word is. Raises DataError with the
    place of an empty text.
    """
    assert isinstance(like.samples, Texts)
    tokenizer, in_words = like.samples.tokenizer, like.task == TAGS
    texts = [text if isinstance(text, str) else " ".join(text) for text in part.texts]
    for row, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"{part.where(row)}: the text is empty; expected one of at least a word")
    if in_words:
        words = [text.split() if isinstance(text, str) else text for text in part.texts]
        tokens = tokenizer.encode(words, in_words=True)
        longest = int(tokens.lengths.max())
        labels = _targets(tokens, [[0] * len(own) for own in words], longest)
        _check_words(part, labels)
        samples = Texts(texts, tokens, tokenizer, longest)
    else:
        samples = Texts(texts, tokenizer.encode(texts), tokenizer)
        labels = np.zeros((len(texts), *like.labels.shape[1:]), dtype=like.labels.dtype)
    return replace(
        like, name=part.name, samples=samples, labels=labels, digest="", source=part.source, path=part.path,
        labelled=False, notes=(*part.notes, *_cut_note(part, samples)),
    )  # fmt: skip


def _check_words(part: Part, targets: npt.NDArray[np.int64]) -> None:
    """Raises DataError for a text none of whose words has a target."""
    if empty := np.flatnonzero((targets == IGNORED).all(axis=1)).tolist():
        raise DataError(f"{part.where(empty[0])}: no word of it has a token; expected letters that can be read")


def _targets(tokens: Ragged, tags: Sequence[Sequence[int]], length: int) -> npt.NDArray[np.int64]:
    """(N, ``length``): the tag of each word at its first token, `IGNORED` elsewhere."""
    targets = np.full((len(tags), length), IGNORED, dtype=np.int64)
    for row, own in enumerate(tags):
        places, words = tokens.first_tokens(row)
        targets[row, places] = np.array(own, dtype=np.int64)[words]
    return targets


def _dataset(part: Part, samples: Texts, labels: npt.NDArray[Any], names: tuple[str, ...], task: str) -> Dataset:
    named: dict[str, Any] = {"target_names" if task == "regression" else "class_names": names}
    return Dataset(
        name=part.name, samples=samples, labels=labels, task=task, source=part.source, path=part.path,
        notes=(*part.notes, *_cut_note(part, samples)), **named,
    )  # fmt: skip


def _cut_note(part: Part, samples: Texts) -> list[str]:
    """How many texts are cut, as far as their tokens show."""
    longest = samples.tokenizer.max_length
    cut = int(samples.tokens.is_cut.sum())
    if not cut:
        return []
    return [f"{part.name}: {cut:,} of {len(samples):,} texts are longer than {longest} tokens, and cut there"]
