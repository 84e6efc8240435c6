"""Predictions of one class for each text, and of one for each word: as of images, with the texts themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_compression.core.entities import entity_f1
from model_compression.core.text import percent
from model_compression.reports.answers import Mistake, confusion
from model_compression.reports.predictions import Predictions, read_predictions
from model_compression.reports.sections.base import SECTIONS
from model_compression.reports.sections.classification import ClassFindings, Classification

_Z = 1.959964  # of 95 %
_SHOWN_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How well a class is found, 0 to 1: ``count`` samples have it; None where there is nothing to divide by."""

    name: str
    count: int
    precision: float | None
    recall: float | None
    f1: float
    teacher_f1: float | None


@dataclass(frozen=True, kw_only=True)
class TextFindings(ClassFindings):
    """By class, by confidence, by text; with F1 by class."""

    f1: Mapping[str, float]
    """Of each class that there is, 0 to 1, the lowest first."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Those of images, and the mean F1."""
        return {**super().columns, "F1": percent(float(np.mean(list(self.f1.values()))))}

    def page_values(self, series: int) -> dict[str, Any]:
        """Those of images, and F1 by class."""
        return super().page_values(series) | {"class_scores": self.class_scores()[:_SHOWN_CLASSES]}

    def class_scores(self) -> list[ClassScore]:
        """Of each class that there is, the lowest F1 first."""
        found, matrix = self.predictions, self.confusion
        taught = {} if found.teacher is None else f1_by_class(confusion(found.teacher, found.targets), found)
        predicted, true = matrix.sum(axis=0), matrix.sum(axis=1)

        def score(number: int) -> ClassScore:
            name, right = found.name_of(number), matrix[number, number]
            return ClassScore(
                name=name,
                count=int(true[number]),
                precision=float(right / predicted[number]) if predicted[number] else None,
                recall=float(right / true[number]) if true[number] else None,
                f1=self.f1[name],
                teacher_f1=taught.get(name),
            )

        numbers = {found.name_of(number): number for number in range(len(matrix))}
        return [score(numbers[name]) for name in self.f1]

    def pictures(self) -> list[tuple[Mistake, str]]:
        """What the student gets wrong, each with its text."""
        return [(one, self.predictions.excerpts[one.number]) for one in self.mistakes]


@SECTIONS.register("text-classification")
class TextSection(Classification):
    """Logits (N, K) and class numbers (N,) of texts."""

    hub_task = "text-classification"
    noun = "texts"
    columns: ClassVar[Sequence[str]] = (*Classification.columns, "F1")
    note = Classification.note.replace("images", "texts") + "; F1 is the mean over classes"
    gains_note = Classification.gains_note.replace("images", "texts")
    findings: ClassVar[type[TextFindings]] = TextFindings

    def read(self, path: Path, data: str) -> Predictions:
        """See `read_predictions`."""
        return read_predictions(path, data, self.noun)

    def are_same_samples(self, found: Predictions, other: Predictions) -> bool:
        """Those with the same targets and excerpts."""
        common = found.excerpts.keys() & other.excerpts.keys()
        same = all(found.excerpts[row] == other.excerpts[row] for row in common)
        return same and np.array_equal(found.targets, other.targets)

    def examine(self, found: Predictions) -> TextFindings:
        """See `TextFindings`."""
        plain = super().examine(found)
        return self.findings(**vars(plain), f1=f1_by_class(plain.confusion, found))

    def purpose(self, found: Predictions, source: str) -> str:
        """Which classes."""
        return super().purpose(found, source).replace("Images", self.noun.capitalize(), 1)

    def limits(self, found: Predictions, kind: str) -> list[str]:
        """That it knows no other class, and which it knows worst."""
        first, *others = super().limits(found, kind)
        one = self.noun.removesuffix("s")
        return [
            first.replace("image", one),
            *(line.replace(f"{kind} images", f"{kind} {self.noun}") for line in others),
        ]


@dataclass(frozen=True, kw_only=True)
class WordFindings(TextFindings):
    """By class, by confidence, by word."""

    entity_f1: float | None = None

    @property
    def columns(self) -> Mapping[str, str]:
        """F1 of whole entities beside those of texts."""
        entities = {} if self.entity_f1 is None else {"entity F1": percent(self.entity_f1)}
        return {**super().columns, **entities}

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy over texts, whose words depend on each other: that of a ratio of two sums over them."""
        found = self.predictions
        assert found.texts is not None
        right = (found.student.argmax(axis=1) == found.targets).astype(np.float64)
        sums, counts = np.bincount(found.texts, right), np.bincount(found.texts)
        spread = _Z * float(np.sqrt(((sums - self.value * counts) ** 2).sum()) / counts.sum())
        return max(0.0, self.value - spread), min(1.0, self.value + spread)

    @property
    def teacher_interval(self) -> tuple[float, float] | None:
        """None: that of a share would be too narrow."""
        return None

    def pictures(self) -> list[tuple[Mistake, str]]:
        """What the student gets wrong, each with its text, in which the word is marked."""
        texts = self.predictions.texts
        assert texts is not None
        return [
            (one, _marked(self.predictions.excerpts[int(texts[one.number])], one.number - _first(texts, one.number)))
            for one in self.mistakes
        ]


@SECTIONS.register("token-classification")
class WordSection(TextSection):
    """Logits (N, L, K) and class numbers (N, L), −100 where a token is no first one of a word."""

    hub_task = "token-classification"
    noun = "words"
    interval_by = ""
    columns = (*TextSection.columns, "entity F1")
    note = (
        "with one seed, the interval of that network over texts, which says nothing about other seeds. Teacher, "
        "agreement and expected calibration error (15 bins) are those of the smallest seed; F1 is the mean over "
        "classes, entity F1 that of whole entities"
    )
    gains_note = "with one seed, p would count words of one text as independent: compare several seeds"
    findings = WordFindings

    def right(self, found: Predictions) -> None:
        """None: tests of two networks would count words of one text as independent."""

    def examine(self, found: Predictions) -> WordFindings:
        """See `WordFindings`."""
        plain = super().examine(found)
        return WordFindings(**vars(plain) | {"entity_f1": _entity_f1(found)})


def f1_by_class(confusion: npt.NDArray[np.int64], found: Predictions) -> dict[str, float]:
    """F1 of each class that the targets or the predictions have, the lowest first."""
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    values = {found.name_of(k): float(2 * confusion[k, k] / both[k]) for k in range(len(confusion)) if both[k]}
    return dict(sorted(values.items(), key=lambda item: item[1]))


def _entity_f1(found: Predictions) -> float | None:
    """None where tags are not of the BIO scheme."""
    assert found.texts is not None
    cuts = np.flatnonzero(np.diff(found.texts)) + 1
    predicted, targets = (np.split(tags, cuts) for tags in (found.student.argmax(axis=1), found.targets))
    return entity_f1(predicted, targets, found.class_names)


def _first(texts: npt.NDArray[np.int64], number: int) -> int:
    """The number of the first word of the text with word ``number``."""
    return int(np.searchsorted(texts, texts[number]))


def _marked(text: str, place: int) -> str:
    words: Sequence[str] = text.split(" ")
    return " ".join(f"»{word}«" if number == place else word for number, word in enumerate(words))
