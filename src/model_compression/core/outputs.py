"""What a network answers for a batch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Answers for a batch: logits (B, K), embedding before the classifier (B, D), features {name: (B, C, H, W)}."""

    logits: "Tensor"
    embedding: "Tensor | None" = None
    features: "dict[str, Tensor]" = field(default_factory=dict)

    def rows(self, rows: slice) -> "Outputs":
        """The answers for some of the samples."""
        return Outputs(
            logits=self.logits[rows],
            embedding=None if self.embedding is None else self.embedding[rows],
            features={name: tensor[rows] for name, tensor in self.features.items()},
        )

    def shapes(self) -> dict[str, Any]:
        """Shapes for a batch of one, as a method's ``setup`` takes them from each side."""
        shapes: dict[str, Any] = {"logits": (1, *self.logits.shape[1:])}
        shapes["features"] = {name: (1, *tensor.shape[1:]) for name, tensor in self.features.items()}
        if self.embedding is not None:
            shapes["embedding"] = (1, *self.embedding.shape[1:])
        return shapes
