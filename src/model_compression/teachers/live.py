"""A teacher that answers each batch anew: one network, or the mean of several."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from model_compression.data.loader import Batch, Loader
from model_compression.errors import UsageError
from model_compression.models.base import Network, placed
from model_compression.models.features import Tapped
from model_compression.outputs import Outputs


class LiveTeacher:
    """Networks in eval mode, without gradient, always; their logits are averaged.

    With ``tta`` "flip" each network's answer is the mean of those to the image and to its mirror image. ``features``
    and ``embedding`` are what is tapped beside the logits, of one network and without ``tta`` (UsageError otherwise).
    """

    def __init__(
        self,
        models: Sequence[Network],
        device: torch.device,
        precision: torch.dtype,
        tta: str = "none",
        *,
        features: Sequence[str] = (),
        embedding: bool = False,
    ):
        self.models = [placed(model, device).eval().requires_grad_(False) for model in models]
        self.device, self.precision, self.tta = device, precision, tta
        self.embeds = embedding
        self._tapped: Tapped | None = None
        if features or embedding:
            if len(models) > 1 or tta != "none":
                raise UsageError("features and embeddings of several teachers, or of mirror images, cannot be averaged")
            self._tapped = Tapped(self.models[0].body, features, embedding=embedding)

    @torch.no_grad()
    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32, and what is tapped, for images as the batch shows them."""
        if self._tapped is not None:
            return self._tapped_answer(self._tapped, batch.images)
        images = [batch.images, batch.images.flip(3)] if self.tta == "flip" else [batch.images]
        answers = [self._logits(model, shown) for model in self.models for shown in images]
        return Outputs(logits=answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0))

    def _tapped_answer(self, tapped: Tapped, images: Tensor) -> Outputs:
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            answer: Outputs = tapped(self.models[0].preprocessing(images))
        return dataclasses.replace(answer, logits=answer.logits.float())

    def _logits(self, model: Network, images: Tensor) -> Tensor:
        assert not any(module.training for module in model.modules())
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits: Tensor = model(model.preprocessing(images))
        return logits.float()


class PlainTeacher:
    """Answers the images as ``loader`` has them, without augmentation, whatever view the batch shows."""

    def __init__(self, live: LiveTeacher, loader: Loader):
        self._live, self._loader = live, loader

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32, and what is tapped."""
        return self._live.answer(self._loader.batch(batch.indices, view=0))
