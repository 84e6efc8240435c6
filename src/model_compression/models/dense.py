"""Logits of pixels at the size of the images."""

import torch.nn.functional as F
from torch import Tensor

from model_compression.core.inputs import Inputs


def at_size_of(images: Inputs, logits: Tensor) -> Tensor:
    """Logits (B, K, H', W') at the height and width of ``images`` (B, C, H, W), bilinear; other answers as they are.

    Many networks for segmentation answer at a quarter or an eighth of the size, and count on this.
    """
    if logits.ndim != 4 or not isinstance(images, Tensor) or images.ndim != 4 or logits.shape[2:] == images.shape[2:]:
        return logits
    return F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)
