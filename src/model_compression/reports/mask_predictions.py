"""The predictions of a run for segmentation: masks of student and teacher on every test image, and the true ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.masks import IGNORE, Masks
from model_compression.reports.predictions import read_answers


@dataclass(frozen=True, kw_only=True)
class MaskPredictions:
    """Masks (N, H, W) of ``student`` and ``teacher`` (None without one), and the true ones, ``targets``.

    ``thumbnails`` (M, C, H, W) uint8 are the images ``thumbnail_rows`` (M,); ``class_names`` are K.
    """

    student: Masks
    teacher: Masks | None
    targets: Masks
    thumbnails: npt.NDArray[np.uint8]
    thumbnail_rows: npt.NDArray[np.int64]
    class_names: tuple[str, ...]


def read_masks(path: Path) -> MaskPredictions:
    """The masks in predictions.safetensors of a run. Raises FileFormatError for a damaged file."""

    def build(tensors: dict[str, Any], facts: dict[str, Any]) -> MaskPredictions:
        found = MaskPredictions(
            student=tensors["student_masks"],
            teacher=tensors.get("teacher_masks"),
            targets=tensors["targets"],
            thumbnails=tensors["thumbnails"],
            thumbnail_rows=tensors["thumbnail_rows"],
            class_names=tuple(facts["class_names"]),
        )
        _check(found)
        return found

    return read_answers(path, build)


def _check(found: MaskPredictions) -> None:
    """Raises ValueError for tensors that do not fit together."""
    classes, shape = len(found.class_names), found.targets.shape
    if len(shape) != 3 or not found.targets.size or not all(isinstance(name, str) for name in found.class_names):
        raise ValueError(f"targets are {shape}; expected masks (N, H, W) of named classes")
    for name, masks in (("student", found.student), ("teacher", found.teacher), ("true", found.targets)):
        if masks is None:
            continue
        most = masks if name != "true" else np.where(masks == IGNORE, 0, masks)
        if masks.dtype != np.uint8 or masks.shape != shape or most.max() >= classes:
            raise ValueError(f"the {name} masks are {masks.dtype} {masks.shape}; expected class numbers {shape}, uint8")
    rows = found.thumbnail_rows
    fits = (
        rows.dtype.kind in "iu" and rows.shape == found.thumbnails.shape[:1] and ((rows >= 0) & (rows < shape[0])).all()
    )
    if not fits or found.thumbnails.ndim != 4 or found.thumbnails.dtype != np.uint8:
        raise ValueError(f"thumbnails are {found.thumbnails.shape} of the rows {rows.shape} of {shape[0]} images")
