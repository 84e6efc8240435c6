"""Correlation congruence (Peng et al. 2019, "Correlation congruence for knowledge distillation", arXiv 1904.01802)."""

import math

import torch
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_number, embedding_pair
from model_compression.distillation.methods.relation.rkd import unit_vectors


def correlations(embedding: Tensor, gamma: float, order: int) -> Tensor:
    """Σ_{p=0}^{order} e^{−2γ} (2γ)^p / p! · (x_i · x_j)^p (B, B), x being the embeddings (B, D) at length 1.

    That is the Taylor series of the Gaussian kernel exp(−γ ‖x_i − x_j‖²), as ‖x_i − x_j‖² = 2 − 2 x_i · x_j.
    """
    unit = unit_vectors(embedding)
    cosines = unit @ unit.T  # (B, B)
    total = torch.zeros_like(cosines)
    for power in reversed(range(order + 1)):  # Horner
        total = total * cosines + math.exp(-2 * gamma) * (2 * gamma) ** power / math.factorial(power)
    return total


def congruence_loss(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """Mean over B² pairs of the squared difference of correlations of embeddings (B, D), which may differ in D."""
    difference = correlations(student, gamma, order) - correlations(teacher, gamma, order)
    # The matrix is symmetric, and a sample's correlation with itself the same for all but rounding: the half is enough.
    return 2 * difference.triu(1).square().sum() / difference.numel()


@METHODS.register("cc")
class CC(Method):
    """The student's embeddings correlate within a batch as the teacher's do, by a Gaussian kernel's Taylor series.

    The benchmark of arXiv 1910.10699 has under this name products of differences of neighbouring samples, after a
    projection, with a weight of 0.02: another loss, on another scale. Ours is the paper's, without projection; the
    weight 100 is what Knowledge-Distillation-Zoo uses for the same formula.

    Args:
        gamma: γ of the kernel exp(−γ ‖x_i − x_j‖²), above 0, up to 10; the paper uses 0.4.
        order: the highest power of the series, 1 to 20; the paper uses 1 to 3, 2 by default.
    """

    needs = frozenset({"embedding"})
    default_weights = {"cc": 100.0}
    default_label_weight = 1.0

    def __init__(self, gamma: float = 0.4, order: int = 2):
        super().__init__()
        check_number("cc: gamma", gamma, "a number above 0, up to 10 (published: 0.4)", lambda value: 0 < value <= 10)
        check_number(
            "cc: order",
            order,
            "a whole number from 1 to 20 (published: 1 to 3)",
            lambda value: 1 <= value <= 20 and isinstance(value, int),
        )
        self.gamma, self.order = gamma, order

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"cc": mean over B² pairs of the squared difference of the correlations}."""
        s, t = embedding_pair(student, teacher)
        return {"cc": congruence_loss(s, t, self.gamma, self.order)}
