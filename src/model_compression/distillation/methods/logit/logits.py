"""Logit regression (Ba & Caruana 2014, "Do deep nets really need to be deep?", arXiv 1312.6184, equation 1)."""

from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, logit_pair


def logit_regression(student: Tensor, teacher: Tensor) -> Tensor:
    """½ · Σ_k (s_k − t_k)², mean over the batch, of logits (B, K): a sum over classes, and before the softmax."""
    return 0.5 * (student - teacher).square().sum(dim=1).mean()


@METHODS.register("logits")
class Logits(Method):
    """Regression on the teacher's logits, without labels. Use it when the teacher is good and logits are at hand.

    Of real answers it is half the squared error to the teacher's numbers.
    """

    answers = frozenset({"categorical", "bernoulli", "real"})
    default_weights = {"logits": 1.0}
    default_label_weight = 0.0
    per_sample = True

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"logits": ½ · Σ_k (s_k − t_k)², mean over the batch}."""
        return {"logits": logit_regression(*logit_pair(student, teacher, least=2 if self.kind == "categorical" else 1))}
