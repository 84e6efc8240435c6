"""The predictions of a run: logits of student and teacher on every test image, with targets and thumbnails."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import FileFormatError

T = TypeVar("T")
Logits = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NAMES = {"cifar10": _CIFAR10}
"""Of the classes, for files that do not name them."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """``student`` and ``teacher`` (None without one) logits (N, K); ``targets`` (N,).

    ``thumbnails`` (M, C, H, W) uint8 are the images ``thumbnail_rows`` (M,): the first, and some that the student gets
    wrong. ``class_names`` are K, or none where the run does not tell. ``excerpts`` are the beginnings of some texts, by
    their number. Where samples are words, ``texts`` (N,) are the numbers of theirs; ``noun`` is what samples are.
    """

    student: Logits
    teacher: Logits | None
    targets: Classes
    thumbnails: npt.NDArray[np.uint8]
    thumbnail_rows: Classes
    class_names: tuple[str, ...]
    excerpts: Mapping[int, str] = field(default_factory=dict)
    texts: Classes | None = None
    noun: str = "images"

    @property
    def shown_rows(self) -> Classes:
        """The samples that can be shown: as thumbnails or excerpts."""
        shown = np.array(sorted(self.excerpts), dtype=np.int64)
        if self.noun == "images":
            return self.thumbnail_rows
        return shown if self.texts is None else np.flatnonzero(np.isin(self.texts, shown))

    def name_of(self, number: int) -> str:
        """The name of class ``number``."""
        return self.class_names[number] if self.class_names else f"class {number}"

    def thumbnail(self, row: int) -> npt.NDArray[np.uint8]:
        """Image ``row`` (C, H, W), which is one of ``thumbnail_rows``."""
        found: npt.NDArray[np.uint8] = self.thumbnails[int(np.flatnonzero(self.thumbnail_rows == row)[0])]
        return found


def read_predictions(path: Path, data: str, noun: str = "images") -> Predictions:
    """The content of predictions.safetensors of a run on ``data``. Raises FileFormatError for a damaged file.

    ``noun`` is "images", "texts", or "words" where logits (N, L, K) are of tokens: words become rows.
    """

    def build(tensors: dict[str, Any], facts: dict[str, Any]) -> Predictions:
        names, excerpts = facts.get("class_names"), _excerpts(tensors, facts.get("excerpts", []))
        if noun != "images":
            tensors = {"thumbnails": np.zeros((0, 1, 1, 1), np.uint8), **tensors}
        texts = _flatten(tensors) if noun == "words" else None
        found = Predictions(
            student=tensors["student_logits"],
            teacher=tensors.get("teacher_logits"),
            targets=tensors["targets"],
            thumbnails=tensors["thumbnails"],
            thumbnail_rows=tensors.get("thumbnail_rows", np.arange(len(tensors["thumbnails"]))),
            class_names=_NAMES.get(data, ()) if names is None else tuple(names),
            excerpts=excerpts,
            texts=texts,
            noun=noun,
        )
        _check(found)
        return found

    return read_answers(path, build)


def read_answers(path: Path, build: Callable[[dict[str, Any], dict[str, Any]], T]) -> T:
    """What ``build`` makes of the tensors in the file ``path``, and of the facts that its header states.

    Raises FileFormatError for a damaged file, and where ``build`` raises KeyError, TypeError or ValueError.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            tensors: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            facts = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return build(tensors, facts)
    except KeyError as error:
        raise FileFormatError(f"{path} is damaged: it has no {error.args[0]}") from None
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error}; is it yours to read?") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None


def _excerpts(tensors: Mapping[str, Any], texts: Sequence[Any]) -> dict[int, str]:
    """Texts by their number. Raises ValueError where they do not fit their numbers."""
    rows = tensors.get("excerpt_rows", np.zeros(0, np.int64))
    if len(texts) != len(rows) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"there are {len(texts)} excerpts of {len(rows)} texts")
    return dict(zip(rows.tolist(), texts, strict=True))


def _flatten(tensors: dict[str, Any]) -> Classes:
    """Makes rows of the words of (N, L, …) in place; (M,) the number of the text of each word."""
    known = tensors["targets"] >= 0
    if known.ndim != 2:
        raise ValueError(f"targets are {known.shape}; expected (N, L)")
    for name in ("student_logits", "teacher_logits", "targets"):
        if name in tensors:
            if tensors[name].shape[:2] != known.shape:
                raise ValueError(f"{name} are {tensors[name].shape}, targets {known.shape}")
            tensors[name] = tensors[name][known]
    texts: Classes = np.nonzero(known)[0]
    return texts


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
