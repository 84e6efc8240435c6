"""Direction of hidden states (Sanh et al. 2019, "DistilBERT, a distilled version of BERT", arXiv 1910.01108)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method
from model_compression.distillation.methods.tokens import mean_over_tokens, token_pairs


@METHODS.register("cosine")
class Cosine(Method):
    """The student's last hidden states point where the teacher's do, token by token.

    1 − cos(h_s, h_t), mean over tokens without padding, summed over the pairs. Use it beside kd, as DistilBERT does,
    for students that begin with layers of the teacher. Where widths differ a projection without bias comes first, which
    the paper does not have.
    """

    needs = frozenset({"features"})
    layer_map = "blocks"
    default_pairs = 1
    default_weights = {"cosine": 1.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds a projection for each pair of different widths."""
        pairs = zip(*(shapes[side]["features"].values() for side in ("student", "teacher")), strict=True)
        widths = [[shape[2] if len(shape) == 3 else shape[1] for shape in pair] for pair in pairs]
        self.projections = nn.ModuleList(nn.Identity() if s == t else nn.Linear(s, t, bias=False) for s, t in widths)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"cosine": mean of 1 − cos(h_s, h_t), summed over the pairs}."""
        terms = [
            mean_over_tokens(1 - F.cosine_similarity(project(s), t, dim=2), mask)
            for project, (s, t, mask) in zip(self.projections, token_pairs(student, teacher), strict=True)
        ]
        return {"cosine": torch.stack(terms).sum()}
