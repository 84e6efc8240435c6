"""The task of samples with D real numbers each, which networks answer in deviations from the training data's mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.config import TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding
from model_compression.core.metric import Metric
from model_compression.core.options import setting
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.reports.values import (
    figures_by_name,
    in_units,
    largest_errors,
    names_or_numbers,
    r_squared,
)
from model_compression.tasks.base import TASKS, Move, Rows, Task
from model_compression.tasks.regression.findings import (
    check_scale,
    examine_targets,
    examine_teacher,
    find_fault,
    other_numbers,
)

R_SQUARED = Metric(name="r2", label="R²", plural="R²", unit="%", gain_unit="points", factor=100.0, highest=1.0)


@TASKS.register("regression")
class Regression(Task):
    """D real numbers for each sample; labels (N, D) in their units.

    Networks answer with (target − mean) / deviation, by the scale of the dataset, so that all targets weigh alike;
    figures are in units. The primary metric is R², the share of the targets' variance that the answers explain, a mean
    over targets: it has no unit, so it serves targets of different ones.
    """

    name = "regression"
    answer = "real"
    metric = R_SQUARED
    loss_options = frozenset({"huber"})

    def __init__(
        self, names: Sequence[str] = (), mean: Sequence[float] = (), std: Sequence[float] = (), huber: float = 0.0
    ):
        self.names, self.mean, self.std, self.huber = tuple(names), tuple(mean), tuple(std), huber

    def moves(self, dataset: Dataset) -> frozenset[Move]:
        """None: numbers may tell where in the image something is."""
        return frozenset()

    def fitted(self, dataset: Dataset, facts: Mapping[str, Any]) -> "Regression":
        """With the scale of the dataset."""
        return Regression(dataset.target_names, dataset.target_mean, dataset.target_std, self.huber)

    def scaled(self, targets: Tensor) -> Tensor:
        """(N, D) targets as networks see them, float32."""
        if not self.mean:
            return targets.float()
        mean, std = (torch.tensor(one, dtype=targets.dtype, device=targets.device) for one in (self.mean, self.std))
        return ((targets - mean) / std).float()

    # Training

    def learning(self, config: TrainConfig, train: Dataset) -> "Regression":
        """With the width of the Huber loss."""
        super().learning(config, train)
        if config.label_smoothing:
            raise UsageError(f"{setting('label_smoothing')} is for classes, and the targets are numbers; leave it out")
        return Regression(self.names, self.mean, self.std, config.huber)

    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """Squared error in deviations², or Huber loss (1964) of its width; a mean over samples and numbers."""

        def loss(wanted: Tensor) -> Tensor:
            scaled = self.scaled(wanted).to(logits.dtype)
            if self.huber:
                return F.huber_loss(logits, scaled, delta=self.huber, reduction="none").mean(dim=1)
            return (logits - scaled).square().mean(dim=1)

        if mixed is None:
            return loss(targets).mean()
        return (mixed.share * loss(targets) + (1 - mixed.share) * loss(mixed.targets)).mean()

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """1 − mean squared error in deviations² of each sample, summed: R², as the training data's variance is one."""
        return (1 - (logits - self.scaled(targets)).square().mean(dim=1)).sum()

    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, D) the answers in units."""
        if not self.mean:
            return logits
        mean, std = (torch.tensor(one, dtype=logits.dtype, device=logits.device) for one in (self.mean, self.std))
        return logits * std + mean

    def rows(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Rows:
        """Each sample is a row, and its targets are scaled as the answers are."""
        return replace(super().rows(student, teacher, batch), targets=self.scaled(batch.targets))

    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """The mean (B, D)."""
        return torch.stack([answer.detach() for answer in answers]).mean(dim=0)

    # Figures

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """R², mean absolute and root mean square error in units; of several targets also of each."""
        return figures_by_name(in_units(logits.numpy(), self.mean, self.std), targets.numpy(), self.names)

    def value(self, logits: Tensor, targets: Tensor) -> float:
        """R², the mean over targets."""
        return float(r_squared(in_units(logits.numpy(), self.mean, self.std), targets.numpy()).mean())

    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """Share of the variance of the other answers that these explain, 0 to 1."""
        return max(0.0, float(r_squared(logits.double().numpy(), others.numpy()).mean()))

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """An R² of 0 is that of the targets' mean."""
        if value > 0:
            return None
        return f"its R² of {value:.1%} is no better than the mean of the targets, whatever the sample"

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """The samples with the largest errors, and where there are ``others`` less the errors of those."""
        scaled = self.scaled(targets).double().numpy()
        rows = largest_errors(logits.numpy(), None if others is None else others.numpy(), scaled)
        return torch.from_numpy(rows)

    # Checks

    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless there is an answer for each number, in the dataset's order and scale."""
        check_scale(role, model, dataset, answer)

    def differences(self, model: Network, dataset: Dataset) -> list[str]:
        """A line where network and dataset name their numbers differently, as with another unit."""
        return other_numbers(model, dataset)

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """Answers in other units, in another order, or that know nothing of the targets."""
        return find_fault(model, lambda part: predict(part).numpy(), dataset, advice)

    def data_findings(self, train: Dataset, test: Dataset) -> Iterator[Finding]:
        """Range of the targets, and values far outside."""
        return examine_targets(train, test)

    def teacher_findings(
        self, model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """R², scale and order of the numbers."""
        return examine_teacher(model, sample, device) if thorough else iter(())

    # Results

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """Names with units, and the scale."""
        names = names_or_numbers(dataset.target_names, dataset.num_outputs)
        scale = {"target_mean": list(self.mean), "target_std": list(self.std)} if self.mean else {}
        return {"target_names": names, **scale}
