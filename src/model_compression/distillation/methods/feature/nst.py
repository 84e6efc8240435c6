"""Neuron selectivity transfer (Huang & Wang 2017, "Like what you like", arXiv 1707.01219)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_positions,
    feature_pairs,
    to_smaller,
)

_SILENT = 1e-6  # a channel whose norm is below says nothing about where; dividing by it would only blow up the gradient


def selectivity(features: Tensor) -> Tensor:
    """Each channel's map with L2 norm 1 over the positions, (B, C, H, W) → (B, C, H·W); silent channels are zero."""
    flat = features.flatten(2)
    norm: Tensor = torch.linalg.vector_norm(flat, dim=2, keepdim=True)  # (B, C, 1)
    return flat / norm.masked_fill(norm < _SILENT, torch.inf)


def mmd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy with the kernel (xᵀy)², of samples (B, C_s, P) and (B, C_t, P); mean over B."""
    positions = student.shape[2]
    if positions <= max(student.shape[1], teacher.shape[1]):
        # The same value: (xᵀy)² = ⟨xxᵀ, yyᵀ⟩. P² numbers for each image, where late layers would need C².
        s, t = (maps.mT @ maps / maps.shape[1] for maps in (student, teacher))  # (B, P, P)
        return (s - t).square().sum(dim=(1, 2)).mean()
    ss, tt, st = ((x @ y.mT).square().mean() for x, y in ((student, student), (teacher, teacher), (student, teacher)))
    return ss + tt - 2 * st


@METHODS.register("nst")
class NeuronSelectivity(Method):
    """The student's channels, as a set, fire at the positions where the teacher's do; widths may differ.

    Each channel is one sample, its map with L2 norm 1; MMD² between both sets with the polynomial kernel (xᵀy)², mean
    over the batch, summed over the pairs. Tap the ends of stages, after the activation: the paper takes the last one,
    the benchmark of CRD (arXiv 1910.10699), whose weight of 50 is the default, takes all. Memory is the batch times the
    smaller of positions² and channels².

    Deviations: the weight of the paper is λ/2. Its linear and Gaussian kernels, which did no better, are left out.
    Larger maps are average-pooled to the smaller.
    """

    needs = frozenset({"features"})
    default_weights = {"nst": 50.0}
    default_label_weight = 1.0
    per_sample = True

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Raises UsageError for maps of a single position."""
        check_positions("nst", shapes)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"nst": MMD², mean over the batch, summed over the pairs}."""
        pairs = (to_smaller(s, t) for s, t in feature_pairs(student, teacher))
        return {"nst": torch.stack([mmd(selectivity(s), selectivity(t)) for s, t in pairs]).sum()}
