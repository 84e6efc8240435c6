"""DIST (Huang et al. 2022, "Knowledge distillation from a stronger teacher", arXiv 2205.10536)."""

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

# A row counts as constant when it varies by less than float32 can tell, of itself or of a probability of 1. Its
# correlation is undefined and the gradient would be the inverse of rounding noise, as with a student that starts at 0.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-12


def correlation_distance(x: Tensor, y: Tensor) -> Tensor:
    """1 − Pearson's correlation of each row of x and y (R, C), mean over rows; a row that is constant counts 0."""
    x, x_varies = _standardised(x)
    y, y_varies = _standardised(y)
    return torch.where(x_varies & y_varies, 1 - (x * y).sum(dim=1), 0.0).mean()


def _standardised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (R, C) less their mean and of length 1, and whether they vary (R,)."""
    centred = x - x.mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=1)
    varies = length > _RELATIVE * torch.linalg.vector_norm(x, dim=1) + _ABSOLUTE
    return centred / torch.where(varies, length, 1.0)[:, None], varies


@METHODS.register("dist")
class DIST(Method):
    """The student's probabilities correlate with the teacher's, rather than equal them. For strong teachers.

    Args:
        beta: weight of "inter", at least 0; published values lie between 1 and 2.
        gamma: weight of "intra", at least 0; the same.
        temperature: from 0.01 to 1000; published values lie between 1 and 4.

    Our deviation: the authors' code adds 1e-8 to the product of the lengths, so that classes of tiny probability count
    less, and a row without variation adds 1 to the mean. Here the correlation is exact and such a row adds 0, so that
    "intra" of a batch of one is 0. Of two classes "inter" is 0 or 2 with hardly a gradient, and only "intra" teaches.
    """

    serves_topk = True
    default_label_weight = 1.0

    def __init__(self, beta: float = 2.0, gamma: float = 2.0, temperature: float = 4.0):
        super().__init__()
        check_number("dist: beta", beta, "a number of at least 0 (published: 1 to 2)", lambda value: value >= 0)
        check_number("dist: gamma", gamma, "a number of at least 0 (published: 1 to 2)", lambda value: value >= 0)
        check_temperature("dist: temperature", temperature, "published: 1 to 4")
        self.temperature = temperature
        self.default_weights = {"inter": beta, "intra": gamma}

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """T² · (1 − correlation) of p(·; T): "inter" over the classes of a sample, "intra" over the batch of a class.

        Each is a mean, over the samples and over the classes.
        """
        s, t = (F.softmax(logits / self.temperature, dim=1) for logits in logit_pair(student, teacher))
        scale = self.temperature**2
        return {"inter": scale * correlation_distance(s, t), "intra": scale * correlation_distance(s.T, t.T)}
