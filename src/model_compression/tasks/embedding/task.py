"""The task of embeddings: a vector for each image, whose direction matters. Labels judge it, and are not learnt."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.metric import Metric, share_metric
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Mixed
from model_compression.data.dataset import Dataset
from model_compression.data.task_views import EMBEDDING, UNLABELLED
from model_compression.models.base import Network
from model_compression.reports.sections.neighbours import alignment, effective_rank, knn_classes
from model_compression.reports.statistics import Proportion
from model_compression.tasks.base import TASKS, Changes, Rows, Task
from model_compression.tasks.embedding.judgement import judge

_ALIKE = 0.999  # cosine of an embedding and the same one of an exported file
_COLLAPSED, _CONSTANT = 1.05, 1.001  # dimensions of a student that has diverged, and of a teacher
_SAMPLE = 256  # images by which a teacher is judged

_KNN = share_metric("knn", "k-NN accuracy", "k-NN accuracies")
_RANK = Metric(
    name="rank", label="effective rank", plural="effective ranks", gain_unit="dimensions", digits=1, lowest=0.0
)


@TASKS.register("embedding-unlabelled")
class UnlabelledEmbedding(Task):
    """Embeddings (B, D) of images that nobody has labelled: judged by how many dimensions they fill.

    What a student keeps of its teacher's embeddings is their linear CKA, see `agreement`.
    """

    name = UNLABELLED
    answer = "embedding"
    has_label_loss = False
    judged_by_labels = False
    metric = _RANK

    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """There is none: see ``has_label_loss``."""
        raise NotImplementedError

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The linear CKA of the batch with ``targets``, what the teacher answers, times B."""
        x, y = (one.float() - one.float().mean(dim=0) for one in (logits, targets.to(logits.dtype)))
        own = (x.T @ x).norm() * (y.T @ y).norm()
        found: Tensor = len(logits) * (x.T @ y).norm().square() / own.clamp(min=1e-12)
        return found

    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The teacher's embeddings themselves."""
        return logits

    def outputs(self, answered: Outputs) -> Outputs:
        """The answer is the embedding too, which relations are of."""
        return replace(answered, embedding=answered.logits)

    def rows(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Rows:
        """One for each image."""
        taught = None if teacher is None else self.outputs(teacher)
        return Rows(student=self.outputs(student), teacher=taught, targets=batch.targets, ids=batch.ids)

    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """The mean of embeddings of one width."""
        if len({answer.shape for answer in answers}) > 1:
            widths = ", ".join(str(answer.shape[1]) for answer in answers)
            raise UsageError(f"embeddings of several networks are averaged at one width, and these have {widths}")
        return torch.stack([answer.detach() for answer in answers]).mean(dim=0)

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """RankMe, in dimensions."""
        return {"rank": effective_rank(logits.numpy())}

    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """Linear CKA; the widths may differ."""
        return alignment(logits.numpy(), others.numpy())

    def changes(self, found: Tensor, reference: Tensor, largest: float) -> Changes:
        """Embeddings whose cosine is below 0.999."""
        cosines = F.cosine_similarity(found.double(), reference.double(), dim=1)
        others = (cosines < _ALIKE).nonzero().flatten()
        return Changes(others=tuple(others.tolist()), kind="embedding")

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """All embeddings along one line."""
        return f"its embeddings fill {value:.2f} dimensions: they have collapsed" if value < _COLLAPSED else None

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """None: nobody knows what is right."""
        return torch.zeros(0, dtype=torch.int64)

    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless ``answer`` to two samples is (2, D)."""
        if answer.ndim != 2 or answer.shape[1] < 2:
            raise UsageError(
                f"the {role} answers two images with {tuple(answer.shape)}; expected embeddings (2, width): a builder "
                "that takes num_classes must return features for 0"
            )

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """That all embeddings of 256 images lie along one line."""
        rank = effective_rank(predict(dataset.head(_SAMPLE)).numpy())
        said = f"gives {min(_SAMPLE, len(dataset))} images embeddings that fill {rank:.2f} dimensions"
        remedy = "look at its weights and its normalisation"
        return f"{said}: nothing can be learnt from them; {remedy}" if rank < _CONSTANT else None

    def num_outputs(self, dataset: Dataset) -> int:
        """0: a network's width."""
        return 0

    def answer_shape(self, dataset: Dataset) -> tuple[int | str, ...]:
        """Nothing: a network's width."""
        return ()


@TASKS.register("embedding")
class Embedding(UnlabelledEmbedding):
    """Embeddings (B, D) that classes (N, 1) judge: by a weighted vote of the 20 nearest among the other images."""

    name = EMBEDDING
    judged_by_labels = True
    metric = _KNN

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """How many images have their nearest one in the batch of the same class; without labels see `super`."""
        if targets.is_floating_point():
            return super().score(logits, targets)
        vectors = F.normalize(logits.float(), dim=1)
        cosines = (vectors @ vectors.T).fill_diagonal_(-math.inf)
        return (targets[cosines.argmax(dim=1)] == targets).sum()

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Share of the images that get their class, 0 to 1; and RankMe, in dimensions."""
        return {"knn": float(self._right(logits, targets).mean()), **super().figures(logits, targets)}

    def final_figures(
        self, answer: Callable[[Dataset], Tensor], train: Dataset, logits: Tensor, targets: Tensor
    ) -> dict[str, float]:
        """Where training images have classes: k-NN among these, and a linear probe with its 95 % interval, 0 to 1."""
        if not train.labelled or not train.has_ids:
            return {}
        found = judge(answer(train), self.tensor_of(train)[:, 0], logits, targets[:, 0])
        low, high = found.probe.interval
        return {
            "knn_by_training": found.knn.share,
            "linear_probe": found.probe.share,
            "linear_probe_low": low,
            "linear_probe_high": high,
        }

    def interval(self, value: float, count: int) -> tuple[float, float]:
        """That of a share (Wilson 1927)."""
        return Proportion(count=round(value * count), total=count).interval

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """A share within two standard errors of the largest class's says nothing."""
        share = float(np.unique(dataset.labels, return_counts=True)[1].max() / len(dataset))
        guess = share + 2 * math.sqrt(share * (1 - share) / len(dataset))
        return f"its {self.metric.label} of {value:.1%} is no better than guessing" if value <= guess else None

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """Images that get another class, in their order."""
        return torch.from_numpy(np.flatnonzero(~self._right(logits, targets)))

    def _right(self, logits: Tensor, targets: Tensor) -> Any:
        labels = targets[:, 0].numpy()
        return knn_classes(logits.numpy(), labels) == labels
