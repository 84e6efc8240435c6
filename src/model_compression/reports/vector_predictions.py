"""Predictions of several numbers a sample: logits (N, K) against targets (N, K)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.reports.predictions import Logits, read_answers
from model_compression.reports.rows import picture


@dataclass(frozen=True, kw_only=True)
class VectorPredictions:
    """``student`` and ``teacher`` (None without one) logits (N, K); ``targets`` (N, K); ``facts`` of the task.

    ``thumbnails`` (M, C, H, W) uint8 are the images ``thumbnail_rows`` (M,), none where samples are no images.
    """

    student: Logits
    teacher: Logits | None
    targets: npt.NDArray[Any]
    thumbnails: npt.NDArray[np.uint8]
    thumbnail_rows: npt.NDArray[np.int64]
    facts: dict[str, Any]

    def names(self, key: str) -> list[str]:
        """The K names that the facts have under ``key``."""
        found = self.facts.get(key) or [f"value {number}" for number in range(1, self.student.shape[1] + 1)]
        return list(map(str, found))

    def numbers(self, key: str) -> list[float]:
        """The K numbers that the facts have under ``key``, or none."""
        return list(map(float, self.facts.get(key, ())))

    def shown(self, rows: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
        """The first of ``rows`` that have a thumbnail, at most ``limit``."""
        found: npt.NDArray[np.int64] = rows[np.isin(rows, self.thumbnail_rows)][:limit]
        return found

    def picture(self, row: int) -> str:
        """The image ``row`` as a data URI."""
        return picture(self.thumbnails[int(np.flatnonzero(self.thumbnail_rows == row)[0])])

    def same_samples(self, other: "VectorPredictions") -> bool:
        """Whether targets and common thumbnails are equal."""
        if not np.array_equal(self.targets, other.targets):
            return False
        _, own, theirs = np.intersect1d(self.thumbnail_rows, other.thumbnail_rows, return_indices=True)
        return np.array_equal(self.thumbnails[own], other.thumbnails[theirs])


def read_vectors(path: Path, names: str) -> VectorPredictions:
    """The content of predictions.safetensors; ``names`` is the fact that names the K numbers.

    Raises FileFormatError for a damaged file.
    """

    def build(tensors: dict[str, Any], facts: dict[str, Any]) -> VectorPredictions:
        thumbnails = tensors.get("thumbnails", np.zeros((0, 1, 1, 1), dtype=np.uint8))
        found = VectorPredictions(
            student=tensors["student_logits"],
            teacher=tensors.get("teacher_logits"),
            targets=tensors["targets"],
            thumbnails=thumbnails,
            thumbnail_rows=tensors.get("thumbnail_rows", np.arange(len(thumbnails))),
            facts=facts,
        )
        _check(found, names)
        return found

    return read_answers(path, build)


def _check(found: VectorPredictions, names: str) -> None:
    """Raises ValueError for tensors and facts that do not fit together."""
    student, targets = found.student, found.targets
    if student.ndim != 2 or not student.size or targets.shape != student.shape:
        raise ValueError(f"logits are {student.shape}, targets {targets.shape}; expected (N, K) both")
    if found.teacher is not None and found.teacher.shape != student.shape:
        raise ValueError(f"the teacher's logits are {found.teacher.shape}, the student's {student.shape}")
    if not all(np.isfinite(one).all() for one in (student, targets, found.teacher) if one is not None):
        raise ValueError("a logit or target is not finite")
    if found.thumbnails.ndim != 4 or found.thumbnails.dtype != np.uint8:
        raise ValueError(f"thumbnails are {found.thumbnails.shape}; expected (M, C, H, W) uint8")
    rows = found.thumbnail_rows
    if rows.shape != found.thumbnails.shape[:1] or ((rows < 0) | (rows >= len(targets))).any():
        raise ValueError(f"thumbnail_rows are not {len(found.thumbnails)} rows of {len(targets)} images")
    for key in (names, "thresholds", "target_mean", "target_std"):
        values = found.facts.get(key)
        if values is not None and (not isinstance(values, list) or len(values) != student.shape[1]):
            raise ValueError(f"{key} is {values!r}; expected {student.shape[1]} entries")
        if values is not None and key != names and not all(type(one) in (int, float) for one in values):
            raise ValueError(f"{key} is {values!r}; expected numbers")
