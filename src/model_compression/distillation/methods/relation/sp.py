"""Similarity-preserving distillation (Tung & Mori 2019, "Similarity-preserving knowledge distillation",
arXiv 1907.09682)."""

from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs
from model_compression.distillation.methods.relation.rkd import unit_vectors


def similarities(maps: Tensor) -> Tensor:
    """Rows of Q Qᵀ at length 1 (B, B), Q being the maps (B, …) flattened (equations 1 to 3 of the paper)."""
    flat = maps.flatten(1)
    # A common factor leaves the rows as they are, and products of tiny or huge activations inside float32's range.
    flat = flat / flat.detach().abs().amax().clamp(min=1e-12)
    return unit_vectors(flat @ flat.T)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """‖G_t − G_s‖²_F / B² of maps (B, …), which may differ in all but B (equation 4)."""
    return (similarities(student) - similarities(teacher)).square().mean()


@METHODS.register("sp")
class SP(Method):
    """Samples that activate the teacher alike activate the student alike; no projector, any two shapes of maps.

    Looks at the last pair of features: the paper compares the last convolution's activations where networks differ.
    ‖G_t − G_s‖²_F / B², G being the B × B products of activations with rows of L2 length 1. Some ports divide rows by
    their sum of absolute values instead, through a misplaced argument; their weights are not these.
    """

    needs = frozenset({"features"})
    default_weights = {"sp": 3000.0}
    default_label_weight = 1.0

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"sp": ‖G_t − G_s‖²_F / B² of the last pair of features}."""
        return {"sp": similarity_loss(*feature_pairs(student, teacher)[-1])}
