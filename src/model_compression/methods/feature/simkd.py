"""SimKD (Chen et al. 2022, "Knowledge distillation with the reused teacher classifier", arXiv 2203.14001)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.methods.base import METHODS, Context, Method, feature_pairs, pair_shapes, to_smaller
from model_compression.methods.feature.ofd import MapNorm
from model_compression.outputs import Outputs

MapShape = tuple[int, int, int]


def build_projector(student: MapShape, teacher: MapShape) -> nn.Sequential:
    """1×1, 3×3 and 1×1 convolutions, each with BatchNorm and ReLU, through half the teacher's width.

    Of maps (C, H, W); a student's map that is larger than the teacher's is pooled first, here, so that what ships pools
    as well.
    """
    size = (min(student[1], teacher[1]), min(student[2], teacher[2]))
    middle = max(1, teacher[0] // 2)
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(size)] if student[1:] != size else []
    for channels_in, channels_out, kernel in ((student[0], middle, 1), (middle, middle, 3), (middle, teacher[0], 1)):
        layers.append(nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False))
        layers.extend((MapNorm(channels_out), nn.ReLU()))
    return nn.Sequential(*layers)


@METHODS.register("simkd")
class SimKD(Method):
    """The student learns the teacher's last map and borrows its classifier; no labels, no classifier of its own.

    (P(f_s) − f_t)², mean over elements, of the last pair of maps, which must be the ones that the classifiers pool; P
    is `projector`. Tap the teacher behind its last ReLU, as P ends with one. The paper writes a squared norm; the mean
    over the elements is the authors' code, with weight 1. If the teacher's map is the larger one, it is pooled.

    What ships is not the student alone (``deploys_projector``): its body up to the tapped map, then `projector` in
    eval mode, then what the teacher does behind its own map: global pooling and its classifier. The logits of the
    student's own classifier get no gradient and mean nothing; measure accuracy, size and time of the whole.
    """

    needs = frozenset({"features", "logits"})
    default_weights = {"simkd": 1.0}
    default_label_weight = 0.0
    # The deployed model is body, `projector`, the teacher's pooling and classifier, and not the student as trained.
    deploys_projector: ClassVar[bool] = True

    projector: nn.Sequential

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the projector for the last pair."""
        self.projector = build_projector(*pair_shapes(shapes)[-1])

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"simkd": (P(f_s) − f_t)² of the last pair, mean over elements and batch}."""
        s, t = feature_pairs(student, teacher)[-1]
        return {"simkd": F.mse_loss(*to_smaller(self.projector(s), t))}
