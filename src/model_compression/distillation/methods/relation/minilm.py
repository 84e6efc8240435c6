"""Relations within self-attention (Wang et al. 2021, "MiniLMv2: multi-head self-attention relation distillation for
compressing pretrained transformers", arXiv 2012.15828, equations 5 and 6)."""

import math

import torch
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method
from model_compression.distillation.methods.tokens import mean_over_tokens, token_pairs

_MOST_HEADS = 48


def relations(vectors: Tensor, mask: Tensor, heads: int) -> Tensor:
    """log softmax(A Aᵀ / √d) (B, heads, L, L) of vectors (B, L, D), cut into ``heads`` of d = D / heads.

    Padding, 0 in ``mask`` (B, L), is related to nothing.
    """
    cut = vectors.unflatten(2, (heads, -1)).transpose(1, 2)
    products = cut @ cut.transpose(2, 3) / math.sqrt(cut.shape[3])
    related: Tensor = products.masked_fill(mask[:, None, None, :] == 0, torch.finfo(products.dtype).min)
    return related.log_softmax(dim=3)


@METHODS.register("minilm")
class MiniLM(Method):
    """Tokens are related to each other in the student's queries, keys and values as in the teacher's.

    KL(R_t ‖ R_s), mean over relation heads and tokens without padding, summed over queries, keys and values, of
    R = softmax(A Aᵀ / √d). Looks at the last blocks; widths and numbers of attention heads may differ. The paper
    takes the 21st of 24 of a large teacher: name the layers with pairs.

    Args:
        relation_heads: of both sides; a divisor of both widths. 0: the largest common one of at most 48, as the paper.
    """

    needs = frozenset({"features"})
    layer_map = "query, key and value"
    default_pairs = 1
    default_weights = {"minilm": 1.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, relation_heads: int = 0):
        super().__init__()
        if isinstance(relation_heads, bool) or not isinstance(relation_heads, int) or relation_heads < 0:
            raise UsageError(f"minilm: relation_heads must be an integer of at least 0, got {relation_heads!r}")
        self.relation_heads = relation_heads

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"minilm": KL of the relations, mean over heads and tokens, summed over the pairs}."""
        terms = []
        for s, t, mask in token_pairs(student, teacher):
            heads = self._heads(s.shape[2], t.shape[2])
            own, taught = relations(s, mask, heads), relations(t, mask, heads)
            divergence = (taught.exp() * (taught - own)).sum(dim=3).mean(dim=1)
            terms.append(mean_over_tokens(divergence, mask))
        return {"minilm": torch.stack(terms).sum()}

    def _heads(self, *widths: int) -> int:
        common = math.gcd(*widths)
        heads = self.relation_heads or next(n for n in range(min(_MOST_HEADS, common), 0, -1) if common % n == 0)
        if common % heads:
            raise UsageError(
                f"minilm: relation_heads must divide the widths {' and '.join(map(str, widths))}, got {heads}"
            )
        return heads
