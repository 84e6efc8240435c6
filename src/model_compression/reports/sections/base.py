"""What reports know of the predictions of one task: a section for each task that has one. Knows nothing of torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_compression.core.masks import Masks
from model_compression.core.metric import DEFAULT_METRIC, primary_metric
from model_compression.core.registry import Registry
from model_compression.reports.rows import Tile

TASK = "task"
"""The key of metrics.json that names the task; results without it are of `DEFAULT_TASK`, where they have its metric."""
DEFAULT_TASK = "image-classification"


class Findings(ABC):
    """What the predictions of one run show, beside those of its teacher, if it has one."""

    template: ClassVar[str]
    """Shows `page_values`: a file in reports/page, or the text of a Jinja template."""

    @property
    @abstractmethod
    def samples(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def value(self) -> float:
        """The student's primary metric."""

    @property
    @abstractmethod
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the student's primary metric, over samples."""

    @property
    @abstractmethod
    def teacher_interval(self) -> tuple[float, float] | None:
        """The same of the teacher's."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, str]:
        """Further figures for tables, by heading."""

    @abstractmethod
    def tiles(self, of_seed: str, of_run: str) -> list[Tile]:
        """Further headline figures; ``of_seed`` and ``of_run`` end the notes that say what they are of."""

    @abstractmethod
    def page_values(self, series: int) -> dict[str, Any]:
        """What the template takes; ``series`` is the run's colour."""

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """An answer in words: ``classes`` with probabilities, the likeliest first, or ``values`` with names and units.

    ``present`` are the classes that a sample has, where it may have any number; else None. ``mask`` (H, W) are the
    classes of pixels, where these have one; ``classes`` then come with their shares of the pixels.
    """

    classes: tuple[tuple[str, float], ...] = ()
    present: tuple[str, ...] | None = None
    values: tuple[tuple[str, float], ...] = ()
    mask: Masks | None = None


class Section(ABC):
    """Reads and judges predictions.safetensors of runs of one task."""

    hub_task: ClassVar[str] = "other"
    """The task's name on the Hugging Face hub."""
    noun: ClassVar[str] = "images"
    """What several samples are called."""
    columns: ClassVar[Sequence[str]] = ()
    """Headings of `Findings.columns`."""
    interval_by: ClassVar[str] = ""
    """How `Findings.interval` is computed, in a word."""
    note: ClassVar[str] = ""
    """What those and the interval of one seed are, for Markdown."""
    gains_note: ClassVar[str] = ""
    """How one network is held against another on the same samples, for Markdown."""

    @abstractmethod
    def read(self, path: Path, data: str) -> Any:
        """The predictions in the file ``path`` of a run on ``data``. Raises FileFormatError for a damaged file."""

    @abstractmethod
    def figures(self, found: Any, kind: str) -> dict[str, float]:
        """Figures of metrics.json that the predictions give again, by key; ``kind`` is "test" or "validation"."""

    @abstractmethod
    def right(self, found: Any) -> npt.NDArray[np.bool_] | None:
        """(N,) which samples the student predicts right, for tests that take samples as independent.

        None where the primary metric is no share of right ones, or samples depend on each other.
        """

    @abstractmethod
    def are_same_samples(self, found: Any, other: Any) -> bool:
        """Whether two runs were measured on the same ones, as far as their files show."""

    @abstractmethod
    def agreement(self, found: Any, other: Any) -> float | None:
        """Share of the samples on which the student of ``found`` predicts what the teacher of ``other`` does, 0 to 1.

        None where there is no teacher.
        """

    @abstractmethod
    def examine(self, found: Any) -> Findings:
        """What the predictions show."""

    @abstractmethod
    def decode(self, logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, float]]:
        """What `predict` says of the answer (K, …) to one sample: names with probabilities, the likeliest first."""

    def describe(
        self, logits: npt.NDArray[np.float64], names: Sequence[str], facts: Mapping[str, Any]
    ) -> "Description":
        """What `predict` shows of the answer (K, …) to one sample; ``facts`` are those that the file states."""
        return Description(classes=tuple(self.decode(logits, names) if names else ()))

    @abstractmethod
    def card_figures(self, metrics: Mapping[str, Any], found: Any, kind: str) -> list[tuple[str, str]]:
        """Rows of a model card beyond the primary metric: name, value."""

    @abstractmethod
    def purpose(self, found: Any, source: str) -> str:
        """What the network is for: a sentence with ``source``, as "of cifar10"."""

    @abstractmethod
    def limits(self, found: Any, kind: str) -> list[str]:
        """What it is not for, a sentence each."""


SECTIONS: Registry[Callable[[], Section]] = Registry("report section", "model_compression.report_sections")


def section_of(metrics: Mapping[str, Any] | None) -> Section | None:
    """The section for results with these ``metrics``; None where their task has none."""
    task = (metrics or {}).get(TASK)
    if task is None and primary_metric(metrics) == DEFAULT_METRIC:
        task = DEFAULT_TASK
    return section_named(task) if isinstance(task, str) else None


def section_named(task: str) -> Section | None:
    """The section of ``task``; None where it has none."""
    section: Section | None = SECTIONS.create(task) if task in SECTIONS else None
    return section
