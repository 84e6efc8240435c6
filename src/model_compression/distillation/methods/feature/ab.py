"""Activation boundaries (Heo et al. 2019, "Knowledge transfer via distillation of activation boundaries formed by
hidden neurons", arXiv 1811.03233)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_number,
    feature_pairs,
    pair_shapes,
    to_smaller,
)


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Σ over neurons of relu(margin − s)² where t > 0 and relu(margin + s)² where t ≤ 0, mean over the batch.

    A margin of 0 would have its minimum at s = 0, on the boundary itself.
    """
    violation = F.relu(margin - torch.where(teacher > 0, student, -student))
    return violation.square().flatten(1).sum(dim=1).mean()


class Connector(nn.Module):
    """1×1 convolution and BatchNorm, from the student's width to the teacher's."""

    def __init__(self, width: int, teacher_width: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, teacher_width, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(teacher_width)

    def forward(self, features: Tensor) -> Tensor:
        maps = self.convolution(features)
        if maps.numel() > maps.shape[1]:
            normalised: Tensor = self.norm(maps)
            return normalised
        # One value in each channel, as of a last batch of one, has no variance: the running statistics serve.
        norm = self.norm
        return F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@METHODS.register("ab")
class ActivationBoundaries(Method):
    """The student's neurons are on or off where the teacher's are; by how much does not matter.

    Σ over neurons of relu(m − r(s))² where the teacher's is active, t > 0, and of relu(m + r(s))² where it is not,
    mean over the batch, summed over the pairs; r is a 1×1 convolution and BatchNorm. Tap the layers BEFORE the
    activation, where BatchNorm or the convolution ends: after a ReLU, a student's neuron that is off has no gradient
    that could turn it on.

    Deviations: the paper trains the student on this first and on the labels or `kd` after; here both go together, and
    0.001 is our weight for that. The benchmark of CRD (arXiv 1910.10699) has two stages, a weight of 0.003, and half of
    it from each layer to the one before. Larger maps are average-pooled to the smaller, so that a teacher's neuron is
    the sign of the mean there: prefer pairs of one size.

    Args:
        margin: distance from the boundary that a neuron shall keep, above 0; published: 1.
    """

    needs = frozenset({"features"})
    before_activation = True
    default_pairs = 1  # each further one adds as much
    default_weights = {"ab": 0.001}
    default_label_weight = 1.0

    def __init__(self, margin: float = 1.0):
        super().__init__()
        check_number("ab: margin", margin, "a number > 0 (published: 1)", lambda value: value > 0)
        self.margin = margin
        self.connectors = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds a connector for each pair."""
        self.connectors = nn.ModuleList(Connector(s[0], t[0]) for s, t in pair_shapes(shapes))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"ab": squared violations of the margin, sum over neurons, mean over the batch, summed over the pairs}."""
        terms = []
        for connector, pair in zip(self.connectors, feature_pairs(student, teacher), strict=True):
            s, t = to_smaller(*pair)
            terms.append(boundary_loss(connector(s), t, self.margin))
        return {"ab": torch.stack(terms).sum()}
