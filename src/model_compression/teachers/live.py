"""A teacher that answers each batch anew."""

import torch

from model_compression.data.loader import Batch
from model_compression.models.base import Network, placed
from model_compression.outputs import Outputs


class LiveTeacher:
    """A network in eval mode, without gradient, always."""

    def __init__(self, model: Network, device: torch.device, precision: torch.dtype):
        self.model = placed(model, device).eval().requires_grad_(False)
        self.device, self.precision = device, precision

    @torch.no_grad()
    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32 for images as the batch shows them."""
        assert not any(module.training for module in self.model.modules())
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = self.model(self.model.preprocessing(batch.images))
        return Outputs(logits=logits.float())
