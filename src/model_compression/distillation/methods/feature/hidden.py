"""Hidden states of transformers (Jiao et al. 2020, "TinyBERT: distilling BERT for natural language understanding",
arXiv 1909.10351, equations 8 and 9)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method
from model_compression.distillation.methods.tokens import mean_over_tokens, token_pairs


@METHODS.register("hidden")
class Hidden(Method):
    """A projection of the student's hidden states matches the teacher's, block by block, and of the embeddings too.

    Mean of (W h_s − h_t)² over width and tokens, summed over the pairs; W is an inner product without bias, one a pair.
    By default each block of the student is paired with one of the teacher's, evenly, and what goes into the first
    blocks, the embeddings, is a pair as well. Padding does not count.

    Deviations: the paper trains on hidden states and attention first and on the answers afterwards; here all go
    together. It averages over padding as well.
    """

    needs = frozenset({"features"})
    layer_map = "embeddings and blocks"
    default_weights = {"hidden": 1.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds a projection for each pair."""
        widths = [[_width(shape) for shape in shapes[side]["features"].values()] for side in ("student", "teacher")]
        self.projections = nn.ModuleList(nn.Linear(s, t, bias=False) for s, t in zip(*widths, strict=True))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"hidden": mean of (W h_s − h_t)², summed over the pairs}."""
        terms = [
            mean_over_tokens((project(s) - t).square().mean(dim=2), mask)
            for project, (s, t, mask) in zip(self.projections, token_pairs(student, teacher), strict=True)
        ]
        return {"hidden": torch.stack(terms).sum()}


def _width(shape: tuple[int, ...]) -> int:
    """D of tokens (1, L, D), C of maps (1, C, H, W)."""
    return shape[2] if len(shape) == 3 else shape[1]
