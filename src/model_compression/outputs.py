"""What a network answers for a batch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Answers for a batch: logits (B, K), embedding before the classifier (B, D), features {name: (B, C, H, W)}."""

    logits: "Tensor"
    embedding: "Tensor | None" = None
    features: "dict[str, Tensor]" = field(default_factory=dict)
