"""Knowledge review (Chen et al. 2021, "Distilling knowledge via knowledge review", arXiv 2104.09044)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs, pair_shapes
from model_compression.distillation.methods.feature.ofd import MapNorm

_MOST_CHANNELS = 512  # of what is handed from a deep pair to the one before it
_LEVELS = (4, 2, 1)  # side lengths of the pyramid


def hierarchical_context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Weighted mean of squared errors of maps (B, C, H, W) as they are and pooled to 4×4, 2×2 and 1×1.

    Level by level the weight halves, from 1; a level that is not smaller than the map is left out.
    """
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    height, width = student.shape[2:]
    for side in _LEVELS:
        size = (min(side, height), min(side, width))
        if size == (height, width):
            continue
        weight /= 2
        pooled = F.mse_loss(F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size))
        total, weights = total + weight * pooled, weights + weight
    return total / weights


def _normalised_convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, MapNorm(channels_out))


def _resized(features: Tensor, size: torch.Size) -> Tensor:
    return features if features.shape[2:] == size else F.interpolate(features, size=size, mode="nearest")


class Fusion(nn.Module):
    """Attention-based fusion of the student's map with what comes from the deeper pairs; the deepest has nothing."""

    def __init__(self, student_channels: int, middle: int, teacher_channels: int, fuses: bool):
        super().__init__()
        self.narrow = _normalised_convolution(student_channels, middle, 1)
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuses else None
        self.widen = _normalised_convolution(middle, teacher_channels, 3)

    def forward(self, s: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """A map for the teacher's, of its width and ``size``, and one of the middle width for the pair before it."""
        fused = self.narrow(s)
        if self.attention is not None:
            assert deeper is not None
            deeper = _resized(deeper, fused.shape[2:])
            own, other = self.attention(torch.cat([fused, deeper], dim=1)).sigmoid().split(1, dim=1)  # (B, 1, H, W)
            fused = own * fused + other * deeper
        fused = _resized(fused, size)
        return self.widen(fused), fused


@METHODS.register("review_kd")
class ReviewKD(Method):
    """Each map of the teacher teaches the student's map at its depth and all deeper ones, fused from deep to shallow.

    For each pair, from the last to the first, the student's map and the fused map of the pair after it are weighed
    against each other by an attention of two channels, brought to the teacher's width and size, and compared by the
    hierarchical context loss: squared errors at the map's own size and at 4×4, 2×2 and 1×1. The term is the sum over
    the pairs. Give the pairs from shallow to deep; one pair is enough, four are usual, and the authors' last is the
    embedding as a map of 1×1. Other than in most methods, a student's map is resized to the teacher's even where it is
    the smaller one, as in the authors' code, by the nearest value.

    The authors raise the weight from 0 to its value within the first 20 of 240 epochs, and so does a run here in its
    first twelfth, step by step (``warmup`` of the run's method); their weights lie between 0.6 and 8 by pair of
    networks. A map that is not square is pooled to at most 4×4 and so on; the paper
    has square maps only.
    """

    needs = frozenset({"features"})
    default_weights = {"review_kd": 5.0}
    default_warmup = 1 / 12
    default_label_weight = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.fusions = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the fusion of each pair; all hand on min(512, channels of the student's last map) channels."""
        pairs = pair_shapes(shapes)
        middle = min(_MOST_CHANNELS, pairs[-1][0][0])
        self.fusions = nn.ModuleList(
            Fusion(s[0], middle, t[0], fuses=number < len(pairs) - 1) for number, (s, t) in enumerate(pairs)
        )

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"review_kd": Σ over the pairs of the hierarchical context loss, each a mean over its elements}."""
        deeper: Tensor | None = None
        terms = []
        pairs = list(zip(self.fusions, feature_pairs(student, teacher), strict=True))
        for fusion, (s, t) in reversed(pairs):
            fused, deeper = fusion(s, deeper, t.shape[2:])
            terms.append(hierarchical_context_loss(fused, t))
        return {"review_kd": torch.stack(terms).sum()}
