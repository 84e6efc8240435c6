"""Probabilistic knowledge transfer (Passalis & Tefas 2018, "Learning deep representations with probabilistic
knowledge transfer", arXiv 1803.10837)."""

import torch
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, embedding_pair
from model_compression.distillation.methods.relation.rkd import unit_vectors

_EPS = 1e-7  # what counts as no similarity


def neighbour_probabilities(embedding: Tensor) -> Tensor:
    """p_{j|i} (B, B) = K_ij / Σ_{k≠i} K_ik with K = (cos + 1) / 2 of embeddings (B, D); 0 on the diagonal."""
    unit = unit_vectors(embedding)
    others = 1 - torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
    kernel = ((unit @ unit.T + 1) / 2).clamp(min=_EPS) * others  # rounding can take it below zero
    return kernel / kernel.sum(dim=1, keepdim=True).clamp(min=_EPS)  # a batch of one has no neighbours


def transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_i Σ_{j≠i} p_{j|i} log(p_{j|i} / q_{j|i}) / B², p of the teacher's and q of the student's embeddings (B, D)."""
    p, q = neighbour_probabilities(teacher), neighbour_probabilities(student)
    diagonal = torch.eye(len(p), dtype=p.dtype, device=p.device)  # log 1 = 0 there
    return (p * ((p + diagonal).log() - (q + diagonal).log())).mean()


@METHODS.register("pkt")
class PKT(Method):
    """A sample has the same likely neighbours in the student's embedding space as in the teacher's.

    KL of p_{j|i}, the cosine similarities (scaled to 0..1) of sample i with all others, made to sum to 1. The paper
    sums over i and j ≠ i. As in its authors' code, to which the weight 30000 belongs, this is a mean over B². Unlike
    that code, and as in the paper, a sample is not its own neighbour: at a batch of 64 that code's values differ by a
    few per cent.
    """

    needs = frozenset({"embedding"})
    default_weights = {"pkt": 30000.0}
    default_label_weight = 1.0

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"pkt": Σ_i KL(p_i ‖ q_i) / B²}."""
        return {"pkt": transfer_loss(*embedding_pair(student, teacher))}
