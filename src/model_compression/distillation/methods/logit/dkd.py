"""Decoupled KD (Zhao et al. 2022, "Decoupled knowledge distillation", arXiv 2203.08679)."""

import torch
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


def other_classes(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (B, K − 1) of all classes but the true one.

    They are left out: a large number subtracted from the true class, as is common, fails once logits are as large.
    """
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, columns + (columns >= targets[:, None]))  # the columns behind the true class move up


def true_or_other(logits: Tensor, targets: Tensor) -> Tensor:
    """log p (B, 2) of the true class, and of all others together."""
    log_sum = logits.logsumexp(dim=1, keepdim=True)
    true = logits.gather(1, targets[:, None])
    others = other_classes(logits, targets).logsumexp(dim=1, keepdim=True)
    return torch.cat([true - log_sum, others - log_sum], dim=1)


def target_class_kd(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """TCKD: T² · KL between the teacher's and the student's (p_y, 1 − p_y) at T, mean over the batch."""
    s, t = (true_or_other(logits / temperature, targets) for logits in (student, teacher))
    return temperature**2 * F.kl_div(s, t, reduction="batchmean", log_target=True)


def non_target_class_kd(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """NCKD: T² · KL of the softmax at T over all classes but the true one, mean over the batch; 0 for two classes."""
    s, t = (F.log_softmax(other_classes(logits / temperature, targets), dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(s, t, reduction="batchmean", log_target=True)


@METHODS.register("dkd")
class DKD(Method):
    """`kd` in two terms: how likely the true class is, and how the others compare, which `kd` weighs by 1 − p_y.

    Use it when the teacher is sure of itself, so that `kd` hardly sees the classes that it did not choose. The paper
    raises the weights over the first 20 of 240 epochs: ``warmup`` of the run's method, 0.083; the default is none.

    Args:
        alpha: weight of "tckd", at least 0; the paper uses 1.
        beta: weight of "nckd", at least 0; published values lie between 0.5 and 8, larger for surer teachers.
        temperature: from 0.01 to 1000; the paper uses 4 on CIFAR-100 and 1 on ImageNet.
    """

    uses_targets = True
    serves_topk = True
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0):
        super().__init__()
        check_number("dkd: alpha", alpha, "a number of at least 0 (published: 1)", lambda value: value >= 0)
        check_number("dkd: beta", beta, "a number of at least 0 (published: 0.5 to 8)", lambda value: value >= 0)
        check_temperature("dkd: temperature", temperature, "published: 1 to 4")
        self.temperature = temperature
        self.default_weights = {"tckd": alpha, "nckd": beta}

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"tckd": true class against the rest, "nckd": the other classes}, each × T² and a mean over the batch."""
        s, t = logit_pair(student, teacher)
        return {
            "tckd": target_class_kd(s, t, targets, self.temperature),
            "nckd": non_target_class_kd(s, t, targets, self.temperature),
        }
