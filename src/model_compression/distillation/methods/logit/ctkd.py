"""Curriculum temperature (Li et al. 2023, "Curriculum temperature for knowledge distillation", arXiv 2211.16231)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_number, logit_pair


def kl_at(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """T² · KL(p(t; T) ‖ p(s; T)), mean over the batch, differentiable in T (a scalar) too, its T² included."""
    log_p_student = F.log_softmax(student / temperature, dim=1)
    log_p_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """x, with −strength times its gradient: what descends the loss then climbs it."""
    return x.detach() - strength * (x - x.detach())


@METHODS.register("ctkd")
class CTKD(Method):
    """`kd` with one learned temperature that makes the task harder as the student learns.

    T = lowest + (highest − lowest) · sigmoid(θ), where θ starts at 1 and climbs the loss while the student descends it.
    The strength of that reversal rises as ½ − ½ cos(π n / ramp_epochs) in epoch n = 1, 2 …, and stays at 1. The paper's
    global variant; a temperature per sample is not included.

    Args:
        lowest: least temperature, above 0; the paper uses 1.
        highest: largest temperature, above ``lowest``; the paper uses 21, so that T starts near 15.6.
        ramp_epochs: epochs until the reversal is at full strength, at least 1; the paper uses 10.
    """

    serves_topk = True
    default_weights = {"ctkd": 0.9}
    default_label_weight = 0.1
    uses_context = True
    per_sample = True

    def __init__(self, lowest: float = 1.0, highest: float = 21.0, ramp_epochs: int = 10):
        super().__init__()
        check_number("ctkd: lowest", lowest, "a number > 0 (published: 1)", lambda value: value > 0)
        check_number("ctkd: highest", highest, "a number > lowest (published: 21)", lambda value: value > lowest)
        check_number("ctkd: ramp_epochs", ramp_epochs, "a number of at least 1 (published: 10)", lambda n: n >= 1)
        self.lowest, self.highest, self.ramp_epochs = lowest, highest, ramp_epochs
        self.theta = nn.Parameter(torch.ones(()))

    @property
    def temperature(self) -> Tensor:
        """T, a scalar."""
        return self.lowest + (self.highest - self.lowest) * torch.sigmoid(self.theta)

    def strength(self, epoch: int) -> float:
        """Strength of the reversal, 0 to 1, in ``epoch``, which counts from 0, where the paper counts from 1."""
        return 0.5 - 0.5 * math.cos(math.pi * min((epoch + 1) / self.ramp_epochs, 1))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"ctkd": T² · KL(p(t; T) ‖ p(s; T)), mean over the batch}."""
        s, t = logit_pair(student, teacher)
        assert context is not None
        return {"ctkd": kl_at(s, t, reversed_gradient(self.temperature, self.strength(context.epoch)))}
