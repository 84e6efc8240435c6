"""Contrastive representation distillation (Tian et al. 2020, "Contrastive representation distillation",
arXiv 1910.10699)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core import counter_random
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_number, embedding_pair
from model_compression.distillation.methods.relation.rkd import unit_vectors

_UNKNOWN = -1  # label of a sample that no batch has had yet


def draw_negatives(labels: Tensor, targets: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (B, n) of samples with another label than the target, and whether there are any such samples (B, 1).

    Uniform, with replacement, each from 31 random ``bits``. ``labels`` (N,) are of all samples, unknown ones −1, and
    ``targets`` (B,) of those in the batch. Nothing is drawn twice: in the order of labels a class is one block, and
    places among the other samples step over it.
    """
    sorted_labels, order = labels.sort(stable=True)
    first = torch.searchsorted(sorted_labels, targets)[:, None]
    size = torch.searchsorted(sorted_labels, targets, right=True)[:, None] - first
    candidates = len(labels) - size
    place = bits * candidates >> 31  # 0 to candidates − 1
    place = torch.where(place >= first, place + size, place).clamp(max=len(labels) - 1)
    return order[place], candidates > 0


def contrastive_loss(scores: Tensor, log_normaliser: Tensor, num_samples: int, usable: Tensor) -> Tensor:
    """Noise-contrastive loss −log h(positive) − Σ log(1 − h(negative)), mean over the batch (equations 9 and 18).

    h = P / (P + n / N) with P = exp(score) / Z, of ``scores`` (B, 1 + n), similarities divided by τ, the positive's
    first. In logarithms h is a sigmoid, which needs no eps. Negatives count where ``usable`` (B, n or 1).
    """
    noise = math.log((scores.shape[1] - 1) / num_samples)
    logits = scores - log_normaliser - noise
    negative = torch.where(usable, F.softplus(logits[:, 1:]), 0.0)
    return (F.softplus(-logits[:, 0]) + negative.sum(dim=1)).mean()


@METHODS.register("crd")
class CRD(Method):
    """The student's embedding of an image is told apart from other images' by the teacher's, and the other way round.

    Both embeddings are projected to ``dim`` numbers of length 1 by linear layers that are trained with the student; the
    teacher itself gets no gradient. Each is compared with the other side's memory: of the same image (positive) and of
    ``num_negatives`` images of other classes, anew at each step from (seed, step, sample index). A projection's memory
    then moves to it: m ← momentum · m + (1 − momentum) · new, at length 1. Z is N times the mean of exp(similarity / τ)
    in the first batch, for each side. All of this is saved with the run.

    Memory: 2 × N × dim × 4 bytes (51 MB for 50,000 images, 1.3 GB for 1.28 million, at 128). During a step that much
    again, and a few times B × N × 4 bytes.

    Labels become known as batches bring them. An image that no batch has had yet may serve as a negative of any class:
    its memory is still random numbers and belongs to none.

    As in the authors' code the positive is the memory's (the paper leaves open whether it is that or the embedding of
    the moment), so that the first epoch mostly fills the memory. Differences from that code: memories start at length
    1, negatives are drawn with replacement, logarithms have no eps.

    Args:
        dim: width of the projections, at least 1; the paper uses 128.
        num_negatives: n, at least 1; at most N are drawn. The paper uses 16384.
        temperature: τ, at least 0.001; the paper uses 0.07, and compared 0.02 to 0.3.
        momentum: share of a memory that stays, 0 up to, not including, 1; the paper's code uses 0.5.
    """

    needs = frozenset({"embedding"})
    uses_targets = True
    uses_ids = True
    default_weights = {"crd": 0.8}
    default_label_weight = 1.0
    uses_context = True
    student_memory: Tensor
    teacher_memory: Tensor
    labels: Tensor
    log_normalisers: Tensor

    def __init__(self, dim: int = 128, num_negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5):
        super().__init__()
        check_number(
            "crd: dim", dim, "a whole number of at least 1 (published: 128)", lambda n: n >= 1 and isinstance(n, int)
        )
        check_number(
            "crd: num_negatives",
            num_negatives,
            "a whole number of at least 1 (published: 16384)",
            lambda n: n >= 1 and isinstance(n, int),
        )
        check_number(
            "crd: temperature", temperature, "a number of at least 0.001 (published: 0.02 to 0.3)", lambda t: t >= 0.001
        )
        check_number("crd: momentum", momentum, "a number from 0, below 1 (published: 0.5)", lambda m: 0 <= m < 1)
        self.dim, self.num_negatives, self.temperature, self.momentum = dim, num_negatives, temperature, momentum

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the projections of both sides and their memories of ``num_samples`` random unit vectors."""
        self.student_projection = nn.Linear(shapes["student"]["embedding"][1], self.dim)
        self.teacher_projection = nn.Linear(shapes["teacher"]["embedding"][1], self.dim)
        self.register_buffer("student_memory", unit_vectors(torch.randn(num_samples, self.dim)))
        self.register_buffer("teacher_memory", unit_vectors(torch.randn(num_samples, self.dim)))
        self.register_buffer("labels", torch.full((num_samples,), _UNKNOWN, dtype=torch.int64))
        self.register_buffer("log_normalisers", torch.zeros(2))  # log Z of student's and teacher's scores

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"crd": noise-contrastive loss of the student's embeddings and that of the teacher's, mean over the batch}.

        In training mode it also updates the memories.
        """
        assert context is not None
        s, t = embedding_pair(student, teacher)
        s, t = unit_vectors(self.student_projection(s)), unit_vectors(self.teacher_projection(t))
        labels = self.labels.index_copy(0, context.ids, targets)
        picks, usable = self._picks(labels, targets, context)
        scores = torch.stack([self._scores(s, self.teacher_memory, picks), self._scores(t, self.student_memory, picks)])
        with torch.no_grad():
            # The first batch, before which no label is known, fixes Z. No branch: that would wait for the device.
            log_means = scores.flatten(1).logsumexp(dim=1) - math.log(picks.numel())
            first = (self.labels == _UNKNOWN).all()
            normalisers = torch.where(first, log_means + math.log(len(labels)), self.log_normalisers)
        terms = [contrastive_loss(*pair, len(labels), usable) for pair in zip(scores, normalisers, strict=True)]
        if self.training:
            self._remember(s.detach(), t.detach(), labels, normalisers, context.ids)
        return {"crd": terms[0] + terms[1]}

    def _picks(self, labels: Tensor, targets: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Sample numbers (B, 1 + n), each sample's own first, and whether there is any of another class (B, 1)."""
        count = min(self.num_negatives, len(labels))
        draws = context.ids[:, None] * count + torch.arange(count, device=targets.device)
        negatives, usable = draw_negatives(
            labels, targets, counter_random.random_bits(draws, context.seed, context.step)
        )
        return torch.cat([context.ids[:, None], negatives], dim=1), usable

    def _scores(self, anchors: Tensor, memory: Tensor, picks: Tensor) -> Tensor:
        """Similarities of anchors (B, D) with the picked rows of a memory, over τ (B, 1 + n).

        With all rows, of which some are then taken: B × n rows of D numbers would be far more than the B × N products.
        The copy stays as it is when the memory changes, which the gradient needs.
        """
        return (anchors @ memory.clone().T).gather(1, picks) / self.temperature

    @torch.no_grad()
    def _remember(self, s: Tensor, t: Tensor, labels: Tensor, normalisers: Tensor, indices: Tensor) -> None:
        """Moves the memories of these samples towards their projections, and keeps the labels and log Z."""
        for memory, new in ((self.student_memory, s), (self.teacher_memory, t)):
            mixed = self.momentum * memory[indices] + (1 - self.momentum) * new
            memory.index_copy_(0, indices, unit_vectors(mixed))
        self.labels.copy_(labels)
        self.log_normalisers.copy_(normalisers)
