"""Variational information distillation (Ahn et al. 2019, arXiv 1904.05835, equations 4 to 6)."""

import math
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

_LEAST_VARIANCE = 1e-5


def gaussian_nll(mean: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """½ · ((t − μ)² / σ² + ln σ²), mean over all elements of maps (B, C, H, W); variance (C,), without ln 2π / 2."""
    per_channel = variance[:, None, None]
    return 0.5 * ((target - mean).square() / per_channel + per_channel.log()).mean()


def raw_variance(variance: float) -> float:
    """The number whose softplus, with the least variance added, is ``variance``."""
    wanted = variance - _LEAST_VARIANCE
    return wanted + math.log(-math.expm1(-wanted))  # ln(exp(x) − 1), which does not overflow


class Likelihood(nn.Module):
    """Gaussian of a teacher's map given the student's: its mean a small network, its variance one per channel."""

    def __init__(self, student_channels: int, teacher_channels: int, initial_variance: float):
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )
        self.raw_variance = nn.Parameter(torch.full((teacher_channels,), raw_variance(initial_variance)))

    def variance(self) -> Tensor:
        """σ² (C,), above 0."""
        return F.softplus(self.raw_variance) + _LEAST_VARIANCE

    def forward(self, s: Tensor, t: Tensor) -> Tensor:
        return gaussian_nll(self.mean(s), t, self.variance())


@METHODS.register("vid")
class VID(Method):
    """The student's maps must tell as much as possible of the teacher's: a bound of their mutual information.

    For each pair ½ · ((f_t − μ(f_s))² / σ² + ln σ²), with μ three 1×1 convolutions and σ² = softplus(α) + 1e-5, one
    learned α per channel of the teacher. The term does not vanish at equality and can be negative: as μ gets better,
    σ² falls. α is a parameter of the method, so that the optimiser trains it with μ; code that keeps α out of the
    optimiser computes a scaled squared error.

    The paper sums over channels and positions and leaves the scale to a weight per layer; this is the mean over them,
    and the sum over the pairs, as in the code with which the usual weight 1 is reported. Smaller maps decide the size:
    the larger one is pooled.

    Args:
        initial_variance: of every channel, above 1e-5; published code starts at 5.
    """

    needs = frozenset({"features"})
    default_weights = {"vid": 1.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, initial_variance: float = 5.0):
        super().__init__()
        check_number(
            "vid: initial_variance",
            initial_variance,
            f"a number > {_LEAST_VARIANCE} (published: 5)",
            lambda value: value > _LEAST_VARIANCE,
        )
        self.initial_variance = float(initial_variance)
        self.likelihoods = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds mean and variance of each pair."""
        self.likelihoods = nn.ModuleList(Likelihood(s[0], t[0], self.initial_variance) for s, t in pair_shapes(shapes))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"vid": Σ over the pairs of the negative log-likelihood, mean over all elements}."""
        pairs = zip(self.likelihoods, feature_pairs(student, teacher), strict=True)
        return {"vid": torch.stack([likelihood(*to_smaller(s, t)) for likelihood, (s, t) in pairs]).sum()}
