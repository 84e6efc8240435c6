"""Batches of a dataset, augmented on the device that trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from model_compression.core.config import DataConfig
from model_compression.core.counter_random import derived_seed
from model_compression.core.errors import UsageError
from model_compression.data.augment import apply_plan, sample_plan
from model_compression.data.dataset import Dataset
from model_compression.data.mixing import Mixing, mix


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What else is in the images of a batch: the partners' ``targets`` (B,); ``share`` (B,), 0 to 1, is the own one."""

    targets: Tensor
    share: Tensor

    def main(self, own: Tensor) -> Tensor:
        """(B,) of the targets ``own`` (B,) and the partners' those with the larger share."""
        return torch.where(self.share >= 0.5, own, self.targets)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs (B, C, H, W) uint8, augmented, not normalised; targets (B, …); ids (B,) into the dataset; the view.

    Where images are mixed, ``mixed`` says with what.
    """

    inputs: Tensor
    targets: Tensor
    ids: Tensor
    view: int
    mixed: Mixed | None = None

    @property
    def main_targets(self) -> Tensor:
        """(B,) the class that has the larger share in each image."""
        return self.targets if self.mixed is None else self.mixed.main(self.targets)


class Loader(ABC):
    """The batches of a dataset on ``device``, in any order; a subclass says where the pixels come from."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        check_sizes(config, dataset.image_shape)
        self.config = config
        self.targets = torch.from_numpy(dataset.labels).to(device)
        self._mixing = Mixing(config, len(dataset), device) if config.mixes else None
        self._fill: Tensor | None = None  # (C,), what is in a hole: the mean of some images
        if config.cutout:
            some = torch.from_numpy(dataset.images[:: max(1, len(dataset) // 1000)]).to(device)
            self._fill = some.float().mean(dim=(0, 2, 3)).round().to(some.dtype)

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """The images (B, C, H, W) at ``indices`` (B,), as they are."""

    def pixels_in_turn(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """`pixels` of each of ``batches``."""
        return map(self.pixels, batches)

    def view_of(self, epoch: int) -> int:
        """The view that ``epoch`` shows; without augmentation there is one."""
        if not self.config.has_views:
            return 0
        return epoch % self.config.views if self.config.views else epoch

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return num_batches(len(self), batch_size)

    def epoch(self, *, epoch: int, seed: int, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``first`` on, in the order that (seed, epoch) gives.

        No image is dropped: one that would be alone in the last batch, where BatchNorm fails and methods that compare
        images have nothing to compare, joins the batch before.
        """
        order = epoch_order(len(self), seed, epoch).to(self.targets.device)
        batches = list(order.split(batch_size))
        if len(batches) > num_batches(len(self), batch_size):
            batches[-2:] = [torch.cat(batches[-2:])]
        return self._show(batches[first:], self.view_of(epoch))

    def in_order(self, *, view: int, batch_size: int) -> Iterator[Batch]:
        """All batches of a view, in index order."""
        return self._show(torch.arange(len(self), device=self.targets.device).split(batch_size), view)

    def batch(self, indices: Tensor, view: int) -> Batch:
        """The images at ``indices`` (B,) as ``view`` shows them."""
        rows = self._rows(indices, view)
        return self._build_batch(self.pixels(rows), rows, len(indices), view)

    def _show(self, batches: Sequence[Tensor], view: int) -> Iterator[Batch]:
        rows = [self._rows(indices, view) for indices in batches]
        for indices, needed, pixels in zip(batches, rows, self.pixels_in_turn(rows), strict=True):
            yield self._build_batch(pixels, needed, len(indices), view)

    def _rows(self, indices: Tensor, view: int) -> Tensor:
        """Indices of the images that a batch is made of: where images are mixed, their partners come after them."""
        return indices if self._mixing is None else torch.cat([indices, self._mixing.partners(indices, view)])

    def _build_batch(self, pixels: Tensor, rows: Tensor, count: int, view: int) -> Batch:
        """The batch of ``count`` images that is made of ``pixels``, of the images at ``rows``."""
        images, targets = self._augment(pixels, rows, view), self.targets[rows]
        if self._mixing is None:
            return Batch(inputs=images, targets=targets, ids=rows, view=view)
        mixture = self._mixing.sample(rows[:count], view)
        images, share = mix(images[:count], images[count:], mixture)
        mixed = Mixed(targets=targets[count:], share=share)
        return Batch(inputs=images, targets=targets[:count], ids=rows[:count], view=view, mixed=mixed)

    def _augment(self, pixels: Tensor, indices: Tensor, view: int) -> Tensor:
        config = self.config
        plan = sample_plan(
            config.augmentation,
            indices,
            view_seed=config.view_seed,
            view=view,
            shift=config.shift,
            cutout=config.cutout,
        )
        return apply_plan(pixels, plan, self._fill)


class ResidentLoader(Loader):
    """A dataset's images on ``device``, which all loaders of the dataset share."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        super().__init__(dataset, config, device)
        self.images = images_on(device, dataset)

    def pixels(self, indices: Tensor) -> Tensor:
        """The images (B, C, H, W) at ``indices`` (B,), as they are."""
        return self.images[indices]


_COPIES: WeakKeyDictionary[Dataset, dict[torch.device, Tensor]] = WeakKeyDictionary()


def images_on(device: torch.device, dataset: Dataset) -> Tensor:
    """The images (N, C, H, W) on ``device``: one copy in a process for all datasets of one digest.

    It is kept as long as one of the datasets that it was asked for.
    """
    device = torch.empty(0, device=device).device  # "cuda" with its number
    for other, copies in list(_COPIES.items()):
        if other.digest == dataset.digest and device in copies:
            found = copies[device]
            break
    else:
        found = upload(dataset, device)
    return _COPIES.setdefault(dataset, {}).setdefault(device, found)


def upload(dataset: Dataset, device: torch.device) -> Tensor:
    """A copy of the images on ``device``; on the CPU it shares their memory."""
    return torch.from_numpy(dataset.images[:]).to(device)


def check_sizes(config: DataConfig, image_shape: tuple[int, int, int]) -> None:
    """Raises UsageError when ``config`` shifts or cuts out more than images (C, H, W) have."""
    side = min(image_shape[1:])
    if config.augmentation == "flip_shift" and config.shift >= side:
        raise UsageError(f"shift must be below the images' {side} pixels, got {config.shift}; 2 to 4 are usual")
    if config.cutout > side:
        raise UsageError(f"cutout must be at most the images' {side} pixels, got {config.cutout}; 8 to 16 are usual")


def num_batches(count: int, batch_size: int) -> int:
    """How many batches ``count`` images make, when one that would be alone in the last joins the batch before."""
    alone = count % batch_size == 1 and count > batch_size
    return -(-count // batch_size) - alone


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation (count,) that is a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    return torch.randperm(count, generator=generator)
