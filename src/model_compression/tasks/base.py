"""The contract of a task: what an answer is, and how it is judged."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from model_compression.core.config import TeacherAnswers, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding
from model_compression.core.inputs import Inputs
from model_compression.core.metric import Metric
from model_compression.core.options import default_of, setting
from model_compression.core.outputs import Outputs
from model_compression.core.registry import Registry
from model_compression.data.batches import Batch, Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.tasks.answers import Answer


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The answers of a batch as rows: logits (N, K) of both sides, targets (N, …), and ids (N,) of their samples.

    Embeddings and features stay those of the samples. What is to be left out, as padding, is no row.
    """

    student: Outputs
    teacher: Outputs | None
    targets: Tensor
    ids: Tensor


def dense_rows(
    student: Outputs, teacher: Outputs | None, targets: Tensor, ids: Tensor, *, dim: int, ignore: int | None = None
) -> Rows:
    """The rows of answers to each part of a sample, as (B, K, H, W) to its pixels or (B, L, K) to its tokens.

    ``dim`` is that of the K numbers of a row. ``targets`` are (B, H, W) or (B, L), and those that are ``ignore`` are
    left out on both sides. ``ids`` (B,) are the samples'. Logits of pixels stay beside their rows, as ``maps``.
    """
    kept = torch.ones_like(targets, dtype=torch.bool) if ignore is None else targets != ignore

    def chosen(outputs: Outputs) -> Outputs:
        maps = outputs.logits if outputs.logits.ndim == 4 else None
        return replace(outputs, logits=outputs.logits.movedim(dim, -1)[kept], maps=maps)

    return Rows(
        student=chosen(student),
        teacher=None if teacher is None else chosen(teacher),
        targets=targets[kept],
        ids=ids.view(-1, *[1] * (targets.ndim - 1)).expand_as(targets)[kept],
    )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Answers that a user would call another one: ``others`` are the numbers of their samples.

    ``ties`` are those among them where the two answers differ by no more than rounding. ``kind`` is what an answer is
    called.
    """

    others: tuple[int, ...] = ()
    ties: tuple[int, ...] = ()
    kind: str = "answer"


Move = Literal["shift", "mirror"]
_SIDES = re.compile(r"\b(left|right)\b")


class Task(ABC):
    """Losses, figures and checks of one kind of answer. A task has no state; it is created by name."""

    name: ClassVar[str]
    answer: ClassVar[Answer]
    one_row_each: ClassVar[bool] = True
    """Whether a sample is one row of answers, see `rows`; else of several, as of its pixels."""
    has_maps: ClassVar[bool] = False
    """Whether logits are maps (B, K, H, W), which `rows` keeps as `Outputs.maps`."""
    kept_as: ClassVar[str] = "logits"
    """What predictions.safetensors calls what is `kept` of answers."""
    has_label_loss: ClassVar[bool] = True
    """Whether a network can learn from the labels; else they only judge it."""
    judged_by_labels: ClassVar[bool] = True
    """Whether ``metric`` is of labels; else a figure of the answers alone, which other answers may have as well."""
    metric: ClassVar[Metric]
    """The primary figure, by which networks are compared."""
    loss_options: ClassVar[frozenset[str]] = frozenset()
    """The options of `LOSS_OPTIONS` that its label loss knows."""
    finds_thresholds: ClassVar[bool] = False
    """Whether `tuned` learns from training samples that are held out."""

    def fitted(self, dataset: Dataset, facts: Mapping[str, Any]) -> "Task":
        """The task for targets as those of ``dataset``, with what a network's ``facts`` say of its answers."""
        return self

    def tuned(self, logits: Tensor, targets: Tensor) -> "Task":
        """The task with what is chosen by answers (N, …) to training samples that were held out, as thresholds."""
        return self

    # Training

    def moves(self, dataset: Dataset) -> frozenset[Move]:
        """What may be done to an image of ``dataset`` and leaves its target right; classes may be sides."""
        is_sided = any(_SIDES.search(name.lower()) for name in dataset.class_names)
        return frozenset({"shift"}) if is_sided else frozenset({"shift", "mirror"})

    def learning(self, config: TrainConfig, train: Dataset) -> "Task":
        """The task with the label loss that ``config`` asks for. Raises UsageError for options of other tasks."""
        for entry in fields(config):
            if entry.name in LOSS_OPTIONS - self.loss_options and getattr(config, entry.name) != default_of(entry):
                raise UsageError(f"{setting(entry.name)} has no effect on the task {self.name!r}; leave it out")
        return self

    @abstractmethod
    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """The loss with the labels, a mean over the batch; of ``mixed`` samples both labels count by their share."""

    @abstractmethod
    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The primary metric of each sample, summed over the batch: a scalar, without gradient."""

    @abstractmethod
    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The targets (B, …) that a network with these logits gives, which stand for labels where there are none.

        ``targets`` are the batch's own, which have no labels; they say which parts of a sample have a target.
        """

    def outputs(self, answered: Outputs) -> Outputs:
        """What methods are set up for, of ``answered`` samples."""
        return answered

    def rows(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Rows:
        """What methods compare; by default each sample is a row. See `dense_rows`."""
        return Rows(student=student, teacher=teacher, targets=batch.targets, ids=batch.ids)

    def weight(self, batch: Batch) -> float:
        """What the means over a part of a batch count beside the other parts: its number of rows."""
        return len(batch.targets)

    @abstractmethod
    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """The common answer of several networks, from the logits (B, …) of each, without gradient."""

    # Figures

    def kept(self, logits: Tensor) -> Tensor:
        """What evaluation keeps of the logits (B, …) of a batch, which the methods of this section take; default: all.

        A task whose logits are many keeps less, as the class of each pixel.
        """
        return logits

    @abstractmethod
    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """All figures by name, the primary metric first, of logits (N, …) on the CPU."""

    def compared(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What of logits (N, …) is an answer to something, by the ``targets``: what `agreement` is of."""
        return logits

    def further_figures(self, logits: Tensor, targets: Tensor, dataset: Dataset) -> dict[str, float]:
        """Figures that need more than the answers, as names of tags."""
        return {}

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

    def final_figures(
        self, answer: Callable[[Dataset], Tensor], train: Dataset, logits: Tensor, targets: Tensor
    ) -> dict[str, float]:
        """Further figures by name, once a run has ended, of ``logits`` (N, …) on the CPU.

        ``answer`` gives what the network answers to a dataset, as to ``train``, what it was trained on.
        """
        return {}

    # Checks

    @abstractmethod
    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless ``answer`` to two samples has the form that the dataset needs.

        ``role`` is "student", "teacher" or "model", for the message.
        """

    def answer_fault(
        self, role: str, model: Network, inputs: Inputs, expected: TeacherAnswers = "logits"
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

    def answer_findings(self, model: Network, inputs: Inputs) -> Iterator[Finding]:
        """Whether a teacher answers ``inputs`` with what the losses need."""
        yield from ()

    def teacher_findings(
        self, model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """Findings on a teacher from its answers to ``sample``, or without one; ``thorough`` for `doctor`."""
        yield from ()

    # Results

    def num_outputs(self, dataset: Dataset) -> int:
        """How many numbers a row of answers has; 0 where the networks alone say."""
        return dataset.num_outputs

    def answer_shape(self, dataset: Dataset) -> tuple[int | str, ...]:
        """Sizes of logits (B, …) behind the batch, for exported files; a name is a size that varies, as an input's."""
        return (dataset.num_outputs,)

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """What a weights file and predictions say of the answers, as names of classes; plain values."""
        return {}

    def tensor_of(self, dataset: Dataset) -> Tensor:
        """The targets (N, …) of a dataset."""
        return torch.from_numpy(dataset.labels)


LOSS_OPTIONS = frozenset({"huber", "class_weights"})
"""Fields of `TrainConfig` that only some tasks know."""

TASKS: Registry[Callable[[], Task]] = Registry("task", "model_compression.tasks")


def task_of(dataset: Dataset, facts: Mapping[str, Any] | None = None) -> Task:
    """The task that a dataset's targets belong to, with what a network's ``facts`` say of its answers.

    Raises UnknownNameError when no task has that name.
    """
    task: Task = TASKS.create(dataset.task)
    return task.fitted(dataset, facts or {})
