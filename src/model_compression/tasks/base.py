"""The contract of a task: what an answer is, and how it is judged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from model_compression.core.config import TeacherAnswers
from model_compression.core.finding import Finding
from model_compression.core.metric import Metric
from model_compression.core.outputs import Outputs
from model_compression.core.registry import Registry
from model_compression.data.dataset import Dataset
from model_compression.data.loader import Batch, Mixed
from model_compression.models.base import Network

Answer = Literal["categorical", "bernoulli", "real"]
"""What a row of K numbers means: logits of a softmax, logits of K sigmoids, or K real numbers."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The answers of a batch as rows: logits (N, K) of both sides, targets (N, …), and ids (N,) of their samples."""

    student: Outputs
    teacher: Outputs | None
    targets: Tensor
    ids: Tensor


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Answers that a user would call another one: ``others`` are the numbers of their samples.

    ``ties`` are those among them where the two answers differ by no more than rounding. ``kind`` is what an answer is
    called.
    """

    others: tuple[int, ...] = ()
    ties: tuple[int, ...] = ()
    kind: str = "answer"


class Task(ABC):
    """Losses, figures and checks of one kind of answer. A task has no state; it is created by name."""

    name: ClassVar[str]
    answer: ClassVar[Answer]
    metric: ClassVar[Metric]
    """The primary figure, by which networks are compared."""

    # Training

    @abstractmethod
    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """The loss with the labels, a mean over the batch; of ``mixed`` samples both labels count by their share."""

    @abstractmethod
    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The primary metric of each sample, summed over the batch: a scalar, without gradient."""

    @abstractmethod
    def as_targets(self, logits: Tensor) -> Tensor:
        """The targets (B, …) that a network with these logits gives, which stand for labels where there are none."""

    def rows(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Rows:
        """What methods compare; by default each sample is a row."""
        return Rows(student=student, teacher=teacher, targets=batch.targets, ids=batch.ids)

    @abstractmethod
    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """The common answer of several networks, from the logits (B, …) of each, without gradient."""

    # Figures

    @abstractmethod
    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """All figures by name, the primary metric first, of logits (N, …) on the CPU."""

    def value(self, logits: Tensor, targets: Tensor) -> float:
        """The primary metric."""
        return self.figures(logits, targets)[self.metric.name]

    @abstractmethod
    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """How alike the answers (N, …) of two networks are, 0 to 1."""

    def interval(self, value: float, count: int) -> tuple[float, float] | None:
        """95 % interval of the primary metric ``value`` on ``count`` samples; None where these do not give it."""
        return None

    def changes(self, found: Tensor, reference: Tensor, largest: float) -> Changes:
        """Where logits ``found`` (N, …) are another answer than ``reference``; they differ by at most ``largest``."""
        return Changes()

    @abstractmethod
    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """Says that the primary metric ``value`` on ``dataset`` is no better than guessing; None where it is better."""

    @abstractmethod
    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """(M,) numbers of the samples (of N) that a person should look at, the worst first."""

    # Checks

    @abstractmethod
    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless ``answer`` to two samples has the form that the dataset needs.

        ``role`` is "student", "teacher" or "model", for the message.
        """

    def answer_fault(
        self, role: str, model: Network, images: Tensor, expected: TeacherAnswers = "logits"
    ) -> str | None:
        """What is wrong with a network that answers with something else than ``expected``, and the remedy."""
        return None

    def differences(self, model: Network, dataset: Dataset) -> list[str]:
        """What a trained network says of its answers that the dataset says otherwise, a line each."""
        return []

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """What is wrong with a teacher's answers to ``dataset``; None where nothing is seen.

        ``predict`` gives its logits; ``advice`` says what to look at when they are bad.
        """
        return None

    def data_findings(self, train: Dataset, test: Dataset) -> Iterator[Finding]:
        """Findings on the labels."""
        yield from ()

    def answer_findings(self, model: Network, images: Tensor) -> Iterator[Finding]:
        """Whether a teacher answers ``images`` with what the losses need."""
        yield from ()

    def teacher_findings(
        self, model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """Findings on a teacher from its answers to ``sample``, or without one; ``thorough`` for `doctor`."""
        yield from ()

    # Results

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """What a weights file and predictions say of the answers, as names of classes; plain values."""
        return {}

    def tensor_of(self, dataset: Dataset) -> Tensor:
        """The targets (N, …) of a dataset."""
        return torch.from_numpy(dataset.labels)


TASKS: Registry[Callable[[], Task]] = Registry("task", "model_compression.tasks")


def task_of(dataset: Dataset) -> Task:
    """The task that a dataset's targets belong to. Raises UnknownNameError when no task has that name."""
    task: Task = TASKS.create(dataset.task)
    return task
