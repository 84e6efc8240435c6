"""Teacher-free distillation, Tf-KD_reg (Yuan et al. 2020, arXiv 1909.11723)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_number, check_temperature, wide


def virtual_teacher(
    targets: Tensor, num_classes: int, correct: float, temperature: float, dtype: torch.dtype
) -> Tensor:
    """Log-probabilities (B, K) of a teacher that gives the class (B,) ``correct`` and the others the rest, softened.

    Softened as the student is, to p^(1/T) / Σ p^(1/T), which is the softmax of log p / T.
    """
    others = (1 - correct) / (num_classes - 1)
    logits = torch.full((len(targets), num_classes), math.log(others), dtype=dtype, device=targets.device)
    logits.scatter_(1, targets[:, None], math.log(correct))
    return F.log_softmax(logits / temperature, dim=1)


@METHODS.register("tf_kd")
class TeacherFreeKD(Method):
    """No teacher: a made-up one, right with probability a, else uniform. A gentle regulariser where no teacher exists.

    KL(p_d(T) ‖ p(s; T)), mean over the batch: p_d gives the label a and each other class (1 − a) / (K − 1), and is
    softened as p(s; T) is. Weights are the paper's α = 0.1 and 1 − α. It has no factor T², as `kd` has, so at T = 20
    the pull is weak; a weight of 40 makes up for that. The authors' code differs: it softens by softmax(p_d / T),
    which is nearly uniform, takes the student at T = 1, and averages over classes too, times a multiplier that its
    experiments set to 100, 50 or 1.

    The paper's other half, Tf-KD_self, a network that is taught by an earlier training of its own, is
    the scheme ``self`` with `kd` and two generations.

    Args:
        correct: a, above 1/K and below 1; the paper advises at least 0.9.
        temperature: from 0.01 to 1000; the paper advises at least 20.

    Raises UsageError for a single class, or where ``correct`` is not above 1/K.
    """

    needs_teacher = False
    uses_targets = True
    default_weights = {"tf_kd": 0.1}
    default_label_weight = 0.9
    per_sample = True

    def __init__(self, correct: float = 0.99, temperature: float = 20.0):
        super().__init__()
        check_number("tf_kd: correct", correct, "a probability below 1 (advised: 0.9 or more)", lambda p: 0 < p < 1)
        check_temperature("tf_kd: temperature", temperature, "advised: 20 or more")
        self.correct, self.temperature = correct, temperature

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"tf_kd": KL(p_d(T) ‖ p(s; T)), mean over the batch}; ``teacher`` is not looked at, and may be None."""
        s = wide(student.logits)
        classes = s.shape[1]
        if classes < 2:
            raise UsageError(f"tf_kd: there must be at least 2 classes, got {classes}")
        if self.correct * classes <= 1:
            raise UsageError(f"tf_kd: correct must be above 1/{classes}, the uniform answer, got {self.correct}")
        target = virtual_teacher(targets, classes, self.correct, self.temperature, s.dtype)
        log_p_student = F.log_softmax(s / self.temperature, dim=1)
        return {"tf_kd": F.kl_div(log_p_student, target, reduction="batchmean", log_target=True)}
