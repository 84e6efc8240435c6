"""Weighted soft labels (Zhou et al. 2021, "Rethinking soft labels for knowledge distillation", arXiv 2102.00650)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_temperature, logit_pair

_EPS = 1e-7  # as in the authors' code: a teacher that is certain of the label has a cross-entropy of 0


def sample_weights(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """1 − exp(−CE_s / CE_t) per sample (B,), of the cross-entropies with the label at T = 1; without gradient."""
    of_student = F.cross_entropy(student.detach(), targets, reduction="none")
    of_teacher = F.cross_entropy(teacher, targets, reduction="none")
    return -torch.expm1(-of_student / (of_teacher + _EPS))


def weighted_kl(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """T² · mean over the batch of weight · KL(p(t; T) ‖ p(s; T)), of logits (B, K) and weights (B,)."""
    log_p_student = F.log_softmax(student / temperature, dim=1)
    log_p_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_p_student, log_p_teacher, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (weights * divergence).mean()


@METHODS.register("wsld")
class WSLD(Method):
    """`kd` that listens less where the student already fits the label better than the teacher does.

    The authors' code has the cross-entropy with the teacher in place of the divergence: the gradient is the same, the
    value is larger by the teacher's weighted entropy.

    Args:
        temperature: from 0.01 to 1000; the authors use 2 on ImageNet with weight 2.5, others 4 on CIFAR-100 with
            weight 2.25.
    """

    uses_targets = True
    serves_topk = True
    default_weights = {"wsld": 2.5}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        check_temperature("wsld: temperature", temperature, "published: 2 to 4")
        self.temperature = temperature

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"wsld": T² · (1 − exp(−CE_s / CE_t)) · KL(p(t; T) ‖ p(s; T)), mean over the batch}."""
        s, t = logit_pair(student, teacher)
        return {"wsld": weighted_kl(s, t, sample_weights(s, t, targets), self.temperature)}
