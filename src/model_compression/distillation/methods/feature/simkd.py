"""SimKD (Chen et al. 2022, "Knowledge distillation with the reused teacher classifier", arXiv 2203.14001)."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs, pair_shapes, to_smaller


@METHODS.register("simkd")
class SimKD(Method):
    """The student learns the teacher's last maps and ends in the teacher's classifier: what ships is all of that.

    (P(f_s) − f_t)², mean over elements, of the last maps before global pooling; no labels. The network that is trained,
    measured and saved is the student up to f_s, then the projector P (1×1, 3×3 and 1×1 convolutions with normalisation
    and ReLU, through half the teacher's width), then pooling and the classifier of the teacher, which stays as it is.
    So the projector and the classifier are part of what ships: compare sizes and times by that network's.

    The paper writes a squared norm; the mean over the elements is the authors' code, with weight 1. Tap the teacher
    behind its last ReLU, as P ends with one. The larger map of the two is pooled to the smaller one's size. A teacher
    whose logits are no inner product of globally pooled maps, as NIN's, cannot be used.

    In a loop of your own the student is `models.reused_classifier.reuse_classifier(student, ...)`, and its feature the
    answer of layer "projector".
    """

    needs = frozenset({"features", "logits"})
    reuses_classifier = True
    default_pairs = 1
    default_weights = {"simkd": 1.0}
    default_label_weight = 0.0
    per_sample = True

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Raises UsageError when the student's maps have not been projected to the teacher's channels."""
        (of_student, *_), (of_teacher, *_) = pair_shapes(shapes)[-1]
        if of_student != of_teacher:
            raise UsageError(
                f"simkd: the student's maps have {of_student} channels, the teacher's {of_teacher}; give the student "
                "the teacher's classifier first, with reuse_classifier()"
            )

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"simkd": (P(f_s) − f_t)² of the last pair, mean over elements and batch}; the student answers P(f_s)."""
        s, t = feature_pairs(student, teacher)[-1]
        return {"simkd": F.mse_loss(*to_smaller(s, t))}
