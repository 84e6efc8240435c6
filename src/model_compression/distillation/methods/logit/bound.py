"""The teacher as a bound (Chen et al. 2017, "Learning efficient object detection models with knowledge distillation",
NeurIPS 30, equation 4)."""

import torch
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_number, logit_pair, wide


def bounded_error(student: Tensor, teacher: Tensor, targets: Tensor, margin: float) -> Tensor:
    """‖s − y‖² where ‖s − y‖² + m > ‖t − y‖², else 0; a mean over the batch, of answers (B, D) and targets (B, D)."""
    own, taught = (answers.sub(targets).square().sum(dim=1) for answers in (student, teacher))
    return torch.where(own + margin > taught, own, 0.0).mean()


@METHODS.register("bound")
class Bound(Method):
    """The student learns the targets, and harder as long as it is worse than the teacher. For numbers, not classes.

    A teacher's numbers may be wrong in any direction, so they are not matched: they say only how good is good enough.

    Args:
        margin: m, at least 0, in squared deviations of the targets: the student is to be better by so much.
    """

    answers = frozenset({"real"})
    default_weights = {"bound": 0.5}
    default_label_weight = 1.0
    per_sample = True
    uses_targets = True

    def __init__(self, margin: float = 0.0):
        super().__init__()
        check_number("bound: margin", margin, "a number of at least 0", lambda number: number >= 0)
        self.margin = margin

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"bound": ‖s − y‖² where ‖s − y‖² + m > ‖t − y‖², else 0, mean over the batch}."""
        s, t = logit_pair(student, teacher, least=1)
        if targets.shape != s.shape:
            raise UsageError(f"bound needs targets {tuple(s.shape)}, as the answers, got {tuple(targets.shape)}")
        return {"bound": bounded_error(s, t, wide(targets.to(s.device)), self.margin)}
