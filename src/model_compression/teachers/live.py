"""A teacher that answers each batch anew: one network, or the mean of several."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model_compression.data.loader import Batch
from model_compression.models.base import Network, placed
from model_compression.outputs import Outputs


class LiveTeacher:
    """Networks in eval mode, without gradient, always; their logits are averaged.

    With ``tta`` "flip" each network's answer is the mean of those to the image and to its mirror image.
    """

    def __init__(self, models: Sequence[Network], device: torch.device, precision: torch.dtype, tta: str = "none"):
        self.models = [placed(model, device).eval().requires_grad_(False) for model in models]
        self.device, self.precision, self.tta = device, precision, tta

    @torch.no_grad()
    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32 for images as the batch shows them."""
        images = [batch.images, batch.images.flip(3)] if self.tta == "flip" else [batch.images]
        answers = [self._logits(model, shown) for model in self.models for shown in images]
        return Outputs(logits=answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0))

    def _logits(self, model: Network, images: Tensor) -> Tensor:
        assert not any(module.training for module in model.modules())
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits: Tensor = model(model.preprocessing(images))
        return logits.float()
