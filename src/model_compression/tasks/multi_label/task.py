"""The task of samples with any number of classes each: K logits, each of a sigmoid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.config import TrainConfig
from model_compression.core.finding import Finding
from model_compression.core.metric import share_metric
from model_compression.data.batches import Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.reports.label_sets import (
    best_thresholds,
    binary_calibration,
    changed_sets,
    chosen,
    guessing_bound,
    macro_f1,
    mean_average_precision,
    wrong_sets,
)
from model_compression.tasks.base import TASKS, Changes
from model_compression.tasks.class_weights import NONE, check_each_has_samples, is_file, weights_in_order
from model_compression.tasks.multi_label.findings import examine_labels, examine_teacher, find_fault
from model_compression.tasks.named_classes import LogitPerClass

MEAN_AVERAGE_PRECISION = share_metric("map", "mAP", "mAPs")


@TASKS.register("multi-label")
class MultiLabel(LogitPerClass):
    """Any number of K classes for each sample; labels (N, K) are 0 or 1.

    A class is predicted where its probability is at least its threshold: one half, or what `tuned` chose.
    """

    name = "multi-label"
    answer = "bernoulli"
    metric = MEAN_AVERAGE_PRECISION
    loss_options = frozenset({"class_weights"})
    finds_thresholds = True

    def __init__(self, thresholds: Sequence[float] = (), weights: Tensor | None = None):
        self.thresholds, self._weights = tuple(thresholds), weights

    def fitted(self, dataset: Dataset, facts: Mapping[str, Any]) -> "MultiLabel":
        """With the thresholds that a network's file states."""
        found = facts.get("thresholds")
        if not isinstance(found, list) or len(found) != dataset.num_outputs:
            return self
        return MultiLabel([float(one) for one in found])

    def tuned(self, logits: Tensor, targets: Tensor) -> "MultiLabel":
        """With the thresholds of the largest F1, see `best_thresholds`."""
        return MultiLabel(best_thresholds(logits.numpy(), targets.numpy()), self._weights)

    # Training

    def learning(self, config: TrainConfig, train: Dataset) -> "MultiLabel":
        """With weights of the classes: a file's, or how many training samples lack a class for each that has it."""
        super().learning(config, train)
        if config.class_weights == NONE:
            return self
        if is_file(config.class_weights):
            return MultiLabel(self.thresholds, weights_in_order(config.class_weights, train.class_names))
        counts = train.labels.astype(np.float64).sum(axis=0)
        check_each_has_samples(counts, train.class_names)
        return MultiLabel(self.thresholds, torch.from_numpy((len(train) - counts) / counts).float())

    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """Binary cross-entropy in nats, a mean over samples and classes; labels are smoothed towards one half."""
        weights = None if self._weights is None else self._weights.to(logits)

        def loss(labels: Tensor) -> Tensor:
            wanted = labels.to(logits.dtype) * (1 - label_smoothing) + 0.5 * label_smoothing
            return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="none").mean(dim=1)

        if mixed is None:
            return loss(targets).mean()
        return (mixed.share * loss(targets) + (1 - mixed.share) * loss(mixed.targets)).mean()

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The average precision of each sample's own ranking of the classes, summed over the batch.

        It stands for mAP while training, as that cannot be added up; 1 for a sample without classes.
        """
        ranked = targets.gather(1, logits.argsort(dim=1, descending=True, stable=True)).to(torch.float32)
        hits = ranked.cumsum(dim=1)
        places = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
        found = (hits / places * ranked).sum(dim=1) / hits[:, -1].clamp_min(1)
        return torch.where(hits[:, -1] > 0, found, 1.0).sum()

    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K) the classes of a probability of at least one half."""
        return (logits >= 0).to(torch.uint8)

    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) whose sigmoid is the mean of the sigmoids; of one network its own."""
        logits = torch.stack([answer.detach() for answer in answers])
        if len(answers) == 1:
            return logits[0]
        return F.logsigmoid(logits).logsumexp(dim=0) - F.logsigmoid(-logits).logsumexp(dim=0)

    # Figures

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """mAP and macro F1, 0 to 1; mean binary cross-entropy, in nats; expected calibration error, 0 to 1."""
        found, labels = logits.numpy(), targets.numpy()
        calibration = binary_calibration(found, labels)
        return {
            "map": mean_average_precision(found, labels),
            "f1": macro_f1(found, labels, self.thresholds),
            "nll": calibration.nll,
            "ece": calibration.ece,
        }

    def value(self, logits: Tensor, targets: Tensor) -> float:
        """mAP."""
        return mean_average_precision(logits.numpy(), targets.numpy())

    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """Share of the N · K answers, present or not, that are the same."""
        return float(np.mean(chosen(logits.numpy(), self.thresholds) == chosen(others.numpy(), self.thresholds)))

    def changes(self, found: Tensor, reference: Tensor, largest: float) -> Changes:
        """Samples that get other classes; a tie is one whose classes all lie within ``largest`` of their thresholds."""
        bounds = torch.tensor(self.thresholds or [0.5] * reference.shape[1], dtype=torch.float64).logit()
        others = torch.from_numpy(np.flatnonzero(changed_sets(found.numpy(), reference.numpy(), self.thresholds)))
        rows, flipped = (
            reference[others].double(),
            (found[others].double() >= bounds) != (reference[others].double() >= bounds),
        )
        ties = others[(((rows - bounds).abs() <= largest) | ~flipped).all(dim=1)]
        return Changes(others=tuple(others.tolist()), ties=tuple(ties.tolist()), kind="set of classes")

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """A mAP that answers at random may have says nothing."""
        return f"its mAP of {value:.1%} is no better than guessing" if value <= guessing_bound(dataset.labels) else None

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """The samples with a wrong class, and where there are ``others`` a right one from those."""
        rows = wrong_sets(logits.numpy(), None if others is None else others.numpy(), targets.numpy(), self.thresholds)
        return torch.from_numpy(rows)

    # Checks

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """Classes in another order, or answers that know nothing of them."""
        return find_fault(predict, dataset, advice)

    def data_findings(self, train: Dataset, test: Dataset) -> Iterator[Finding]:
        """Classes that no sample has, or all, and unequal ones."""
        return examine_labels(train, test)

    def teacher_findings(
        self, model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """Names, mAP and order of the classes."""
        return examine_teacher(model, train, sample, device, thorough=thorough)

    # Results

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """The names of the classes, and the thresholds where they were chosen."""
        return super().facts(dataset) | ({"thresholds": list(self.thresholds)} if self.thresholds else {})
