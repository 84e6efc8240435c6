"""Similarities between the places of an image (Liu et al. 2019, arXiv 1903.04197, equation 2)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_number,
    check_positions,
    feature_pairs,
)


def place_similarities(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, P, P) cosines between the P = h · w places of maps (B, C, H, W), averaged to ``size`` (h, w) first."""
    pooled = maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)
    unit = F.normalize(pooled.flatten(2), dim=1, eps=1e-12)
    return unit.transpose(1, 2) @ unit


def pairwise_loss(student: Tensor, teacher: Tensor, places: int) -> Tensor:
    """1 / P² · Σ_ij (a^s_ij − a^t_ij)² of maps (B, C, H, W), mean over the batch; P is at most ``places``²."""
    height, width = (min(places, *sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
    difference = place_similarities(student, (height, width)) - place_similarities(teacher, (height, width))
    return difference.square().mean()


@METHODS.register("pairwise")
class Pairwise(Method):
    """Places of an image that the teacher finds alike are alike for the student: the pair-wise part of Liu et al.

    For each pair of maps 1 / P² · Σ_ij (a^s_ij − a^t_ij)², a_ij the cosine of the features of the places i and j, mean
    over the batch, sum over the pairs. Maps may differ in channels and size: both are averaged to ``places``
    × ``places`` at most, which the authors' later version calls the granularity. Made for segmentation; of pairs that
    are chosen by stage the last is compared. The paper adds it to kd of each pixel with the weight 10, the default, as
    "kd,pairwise". Its third part is `holistic`.

    Args:
        places: places across and down that are compared, at most; 1 to 64. P² cosines of each image are held.
    """

    needs = frozenset({"features"})
    default_pairs = 1
    default_weights = {"pairwise": 10.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, places: int = 16):
        super().__init__()
        check_number("pairwise: places", places, "a whole number from 1 to 64", lambda n: 1 <= n <= 64 and n == int(n))
        self.places = int(places)

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Raises UsageError for maps of a single position."""
        check_positions("pairwise", shapes)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"pairwise": Σ over the pairs of the mean squared difference of the similarities}."""
        terms = [pairwise_loss(s, t, self.places) for s, t in feature_pairs(student, teacher)]
        return {"pairwise": torch.stack(terms).sum()}
