"""Mixup and CutMix: each image of a view is blended with a partner, or has a box pasted into it.

As with augmentation, what is done to an image is a pure function of (view_seed, view, sample index): teacher and
student see the same mixture, and a teacher's answers to it can be stored. A view's partners are a permutation of the
dataset.
Shares are multiples of 1/4096 and blends are made of integers, so that every device makes the same pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from model_compression.core.counter_random import random_bits
from model_compression.core.data_config import DataConfig
from model_compression.data.batches import Mixed

# Numbers of the random operations, apart from those of augmentation.
_PARTNER, _WHICH, _SHARE, _BOX_Y, _BOX_X = 21, 22, 23, 24, 25
_STEPS = 4096


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How each image of a batch is mixed: ``partners`` (B,) are indices into the dataset.

    ``parts`` (B,) int64 is the image's own share, of 4096: of its light, or where ``boxed`` (B,) of its area that is
    left beside a box from its partner; ``middle`` (B, 2) of that box in shares of height and width.
    """

    partners: Tensor
    parts: Tensor
    boxed: Tensor
    middle: Tensor


class Mixing:
    """Draws the mixtures of a dataset of ``count`` images."""

    def __init__(self, config: DataConfig, count: int, device: torch.device):
        self._config, self._count, self._device = config, count, device
        self._mixup, self._cutmix = (
            _quantiles(alpha).to(device) if alpha else None for alpha in (config.mixup, config.cutmix)
        )
        self._of_view: tuple[int, Tensor] | None = None

    def partners(self, indices: Tensor, view: int) -> Tensor:
        """(B,) indices of the images that those at ``indices`` (B,) are mixed with in ``view``."""
        if self._of_view is None or self._of_view[0] != view:
            everything = torch.arange(self._count, device=self._device)
            bits = random_bits(everything, self._config.view_seed, view, _PARTNER)
            self._of_view = view, bits.argsort(stable=True)
        return self._of_view[1][indices]

    def sample(self, indices: Tensor, view: int) -> Mixture:
        """How the images at ``indices`` (B,) are mixed in ``view``; with mixup and cutmix, half of them each way."""
        seed = self._config.view_seed
        drawn = random_bits(indices, seed, view, _SHARE) % _STEPS
        boxed = torch.full_like(indices, self._mixup is None, dtype=torch.bool)
        if self._mixup is not None and self._cutmix is not None:
            boxed = random_bits(indices, seed, view, _WHICH) & 1 == 1
        tables = [table for table in (self._mixup, self._cutmix) if table is not None]
        parts = torch.where(boxed, tables[-1][drawn], tables[0][drawn])
        middle = torch.stack([random_bits(indices, seed, view, axis) & 0xFFFF for axis in (_BOX_Y, _BOX_X)], dim=1)
        return Mixture(partners=self.partners(indices, view), parts=parts, boxed=boxed, middle=middle.double() / 2**16)


def mix(images: Tensor, others: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) uint8 with their partners ``others`` in them, and which share is their own (B,), 0 to 1.

    A box that reaches over the border is cut there, and its share counted as it is (Yun et al. 2019, arXiv 1905.04899);
    a blend is share · image + (1 − share) · other (Zhang et al. 2018, arXiv 1710.09412), rounded.
    """
    height, width = images.shape[2:]
    box = boxes(mixture, height, width)
    blended = mixture.parts.where(~mixture.boxed, _STEPS)
    part = blended.int().view(-1, 1, 1, 1)
    light = (part * images + (_STEPS - part) * others + _STEPS // 2) >> 12  # ≤ 4096 · 255, far from overflow
    mixed = torch.where(box[:, None], others, light.to(images.dtype))
    own = 1 - box.sum(dim=(1, 2)).double() / (height * width)
    return mixed, torch.where(mixture.boxed, own, blended.double() / _STEPS).float()


def boxes(mixture: Mixture, height: int, width: int) -> Tensor:
    """(B, H, W) bool: which pixels are those of the partners."""
    side = (1 - mixture.parts.double() / _STEPS).sqrt()  # of the box, as a share of the image's
    rows = _within(mixture.middle[:, 0], side, height)[:, :, None]
    columns = _within(mixture.middle[:, 1], side, width)[:, None, :]
    return rows & columns & mixture.boxed[:, None, None]


def mix_masks(masks: Tensor, others: Tensor, mixture: Mixture, share: Tensor) -> tuple[Tensor, Mixed]:
    """Masks (B, H, W) with the boxes of their partners' ``others`` in them; what else is mixed in has both classes.

    ``share`` (B,) is what `mix` gives. A pixel in a box has one class, and the share of the own one is 1 there.
    """
    pasted = torch.where(boxes(mixture, *masks.shape[1:]), others, masks)
    return pasted, Mixed(targets=others, share=torch.where(mixture.boxed, torch.ones_like(share), share))


def _quantiles(alpha: float) -> Tensor:
    """(4096,) int64: a share for each of 4096 equally likely cases of Beta(alpha, alpha), in parts of 4096."""
    cases = (np.arange(_STEPS) + 0.5) / _STEPS
    return torch.from_numpy((betaincinv(alpha, alpha, cases) * _STEPS).round().astype(np.int64))


def _within(middle: Tensor, side: Tensor, size: int) -> Tensor:
    """(B, size) bool: which of the positions 0..size−1 are in boxes of ``side`` (B,) around ``middle`` (B,)."""
    length = (side * size).round().long()[:, None]
    first = (middle * size).long()[:, None] - length // 2
    position = torch.arange(size, device=middle.device)
    return (position >= first) & (position < first + length)
