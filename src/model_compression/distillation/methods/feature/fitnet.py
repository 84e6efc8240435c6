"""FitNets (Romero et al. 2015, "FitNets: hints for thin deep nets", arXiv 1412.6550, equation 3)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs, pair_shapes, to_smaller


@METHODS.register("fitnet")
class FitNet(Method):
    """A projection of the student's maps matches the teacher's, value by value. The plainest way to use features.

    Mean of (r(f_s) − f_t)² over batch, channels and positions, summed over the pairs; r is a 1×1 convolution with
    bias. It has no activation at its end, so layers before and after one can be tapped; one pair in the middle of the
    networks is the classic choice.

    Deviations: the paper trains the lower half of the student on this first, then the whole on the labels; here both
    go together, as in the benchmark of CRD (arXiv 1910.10699). The paper takes half the sum of squares, that benchmark
    the mean, whose weight of 100 is the default here. Larger maps are average-pooled to the smaller, in the place of
    larger kernels, and that benchmark's regressor has BatchNorm and ReLU at its end, which suits maps after a ReLU.
    """

    needs = frozenset({"features"})
    default_pairs = 1  # each further one adds as much
    default_weights = {"fitnet": 100.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self) -> None:
        super().__init__()
        self.regressors = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds a regressor for each pair."""
        self.regressors = nn.ModuleList(nn.Conv2d(s[0], t[0], kernel_size=1) for s, t in pair_shapes(shapes))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"fitnet": mean of (r(f_s) − f_t)², summed over the pairs}."""
        terms = []
        for regressor, pair in zip(self.regressors, feature_pairs(student, teacher), strict=True):
            s, t = to_smaller(*pair)  # before the convolution, which gives the same and costs less
            terms.append(F.mse_loss(regressor(s), t))
        return {"fitnet": torch.stack(terms).sum()}
