"""Predictions of one class for each sample: accuracy by class, confusions, calibration, agreement, mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_compression.core.metric import DEFAULT_METRIC
from model_compression.core.text import escape_markdown, percent, percent_interval
from model_compression.reports.answers import (
    Agreement,
    Calibration,
    ClassAccuracy,
    Mistake,
    accuracy,
    agreement,
    calibration,
    class_accuracies,
    confusion,
    mistakes,
)
from model_compression.reports.charts import SERIES, calibration_line, reliability_chart
from model_compression.reports.predictions import Predictions, read_predictions
from model_compression.reports.rows import Row, Rows, Tile, picture
from model_compression.reports.sections.base import DEFAULT_TASK, SECTIONS, Findings, Section
from model_compression.reports.statistics import Proportion, to_plain

SHOWN_MISTAKES = 24
_MANY_CLASSES = 20
_SHOWN_CLASSES = 20
_SHOWN_CONFUSIONS = 15
_NAMED_CLASSES = 100  # with more, a model card gives only their number


@dataclass(frozen=True, kw_only=True)
class ClassFindings(Findings):
    """By class, by confidence, by image."""

    template = "classification.html.j2"
    predictions: Predictions
    accuracy: Proportion
    teacher_accuracy: Proportion | None
    classes: Sequence[ClassAccuracy]
    confusion: npt.NDArray[np.int64]
    calibration: Calibration
    teacher_calibration: Calibration | None
    agreement: Agreement | None
    mistakes: Sequence[Mistake]
    shows_surest_mistakes: bool

    @property
    def noun(self) -> str:
        """What several samples are called."""
        return self.predictions.noun

    @property
    def samples(self) -> int:
        """How many samples."""
        return self.accuracy.total

    @property
    def value(self) -> float:
        """The accuracy."""
        return self.accuracy.share

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy (Wilson)."""
        return self.accuracy.interval

    @property
    def teacher_interval(self) -> tuple[float, float] | None:
        """Of the teacher's."""
        return None if self.teacher_accuracy is None else self.teacher_accuracy.interval

    @property
    def columns(self) -> Mapping[str, str]:
        """Agreement with the teacher, and expected calibration error."""
        agrees = {"agrees": percent(self.agreement.same.share)} if self.agreement else {}
        return {**agrees, "ECE": percent(self.calibration.ece)}

    def tiles(self, of_seed: str, of_run: str) -> list[Tile]:
        """Agreement and calibration."""
        found = []
        if self.agreement:
            same = self.agreement.same
            note = f"of {same.total:,} {self.noun} both put in the same class; "
            note += f"95 % interval {percent_interval(same.interval)}{of_run}"
            found.append(Tile(name="Agreement", value=percent(same.share), note=note))
        note = f"expected calibration error in 15 bins, n = {self.accuracy.total:,} {self.noun}{of_seed}{of_run}"
        return [*found, Tile(name="Calibration", value=percent(self.calibration.ece), note=note)]

    def page_values(self, series: int) -> dict[str, Any]:
        """Classes on a scale, the matrix or the largest confusions, the reliability diagram, and pictures."""
        lines = [calibration_line(self.calibration, "student", series)]
        if self.teacher_calibration:
            lines.insert(0, calibration_line(self.teacher_calibration, "teacher", SERIES - 1))
        names = [self.predictions.name_of(number) for number in range(len(self.confusion))]
        return {
            "classes": class_rows(self, series),
            "noun": self.noun,
            "names": names,
            "matrix": self.confusion if len(names) <= _MANY_CLASSES else None,
            "confusions": _largest_confusions(self.confusion, names),
            "reliability": reliability_chart(lines, key=f"reliability-{series}"),
            "pictures": self.pictures(),
        }

    def pictures(self) -> list[tuple[Mistake, str]]:
        """What the student gets wrong, each with its picture."""
        return [(one, picture(self.predictions.thumbnail(one.number))) for one in self.mistakes]

    def to_plain(self) -> dict[str, Any]:
        """All but the predictions themselves."""
        kept = [field.name for field in fields(self) if field.name not in _NOT_PLAIN]
        values = {name: to_plain(getattr(self, name)) for name in kept}
        return {"confusion": self.confusion.tolist(), **values}


_NOT_PLAIN = ("predictions", "confusion", "shows_surest_mistakes")


@SECTIONS.register(DEFAULT_TASK)
class Classification(Section):
    """Logits (N, K) and class numbers (N,)."""

    hub_task = "image-classification"
    columns: ClassVar[Sequence[str]] = ("agrees", "ECE")
    interval_by = "Wilson"
    note = (
        "with one seed, the interval of that network over images (Wilson), which says nothing about other seeds. "
        "Teacher, agreement and expected calibration error (15 bins) are those of the smallest seed"
    )
    gains_note = (
        "with one seed, interval (Agresti & Min) and p (McNemar) are those of the two networks over the same images"
    )

    def read(self, path: Path, data: str) -> Predictions:
        """See `read_predictions`."""
        return read_predictions(path, data)

    def figures(self, found: Predictions, kind: str) -> dict[str, float]:
        """The accuracies, and the agreement."""
        shares = {f"{kind}_accuracy": accuracy(found.student, found.targets).share}
        if found.teacher is not None:
            shares[f"teacher_{kind}_accuracy"] = accuracy(found.teacher, found.targets).share
            shares["teacher_agreement"] = accuracy(found.student, found.teacher.argmax(axis=1)).share
        return shares

    def right(self, found: Predictions) -> npt.NDArray[np.bool_] | None:
        """Those whose largest logit is the target's."""
        right: npt.NDArray[np.bool_] = found.student.argmax(axis=1) == found.targets
        return right

    def are_same_samples(self, found: Predictions, other: Predictions) -> bool:
        """Those with the same targets and thumbnails."""
        if not np.array_equal(found.targets, other.targets):
            return False
        common = np.intersect1d(found.thumbnail_rows, other.thumbnail_rows)
        return all(np.array_equal(found.thumbnail(row), other.thumbnail(row)) for row in common)

    def agreement(self, found: Predictions, other: Predictions) -> float | None:
        """Equal classes."""
        if other.teacher is None:
            return None
        return float(np.mean(found.student.argmax(axis=1) == other.teacher.argmax(axis=1)))

    def examine(self, found: Predictions) -> ClassFindings:
        """See `ClassFindings`."""
        student, teacher, targets = found.student, found.teacher, found.targets
        shown, are_surest = mistakes(found, SHOWN_MISTAKES)
        return ClassFindings(
            predictions=found,
            accuracy=accuracy(student, targets),
            teacher_accuracy=None if teacher is None else accuracy(teacher, targets),
            classes=class_accuracies(found),
            confusion=confusion(student, targets),
            calibration=calibration(student, targets),
            teacher_calibration=None if teacher is None else calibration(teacher, targets),
            agreement=None if teacher is None else agreement(student, teacher, targets),
            mistakes=shown,
            shows_surest_mistakes=are_surest,
        )

    def decode(self, logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, float]]:
        """The softmax, by class."""
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities, kind="stable")
        return [(names[number], float(probabilities[number])) for number in order]

    def card_figures(self, metrics: Mapping[str, Any], found: Predictions | None, kind: str) -> list[tuple[str, str]]:
        """Negative log-likelihood and calibration."""
        rows = []
        if f"{kind}_nll" in metrics:
            rows.append(("negative log-likelihood", f"{metrics[f'{kind}_nll']:.4f}"))
        if f"{kind}_ece" in metrics:
            rows.append(("expected calibration error, 15 bins", percent(metrics[f"{kind}_ece"])))
        return rows

    def purpose(self, found: Predictions, source: str) -> str:
        """Which classes."""
        classes = found.student.shape[1]
        named = found.class_names if classes <= _NAMED_CLASSES else ()
        names = f": {', '.join(map(escape_markdown, named))}" if named else ""
        return f"Images like those {source}, into {classes} classes{names}."

    def limits(self, found: Predictions, kind: str) -> list[str]:
        """That it knows no other class, and which it knows worst."""
        lines = ["It assigns one of these classes to every image, also to an image of another class."]
        classes = [one for one in class_accuracies(found) if one.student.total]
        classes.sort(key=lambda one: one.student.share)
        worst, best = classes[0], classes[-1]
        if worst.student.share < best.student.share:
            lines.append(
                f"Classes differ: it recognises {percent(worst.student.share)} of {escape_markdown(worst.name)} and "
                f"{percent(best.student.share)} of {escape_markdown(best.name)} ({kind} images)."
            )
        return lines


def class_rows(found: ClassFindings, series: int) -> Rows:
    """A row for each class, the lowest accuracy first; of many classes, the lowest only."""
    known = [row for row in found.classes if row.student.total]
    shown = sorted(known, key=lambda row: row.student.share)[:_SHOWN_CLASSES]
    rows = [
        Row(
            name=row.name,
            series=series,
            text=percent(row.student.share, 1),
            note=f"n = {row.student.total:,}" + (f", teacher {percent(row.teacher.share, 1)}" if row.teacher else ""),
            middle=row.student.share,
            interval=row.student.interval,
            other=row.teacher.share if row.teacher else None,
        )
        for row in shown
    ]
    return Rows(rows, DEFAULT_METRIC, count=2)


def _largest_confusions(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(class, what it is taken for, how many images, share of the class), the most first."""
    wrong = [
        (names[row], names[column], int(matrix[row, column]), matrix[row, column] / matrix[row].sum())
        for row in range(len(names))
        for column in range(len(names))
        if row != column and matrix[row, column]
    ]
    return sorted(wrong, key=lambda entry: -entry[2])[:_SHOWN_CONFUSIONS]
