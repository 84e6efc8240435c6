"""Attention transfer (Zagoruyko & Komodakis 2017, "Paying more attention to attention", arXiv 1612.03928)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
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


def attention(features: Tensor) -> Tensor:
    """Mean of f² over the channels, of L2 norm 1 over the positions: (B, C, H, W) → (B, H·W); zeros stay zeros."""
    return F.normalize(features.square().mean(dim=1).flatten(1), dim=1)


def attention_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch and positions of (Q_s − Q_t)², of maps of the same height and width."""
    return (attention(student) - attention(teacher)).square().mean()


@METHODS.register("at")
class AttentionTransfer(Method):
    """The student looks where the teacher looks. Widths may differ, nothing is learned: a good first feature method.

    With Q = Σ_c f_c² / ‖Σ_c f_c²‖₂ per image, the mean over batch and positions of (Q_s − Q_t)², summed over the
    pairs. Tap the ends of the stages, after the activation; the paper takes all three on CIFAR.

    Deviations: equation 2 of the paper has the norm of the difference and the weight β/2; the authors' own code, and
    all who compare with it, have the mean of its squares and the weight 1000, as here. Theirs were maps of 8×8 and
    more: the fewer the positions, the larger the mean, so small maps want a smaller weight. Larger maps are
    average-pooled to the smaller.
    """

    needs = frozenset({"features"})
    default_weights = {"at": 1000.0}
    default_label_weight = 1.0
    per_sample = True

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Raises UsageError for maps of a single position."""
        check_positions("at", shapes)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"at": mean of (Q_s − Q_t)², summed over the pairs}."""
        pairs = feature_pairs(student, teacher)
        return {"at": torch.stack([attention_difference(*to_smaller(s, t)) for s, t in pairs]).sum()}
