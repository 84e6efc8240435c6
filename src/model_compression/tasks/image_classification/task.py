"""The task of images with one class each: K logits, of which the largest is the answer."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.finding import Finding
from model_compression.core.metric import ACCURACY
from model_compression.data.batches import Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.reports.answers import find_mistakes
from model_compression.reports.statistics import Proportion
from model_compression.tasks.base import TASKS, Changes
from model_compression.tasks.class_weights import WeighsClasses
from model_compression.tasks.image_classification.data_findings import examine_labels
from model_compression.tasks.image_classification.figures import agreement, figures
from model_compression.tasks.image_classification.teacher_faults import find_fault
from model_compression.tasks.image_classification.teacher_findings import examine_teacher
from model_compression.tasks.named_classes import LogitPerClass


@TASKS.register("image-classification")
class ImageClassification(LogitPerClass, WeighsClasses):
    """One class of K for each image; labels (N,) are class numbers."""

    name = "image-classification"
    answer = "categorical"
    metric = ACCURACY

    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """Cross-entropy, in nats, times the weight of the class."""
        weights = self.weights_for(logits)
        if mixed is None and weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        own, other = (
            F.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing, reduction="none")
            for labels in (targets, targets if mixed is None else mixed.targets)
        )
        if mixed is None:
            return own.mean()
        return (mixed.share * own + (1 - mixed.share) * other).mean()

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """How many images (B,) get their class."""
        return (logits.argmax(dim=1) == targets).sum()

    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) the classes of the largest logits."""
        return logits.argmax(dim=1)

    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) whose softmax is the mean of the softmaxes; of one network its own."""
        logits = [answer.detach() for answer in answers]
        if len(logits) == 1:
            return logits[0]
        log_p = torch.stack([F.log_softmax(one, dim=1) for one in logits])
        return log_p.logsumexp(dim=0) - math.log(len(logits))

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Accuracy, 0 to 1; negative log-likelihood, in nats; expected calibration error, 0 to 1."""
        return figures(logits, targets)

    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """Share of the images for which both choose the same class."""
        return agreement(logits, others)

    def interval(self, value: float, count: int) -> tuple[float, float]:
        """That of a share (Wilson 1927)."""
        return Proportion(count=round(value * count), total=count).interval

    def changes(self, found: Tensor, reference: Tensor, largest: float) -> Changes:
        """Images that get another class; a tie is one whose two classes ``largest`` could turn."""
        chosen, expected = found.argmax(dim=1), reference.argmax(dim=1)
        others = (chosen != expected).nonzero().flatten()
        rows = reference[others]
        margin = (rows.gather(1, expected[others, None]) - rows.gather(1, chosen[others, None])).flatten()
        ties = others[margin <= 2 * largest]
        return Changes(others=tuple(others.tolist()), ties=tuple(ties.tolist()), kind="class")

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """An accuracy within two standard errors of the largest class's share says nothing."""
        share = float(np.bincount(dataset.labels).max() / len(dataset))
        guess = share + 2 * math.sqrt(share * (1 - share) / len(dataset))
        return f"its accuracy of {value:.1%} is no better than guessing" if value <= guess else None

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """The images that get a wrong class, and where there are ``others`` a right one from those."""
        rows = find_mistakes(logits.numpy(), None if others is None else others.numpy(), targets.numpy())
        return torch.from_numpy(rows)

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """Weak answers, one class for all images, or classes in another order; see `teacher_faults`."""
        stated = model.facts.get("test_accuracy")
        return find_fault(
            lambda sample: predict(sample).argmax(dim=1).numpy(),
            dataset,
            stated if isinstance(stated, float) else None,
            advice,
        )

    def data_findings(self, train: Dataset, test: Dataset) -> Iterator[Finding]:
        """Classes without images, and unequal ones."""
        return examine_labels(train, test)

    def teacher_findings(
        self, model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """Class names, accuracy, normalisation and the order of the classes."""
        return examine_teacher(model, train, sample, device, thorough=thorough)
