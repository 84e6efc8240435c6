"""Analyses the predictions of student and teacher on the test images: by class, by confidence, by image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_compression.reports.predictions import Classes, Logits, Predictions
from model_compression.reports.statistics import Proportion

Floats = npt.NDArray[np.float64]
BINS = 15


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """The share of the images of one class that the student, and the teacher, predict right."""

    name: str
    student: Proportion
    teacher: Proportion | None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The images with a largest probability in (``low``, ``high``]: how many are right, and their mean confidence."""

    low: float
    high: float
    right: Proportion
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """``ece``: expected calibration error, 0 to 1, of the ``bins`` that have images; ``nll`` in nats."""

    ece: float
    nll: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The predictions of student and teacher on the same images.

    ``same`` counts equal classes. The other four add up to all images: both right, one of the two, none.
    ``divergence`` is the mean KL(teacher ‖ student) of their probabilities, in nats.
    """

    same: Proportion
    both_right: int
    only_teacher: int
    only_student: int
    both_wrong: int
    divergence: float


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image that the student predicts wrong: its number, classes by name, and their probabilities."""

    number: int
    truth: str
    answer: str
    probability: float
    teacher_probability: float | None


def softmax(logits: Logits) -> Floats:
    """Probabilities (N, K), in float64."""
    from scipy.special import softmax as of_float64

    probabilities: Floats = of_float64(logits.astype(np.float64), axis=1)
    return probabilities


def accuracy(logits: Logits, targets: Classes) -> Proportion:
    """The share of right predictions."""
    return Proportion(count=int((logits.argmax(axis=1) == targets).sum()), total=len(targets))


def class_accuracies(found: Predictions) -> list[ClassAccuracy]:
    """The accuracy of each class, in the order of the classes."""
    rows = []
    for number in range(found.student.shape[1]):
        of_class = found.targets == number
        student, teacher = (
            None if logits is None else accuracy(logits[of_class], found.targets[of_class])
            for logits in (found.student, found.teacher)
        )
        assert student is not None
        rows.append(ClassAccuracy(name=found.name_of(number), student=student, teacher=teacher))
    return rows


def confusion(logits: Logits, targets: Classes) -> npt.NDArray[np.int64]:
    """The number of images of each class (row) with each prediction (column): (K, K)."""
    classes = logits.shape[1]
    places = targets.astype(np.int64) * classes + logits.argmax(axis=1)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def calibration(logits: Logits, targets: Classes) -> Calibration:
    """The distance of confidence and accuracy in `BINS` bins of equal width, open below (arXiv 1706.04599)."""
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    number = np.clip(np.ceil(confidence * BINS).astype(int), 1, BINS) - 1
    bins = []
    for index in np.unique(number):
        inside = number == index
        share = Proportion(count=int(right[inside].sum()), total=int(inside.sum()))
        mean = float(confidence[inside].mean())
        bins.append(Bin(low=index / BINS, high=(index + 1) / BINS, right=share, confidence=mean))
    error = sum(one.right.total * abs(one.right.share - one.confidence) for one in bins) / len(targets)
    return Calibration(
        ece=error, nll=-float(_log_softmax(logits)[np.arange(len(targets)), targets].mean()), bins=tuple(bins)
    )


def agreement(student: Logits, teacher: Logits, targets: Classes) -> Agreement:
    """The agreement of the student's predictions with the teacher's."""
    own, taught = student.argmax(axis=1), teacher.argmax(axis=1)
    right, teacher_right = own == targets, taught == targets
    expected = softmax(teacher)
    return Agreement(
        same=Proportion(count=int((own == taught).sum()), total=len(targets)),
        both_right=int((right & teacher_right).sum()),
        only_teacher=int((~right & teacher_right).sum()),
        only_student=int((right & ~teacher_right).sum()),
        both_wrong=int((~right & ~teacher_right).sum()),
        divergence=float((expected * (_log_softmax(teacher) - _log_softmax(student))).sum(axis=1).mean()),
    )


def find_mistakes(student: Logits, teacher: Logits | None, targets: Classes) -> Classes:
    """The images that the student predicts wrong and the teacher, if any, right; the most confident mistakes first."""
    wrong = student.argmax(axis=1) != targets
    if teacher is not None:
        wrong &= teacher.argmax(axis=1) == targets
    rows = np.flatnonzero(wrong)
    return rows[np.argsort(-softmax(student[rows]).max(axis=1, initial=0.0), kind="stable")]


def mistakes(found: Predictions, limit: int) -> tuple[Sequence[Mistake], bool]:
    """The first of `find_mistakes` with a thumbnail, at most ``limit``, and whether there is one for each of these."""
    rows = find_mistakes(found.student, found.teacher, found.targets)
    shown = rows[np.isin(rows, found.shown_rows)][:limit]
    own, targets = softmax(found.student[shown]), found.targets[shown]
    taught = [None] * len(shown) if found.teacher is None else softmax(found.teacher[shown]).max(axis=1).tolist()
    described = [
        Mistake(
            number=int(number),
            truth=found.name_of(target),
            answer=found.name_of(answer.argmax()),
            probability=float(answer.max()),
            teacher_probability=probability,
        )
        for number, target, answer, probability in zip(shown, targets, own, taught, strict=True)
    ]
    return described, np.array_equal(shown, rows[:limit])


def _log_softmax(logits: Logits) -> Floats:
    from scipy.special import log_softmax

    result: Floats = log_softmax(logits.astype(np.float64), axis=1)
    return result
