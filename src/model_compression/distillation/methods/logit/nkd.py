"""Normalised KD (Yang et al. 2023, "From knowledge distillation to self-knowledge distillation", arXiv 2303.13005)."""

import torch.nn.functional as F
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_number,
    check_temperature,
    logit_pair,
)
from model_compression.distillation.methods.logit.dkd import other_classes


def soft_target_loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """−p_t[y] · log p_s[y], mean over the batch: the cross-entropy, where the teacher trusts the label. At T = 1."""
    weights = F.softmax(teacher, dim=1).gather(1, targets[:, None])
    return -(weights * F.log_softmax(student, dim=1).gather(1, targets[:, None])).mean()


def non_target_loss(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T² · cross-entropy of the softmax at T over all classes but the true one, mean over the batch."""
    s, t = (other_classes(logits / temperature, targets) for logits in (student, teacher))
    return -(temperature**2) * (F.softmax(t, dim=1) * F.log_softmax(s, dim=1)).sum(dim=1).mean()


@METHODS.register("nkd")
class NKD(Method):
    """The true class and the others apart, the others normalised to sum to one on both sides.

    Near to `dkd`, with a true-class term that adds to the labels in place of a divergence. Both terms are
    cross-entropies: where student and teacher agree they are at rest ("non_target" alone) but not zero.

    Args:
        gamma: weight of "non_target", at least 0; the paper uses 1.5.
        temperature: of "non_target", from 0.01 to 1000; the paper uses 1. "target" has none.
    """

    uses_targets = True
    serves_topk = True
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0):
        super().__init__()
        check_number("nkd: gamma", gamma, "a number of at least 0 (published: 1.5)", lambda value: value >= 0)
        check_temperature("nkd: temperature", temperature, "published: 1")
        self.temperature = temperature
        self.default_weights = {"target": 1.0, "non_target": gamma}

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"target": −p_t[y] log p_s[y], "non_target": T² · cross-entropy of the others}, means over the batch."""
        s, t = logit_pair(student, teacher)
        return {
            "target": soft_target_loss(s, t, targets),
            "non_target": non_target_loss(s, t, targets, self.temperature),
        }
