"""Relational knowledge distillation (Park et al. 2019, "Relational knowledge distillation", arXiv 1904.05068)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, embedding_pair

_SHORTEST = 1e-12  # vectors below have no direction


def lengths_and_directions(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (…) and unit vectors (…, D) of vectors (…, D); a zero vector has no length, direction or gradient.

    Dividing by the largest element first keeps squares from overflowing, and the root at 1 or above, where its slope
    is finite.
    """
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    nonzero = ~(largest <= _SHORTEST)  # NaN stays NaN
    scaled = vectors / torch.where(nonzero, largest, math.inf)
    norm = torch.where(nonzero, scaled.square().sum(dim=-1, keepdim=True), 1.0).sqrt()
    return (torch.where(nonzero, largest, 0.0) * norm).squeeze(-1), scaled / norm


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors (…, D) of length 1; a zero vector stays zero and has no gradient."""
    return lengths_and_directions(vectors)[1]


def relations(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, B), relative to their mean, and cosines (B, B, B) of the angles at each sample, of vectors (B, D).

    The mean is of the positive distances alone: that of a sample to itself says nothing. Element (j, i, k) is the
    cosine of the angle between the lines from sample j to i and from j to k.
    """
    lengths, directions = lengths_and_directions(embedding[None] - embedding[:, None])  # (B, B), (B, B, D)
    mean = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    distances = lengths / torch.where(mean > 0, mean, 1.0)  # where all samples are one point, there is no scale
    return distances, directions @ directions.transpose(1, 2)  # (B, B), (B, B, B)


@METHODS.register("rkd")
class RKD(Method):
    """The student's embeddings keep the teacher's distances and angles between samples, whatever their widths.

    ψ_D(i, j) = ‖e_i − e_j‖ / μ with μ the mean positive distance in the batch, ψ_A(i, j, k) = cos ∠(e_i, e_j, e_k);
    both terms are Huber's loss (δ = 1) of the student's and the teacher's ψ. The embeddings are not normalised first,
    as that would take their length from the distances.

    The paper sums over pairs and triples. As in its authors' code, to which the weights 25 and 50 belong, these are
    means over all B² and B³, the zeros of i = j included. A side needs about (3 · D + B) · B² numbers of memory.
    """

    needs = frozenset({"embedding"})
    default_weights = {"distance": 25.0, "angle": 50.0}
    default_label_weight = 1.0

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"distance": Huber of ψ_D, mean over B² pairs, "angle": Huber of ψ_A, mean over B³ triples}."""
        s, t = embedding_pair(student, teacher)
        s_distances, s_angles = relations(s)
        t_distances, t_angles = relations(t)
        return {"distance": F.smooth_l1_loss(s_distances, t_distances), "angle": F.smooth_l1_loss(s_angles, t_angles)}
