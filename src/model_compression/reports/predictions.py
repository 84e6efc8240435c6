"""The predictions of a run: logits of student and teacher on every test image, with targets and thumbnails."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import FileFormatError

Logits = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NAMES = {"cifar10": _CIFAR10}
"""Of the classes, for files that do not name them."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """``student`` and ``teacher`` (None without one) logits (N, K); ``targets`` (N,).

    ``thumbnails`` (M, C, H, W) uint8 are the images ``thumbnail_rows`` (M,): the first, and some that the student gets
    wrong. ``class_names`` are K, or none where the run does not tell.
    """

    student: Logits
    teacher: Logits | None
    targets: Classes
    thumbnails: npt.NDArray[np.uint8]
    thumbnail_rows: Classes
    class_names: tuple[str, ...]

    def name_of(self, number: int) -> str:
        """The name of class ``number``."""
        return self.class_names[number] if self.class_names else f"class {number}"

    def thumbnail(self, row: int) -> npt.NDArray[np.uint8]:
        """Image ``row`` (C, H, W), which is one of ``thumbnail_rows``."""
        found: npt.NDArray[np.uint8] = self.thumbnails[int(np.flatnonzero(self.thumbnail_rows == row)[0])]
        return found


def read_predictions(path: Path, data: str) -> Predictions:
    """The content of predictions.safetensors of a run on ``data``. Raises FileFormatError for a damaged file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            tensors: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            names = (file.metadata() or {}).get("class_names")
        found = Predictions(
            student=tensors["student_logits"],
            teacher=tensors.get("teacher_logits"),
            targets=tensors["targets"],
            thumbnails=tensors["thumbnails"],
            thumbnail_rows=tensors.get("thumbnail_rows", np.arange(len(tensors["thumbnails"]))),
            class_names=_NAMES.get(data, ()) if names is None else tuple(json.loads(names)),
        )
        _check(found)
    except KeyError as error:
        raise FileFormatError(f"{path} is damaged: it has no {error.args[0]}") from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error}; is it yours to read?") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    return found


def _check(found: Predictions) -> None:
    """Raises ValueError for tensors that do not fit together."""
    student, targets = found.student, found.targets
    if student.ndim != 2 or not student.size or targets.shape != student.shape[:1]:
        raise ValueError(f"logits are {student.shape}, targets {targets.shape}; expected (N, K) and (N,)")
    if found.teacher is not None and found.teacher.shape != student.shape:
        raise ValueError(f"the teacher's logits are {found.teacher.shape}, the student's {student.shape}")
    if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= student.shape[1]:
        raise ValueError(f"targets are not class numbers from 0 to {student.shape[1] - 1}")
    if not all(np.isfinite(logits).all() for logits in (student, found.teacher) if logits is not None):
        raise ValueError("a logit is not finite")
    if found.thumbnails.ndim != 4 or found.thumbnails.dtype != np.uint8 or len(found.thumbnails) > len(targets):
        raise ValueError(
            f"thumbnails are {found.thumbnails.shape} {found.thumbnails.dtype}; expected (M, C, H, W) uint8"
        )
    rows = found.thumbnail_rows
    are_rows = rows.dtype.kind in "iu" and ((rows >= 0) & (rows < len(targets))).all()
    if rows.shape != found.thumbnails.shape[:1] or not are_rows:
        raise ValueError(f"thumbnail_rows are not {len(found.thumbnails)} rows of {len(targets)} images")
    names = found.class_names
    if names and (len(names) != student.shape[1] or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"{len(names)} class names for {student.shape[1]} classes")
