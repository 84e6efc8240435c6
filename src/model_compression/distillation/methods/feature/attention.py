"""Attention scores of transformers (Jiao et al. 2020, "TinyBERT", arXiv 1909.10351, equation 7)."""

import torch
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs, to_smaller
from model_compression.distillation.methods.tokens import mask_for


def score_loss(s: Tensor, t: Tensor, counted: Tensor) -> Tensor:
    """Mean of (A_s − A_t)² over heads and pairs of tokens, of scores (B, H, L, L), where ``counted`` (B, L, L) is 1.

    Of each sample first, then over samples. Where the numbers of heads differ, the means over heads are compared.
    """
    if s.shape[1] != t.shape[1]:
        s, t = s.mean(dim=1, keepdim=True), t.mean(dim=1, keepdim=True)
    squares = (s - t).square().mean(dim=1) * counted
    return (squares.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)).mean()


@METHODS.register("attention")
class Attention(Method):
    """The student's attention scores, before the softmax, match the teacher's, block by block.

    Mean of (A_s − A_t)² over heads and pairs of tokens without padding, summed over the pairs of blocks; A = Q Kᵀ / √d.
    Blocks are paired evenly. Use it beside hidden and kd.

    Deviations: the paper averages over padding as well, and needs as many heads in both; where these differ, the means
    over heads are compared here.
    """

    needs = frozenset({"features"})
    layer_map = "attention"
    default_weights = {"attention": 1.0}
    default_label_weight = 1.0
    per_sample = True

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"attention": mean of (A_s − A_t)², summed over the pairs}."""
        terms = []
        for pair in feature_pairs(student, teacher):
            s, t = to_smaller(*pair)
            counted = torch.ones_like(s[:, 0])
            if student.mask is not None:
                mask = mask_for(student, s[:, 0])
                counted = mask[:, :, None] * mask[:, None, :]
            terms.append(score_loss(s, t, counted))
        return {"attention": torch.stack(terms).sum()}
