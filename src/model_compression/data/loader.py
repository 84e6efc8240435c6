"""Batches of a data set that lives in memory, on the device that trains."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_compression.config import DataConfig
from model_compression.counter_random import derived_seed
from model_compression.data.augment import apply_plan, sample_plan
from model_compression.data.dataset import Dataset
from model_compression.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images (B, C, H, W) uint8, augmented, not normalised; targets (B,); indices (B,) into the data set; the view."""

    images: Tensor
    targets: Tensor
    indices: Tensor
    view: int


class ResidentLoader:
    """A data set's images and labels on ``device``, and its batches in any order."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        side = min(dataset.image_shape[1:])
        if config.augmentation == "flip_shift" and config.shift >= side:
            raise UsageError(f"shift must be below the images' {side} pixels, got {config.shift}; 2 to 4 are usual")
        if config.cutout > side:
            raise UsageError(
                f"cutout must be at most the images' {side} pixels, got {config.cutout}; 8 to 16 are usual"
            )
        self.config = config
        self.images = torch.from_numpy(dataset.images).to(device)
        self.targets = torch.from_numpy(dataset.labels).to(device)
        some = self.images[:: max(1, len(self.images) // 1000)]
        self._mean = some.float().mean(dim=(0, 2, 3)).round().to(some.dtype)  # (C,), what is in a hole

    def __len__(self) -> int:
        return len(self.targets)

    def view_of(self, epoch: int) -> int:
        """The view that ``epoch`` shows; without augmentation there is one."""
        if self.config.augmentation == "none":
            return 0
        return epoch % self.config.views if self.config.views else epoch

    def epoch(self, *, epoch: int, seed: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``first`` on, in the order that (seed, epoch) gives; none is dropped."""
        order = epoch_order(len(self), seed, epoch).to(self.targets.device)
        for start in range(first * batch_size, len(order), batch_size):
            yield self.batch(order[start : start + batch_size], self.view_of(epoch))

    def in_order(self, *, view: int, batch_size: int) -> Iterator[Batch]:
        """All batches of a view, in index order."""
        for indices in torch.arange(len(self), device=self.targets.device).split(batch_size):
            yield self.batch(indices, view)

    def batch(self, indices: Tensor, view: int) -> Batch:
        """The images at ``indices`` (B,) as ``view`` shows them."""
        config = self.config
        plan = sample_plan(
            config.augmentation,
            indices,
            view_seed=config.view_seed,
            view=view,
            shift=config.shift,
            cutout=config.cutout,
        )
        images = apply_plan(self.images[indices], plan, self._mean)
        return Batch(images=images, targets=self.targets[indices], indices=indices, view=view)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation (count,) that is a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    return torch.randperm(count, generator=generator)
