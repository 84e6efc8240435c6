"""Alignment of projected embeddings, as in "Feature distillation" (Wei et al. 2022, arXiv 2205.14141, section 3)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs, pair_shapes, wide

_DISTANCES = ("cosine", "smooth_l1", "mse")
_PROJECTORS = ("linear", "mlp")


def distance(s: Tensor, t: Tensor, kind: str) -> Tensor:
    """Mean over all but the last dimension of how far vectors (…, D) are apart.

    "cosine": 1 − cos. "smooth_l1": Huber's loss, δ = 1, and "mse": squares, both means over D, against vectors whose
    numbers have mean 0 and deviation 1 (t is normalised so, without parameters).
    """
    if kind == "cosine":
        return 1 - F.cosine_similarity(s, t, dim=-1).mean()
    t = F.layer_norm(t, t.shape[-1:])
    return F.smooth_l1_loss(s, t) if kind == "smooth_l1" else F.mse_loss(s, t)


def projector(kind: str, width: int, target: int) -> nn.Module:
    """From vectors of ``width`` numbers to ``target``: one inner product, or two with GELU between them."""
    if kind == "linear":
        return nn.Linear(width, target)
    hidden = max(width, target)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, target))


def check_choice(method: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises UsageError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UsageError(f"{method}: {name} must be {' or '.join(choices)}, got {value!r}")


class _Aligned(Method):
    """What both methods here take."""

    default_label_weight = 0.0
    per_sample = True

    def __init__(self, distance: str = "cosine", projector: str = "linear"):
        super().__init__()
        check_choice(type(self).__name__.lower(), "distance", distance, _DISTANCES)
        check_choice(type(self).__name__.lower(), "projector", projector, _PROJECTORS)
        self.distance, self.projector = distance, projector


@METHODS.register("align")
class Align(_Aligned):
    """The student's embedding, projected to the teacher's width, points where the teacher's does.

    1 − cos(P(e_s), e_t), mean over the batch. P is an inner product, or an MLP of two; it is trained with the student
    and dropped at the end. With distance "smooth_l1" or "mse" the teacher's embedding is normalised to mean 0 and
    deviation 1 over its D numbers first, as in the paper ("whitening"), and the mean is over D too.

    The paper matches the tokens of the last layer of two transformers of one width, by smooth L1 with β = 2; see
    `align_tokens` for tokens and maps. Cosine on pooled embeddings is the plainest form, and the default.

    Args:
        distance: "cosine", "smooth_l1" or "mse".
        projector: "linear" or "mlp".
    """

    needs = frozenset({"logits"})
    answers = frozenset({"embedding"})
    default_weights = {"align": 1.0}

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the projector."""
        widths = (shapes[side]["logits"][1] for side in ("student", "teacher"))
        self.projection = projector(self.projector, *widths)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"align": mean distance of projected embeddings (B, D)}."""
        s, t = self.projection(wide(student.logits)), wide(teacher.logits.detach())
        return {"align": distance(s, t, self.distance)}


@METHODS.register("align_tokens")
class AlignTokens(_Aligned):
    """Each patch token of the teacher, or position of its maps, is matched by the student's projected one.

    The mean distance over batch and positions, summed over the pairs of layers, each with a projector of its own that
    is dropped at the end. The student's map is brought to the size of the teacher's by bilinear interpolation, so that
    no token of the teacher is averaged away; class tokens are left out. The last layers are compared; name several with
    ``pairs``.

    Args:
        distance: "cosine", "smooth_l1" or "mse"; see `align`.
        projector: "linear" or "mlp", at each position.
    """

    needs = frozenset({"features"})
    default_weights = {"tokens": 1.0}
    default_label_weight = 1.0  # of a task that has labels to learn
    default_pairs = 1

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds a projector for each pair."""
        self.projections = nn.ModuleList(projector(self.projector, s[0], t[0]) for s, t in pair_shapes(shapes))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"tokens": mean distance over positions, summed over the pairs}."""
        terms = []
        for projection, (s, t) in zip(self.projections, feature_pairs(student, teacher), strict=True):
            s = at_size_of(s, t)
            terms.append(distance(projection(s.movedim(1, -1)), t.movedim(1, -1), self.distance))
        return {"tokens": torch.stack(terms).sum()}


def at_size_of(s: Tensor, t: Tensor) -> Tensor:
    """Maps ``s`` (B, C, H, W) at the height and width of ``t``, by bilinear interpolation."""
    return s if s.shape[2:] == t.shape[2:] else F.interpolate(s, t.shape[2:], mode="bilinear", align_corners=False)
