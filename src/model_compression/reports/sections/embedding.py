"""Embeddings of images whose classes judge them: nearest neighbours of student and teacher, as pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.text import percent, percent_interval
from model_compression.reports.predictions import read_answers
from model_compression.reports.rows import Tile, picture
from model_compression.reports.sections.base import SECTIONS, Findings, Section
from model_compression.reports.sections.neighbours import alignment, effective_rank, knn_classes, neighbours
from model_compression.reports.statistics import Proportion, to_plain

_QUERIES, _SHOWN = 8, 5  # pictures


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """``student`` (N, D) and ``teacher`` (N, E) embeddings; ``classes`` (N,).

    ``thumbnails`` (M, C, H, W) uint8 are the images ``thumbnail_rows`` (M,).
    """

    student: npt.NDArray[np.float32]
    teacher: npt.NDArray[np.float32] | None
    classes: npt.NDArray[np.int64]
    thumbnails: npt.NDArray[np.uint8]
    thumbnail_rows: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EmbeddingFindings(Findings):
    """How many images get their class from neighbours, how like the teacher's embeddings are, and who is near whom."""

    template = "embedding.html.j2"
    vectors: Vectors
    right: Proportion
    teacher_right: Proportion | None
    alignment: float | None
    """Linear CKA with the teacher, 0 to 1."""
    shared: float | None
    """Share of the 20 nearest images that student and teacher have in common."""
    rank: float
    teacher_rank: float | None

    @property
    def samples(self) -> int:
        """How many images."""
        return self.right.total

    @property
    def value(self) -> float:
        """The share that gets its class."""
        return self.right.share

    @property
    def interval(self) -> tuple[float, float]:
        """Of that share (Wilson)."""
        return self.right.interval

    @property
    def teacher_interval(self) -> tuple[float, float] | None:
        """Of the teacher's."""
        return None if self.teacher_right is None else self.teacher_right.interval

    @property
    def columns(self) -> Mapping[str, str]:
        """Linear CKA, and effective rank."""
        like = {} if self.alignment is None else {"CKA": percent(self.alignment)}
        return {**like, "rank": f"{self.rank:.1f}"}

    def tiles(self, of_seed: str, of_run: str) -> list[Tile]:
        """Likeness to the teacher, and rank."""
        found = []
        if self.alignment is not None:
            note = f"linear CKA of student's and teacher's embeddings, n = {self.samples:,} images{of_seed}{of_run}"
            found.append(Tile(name="Likeness", value=percent(self.alignment), note=note))
        note = f"dimensions that the embeddings fill, of {self.vectors.student.shape[1]}{of_seed}{of_run}"
        return [*found, Tile(name="Effective rank", value=f"{self.rank:.1f}", note=note)]

    def page_values(self, series: int) -> dict[str, Any]:
        """The images nearest to some, for both networks, among those whose pixels are there."""
        kept, pixels = self.vectors.thumbnail_rows, self.vectors.thumbnails
        sides = {"student": self.vectors.student, "teacher": self.vectors.teacher}
        nearest = {
            name: neighbours(side[kept[:_QUERIES]], side[kept], _SHOWN + 1)[0]
            for name, side in sides.items()
            if side is not None and len(kept) > 1
        }
        rows = []
        for place in range(min(_QUERIES, len(kept)) if nearest else 0):
            found = {
                name: [other for other in table[place] if other != place][:_SHOWN] for name, table in nearest.items()
            }
            rows.append(
                {
                    "query": picture(pixels[place]),
                    "found": {name: [self._shown(place, other) for other in others] for name, others in found.items()},
                }
            )
        return {"rows": rows, "right": percent(self.right.share), "right_interval": percent_interval(self.interval)}

    def _shown(self, place: int, other: int) -> tuple[str, bool]:
        """A picture, and whether it is of the same class."""
        classes, rows = self.vectors.classes, self.vectors.thumbnail_rows
        return picture(self.vectors.thumbnails[other]), bool(classes[rows[place]] == classes[rows[other]])

    def to_plain(self) -> dict[str, Any]:
        """All but the embeddings themselves."""
        names = ("right", "teacher_right", "alignment", "shared", "rank", "teacher_rank")
        return {name: to_plain(getattr(self, name)) for name in names}


@SECTIONS.register("embedding")
class EmbeddingSection(Section):
    """Embeddings (N, D) and classes (N, 1)."""

    hub_task = "image-feature-extraction"
    columns = ("CKA", "rank")
    interval_by = "Wilson"
    note = (
        "with one seed, the interval of that network over images (Wilson), which says nothing about other seeds. "
        "Linear CKA with the teacher's embeddings, and the rank, the dimensions that they fill: of the smallest seed"
    )
    gains_note = (
        "with one seed, interval (Agresti & Min) and p (McNemar) are those of the two networks over the same images"
    )

    def read(self, path: Path, data: str) -> Vectors:
        """Raises FileFormatError for a damaged file."""

        def build(tensors: dict[str, Any], facts: dict[str, Any]) -> Vectors:
            found = Vectors(
                student=tensors["student_logits"],
                teacher=tensors.get("teacher_logits"),
                classes=tensors["targets"].reshape(-1),
                thumbnails=tensors["thumbnails"],
                thumbnail_rows=tensors["thumbnail_rows"],
            )
            _check(found)
            return found

        return read_answers(path, build)

    def figures(self, found: Vectors, kind: str) -> dict[str, float]:
        """None: which of two near images is nearer may depend on how a processor rounds."""
        return {}

    def right(self, found: Vectors) -> npt.NDArray[np.bool_]:
        """Those that get their class from the others."""
        right: npt.NDArray[np.bool_] = knn_classes(found.student, found.classes) == found.classes
        return right

    def are_same_samples(self, found: Vectors, other: Vectors) -> bool:
        """Those with the same classes and thumbnails."""
        if not np.array_equal(found.classes, other.classes):
            return False
        common, ours, theirs = np.intersect1d(found.thumbnail_rows, other.thumbnail_rows, return_indices=True)
        return bool(len(common) == 0 or np.array_equal(found.thumbnails[ours], other.thumbnails[theirs]))

    def agreement(self, found: Vectors, other: Vectors) -> float | None:
        """Linear CKA."""
        return None if other.teacher is None else alignment(found.student, other.teacher)

    def examine(self, found: Vectors) -> EmbeddingFindings:
        """See `EmbeddingFindings`."""
        right, teacher = self.right(found), found.teacher
        taught = None if teacher is None else knn_classes(teacher, found.classes) == found.classes
        return EmbeddingFindings(
            vectors=found,
            right=_proportion(right),
            teacher_right=None if taught is None else _proportion(taught),
            alignment=None if teacher is None else alignment(found.student, teacher),
            shared=None if teacher is None else shared_neighbours(found.student, teacher),
            rank=effective_rank(found.student),
            teacher_rank=None if teacher is None else effective_rank(teacher),
        )

    def decode(self, logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, float]]:
        """Nothing: an embedding has no names."""
        return []

    def card_figures(self, metrics: Mapping[str, Any], found: Vectors | None, kind: str) -> list[tuple[str, str]]:
        """The linear probe and the rank."""
        rows = []
        probe = f"{kind}_linear_probe"
        if probe in metrics:
            interval = percent_interval((metrics[f"{probe}_low"], metrics[f"{probe}_high"]))
            rows.append(("linear probe, trained on training images", f"{percent(metrics[probe])} ({interval})"))
        if f"{kind}_rank" in metrics:
            rows.append(("effective rank, dimensions", f"{metrics[f'{kind}_rank']:.1f}"))
        return rows

    def purpose(self, found: Vectors, source: str) -> str:
        """What is compared by it."""
        width = found.student.shape[1]
        return (
            f"A vector of {width} numbers for each of images like those {source}: near in direction where images are "
            "alike. A backbone to fine-tune: give backbone.safetensors to a student as its weights."
        )

    def limits(self, found: Vectors, kind: str) -> list[str]:
        """That it names nothing."""
        return ["It names no class, and what it finds alike is what its teacher found alike."]


def shared_neighbours(vectors: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> float:
    """Share of the nearest images, of up to 20, that two sets of embeddings of the same images have in common."""
    ours, theirs = (neighbours(one)[0] for one in (vectors, others))
    if not ours.shape[1]:
        return 0.0
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(ours, theirs, strict=True)]))


def _proportion(right: npt.NDArray[np.bool_]) -> Proportion:
    return Proportion(count=int(right.sum()), total=len(right))


def _check(found: Vectors) -> None:
    """Raises ValueError for tensors that do not fit together."""
    count = len(found.classes)
    for name, vectors in (("student", found.student), ("teacher", found.teacher)):
        if vectors is not None and (vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all()):
            raise ValueError(f"embeddings of the {name} are {vectors.shape} for {count} images, or not finite")
    rows = found.thumbnail_rows
    if found.classes.dtype.kind not in "iu" or rows.dtype.kind not in "iu":
        raise ValueError("classes or rows are no integers")
    if (
        found.thumbnails.ndim != 4
        or rows.shape != found.thumbnails.shape[:1]
        or not ((rows >= 0) & (rows < count)).all()
    ):
        raise ValueError(f"thumbnails are {found.thumbnails.shape} for {len(rows)} rows of {count} images")
