"""What a network answers for a batch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Answers for a batch: logits (B, …), of the shape that the task has, as (B, K), (B, K, H, W) or (B, L, K);
    embedding before the classifier (B, D); features {name: (B, C, H, W) or (B, L, D)}; ``mask`` (B, L) is 1 where
    a token is no padding, None where all count. Where a task has made rows (N, K) of the logits of pixels, ``maps`` are
    these logits as the network gives them, (B, K, H, W). ``inputs`` (B, C, H, W) are the images that the network was
    given, where a method looks at them."""

    logits: "Tensor"
    embedding: "Tensor | None" = None
    features: "dict[str, Tensor]" = field(default_factory=dict)
    mask: "Tensor | None" = None
    maps: "Tensor | None" = None
    inputs: "Tensor | None" = None

    def rows(self, rows: slice) -> "Outputs":
        """The answers for some of the samples."""
        return Outputs(
            logits=self.logits[rows],
            embedding=None if self.embedding is None else self.embedding[rows],
            features={name: tensor[rows] for name, tensor in self.features.items()},
            mask=None if self.mask is None else self.mask[rows],
            maps=None if self.maps is None else self.maps[rows],
            inputs=None if self.inputs is None else self.inputs[rows],
        )

    def shapes(self) -> dict[str, Any]:
        """Shapes for a batch of one, as a method's ``setup`` takes them from each side."""
        shapes: dict[str, Any] = {"logits": (1, *self.logits.shape[1:])}
        shapes["features"] = {name: (1, *tensor.shape[1:]) for name, tensor in self.features.items()}
        if self.embedding is not None:
            shapes["embedding"] = (1, *self.embedding.shape[1:])
        if self.inputs is not None:
            shapes["inputs"] = (1, *self.inputs.shape[1:])
        return shapes
