"""Batches of images, augmented on the device that trains."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.inputs import Inputs
from model_compression.core.options import setting
from model_compression.data.augment import Plan, apply_plan, move_masks, sample_plan
from model_compression.data.batches import Batch, Loader, Mixed
from model_compression.data.dataset import Dataset
from model_compression.data.image_views import ImageViews
from model_compression.data.mixing import Mixing, mix, mix_masks


class ImageLoader(Loader):
    """The batches of images; a subclass says where the pixels come from."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        check_sizes(config, dataset.image_shape)
        if config.mask_tokens:
            raise UsageError(f"{setting('mask_tokens')} is for texts, and {dataset.name} has images: leave it out")
        super().__init__(dataset.labels, config, device)
        self._has_masks = dataset.has_masks
        self._views = ImageViews.of(config, dataset) if config.crops else None
        self._mixing = Mixing(config, len(dataset), device) if config.mixes else None
        self._size = dataset.image_shape[1:]
        self._fill: Tensor | None = None  # (C,), what is in a hole: the mean of some images
        if config.erasing:
            self._fill = torch.tensor([round(255 * mean) for mean in dataset.mean], dtype=torch.uint8, device=device)
        if config.cutout:
            some = torch.from_numpy(dataset.images[:: max(1, len(dataset) // 1000)]).to(device)
            self._fill = some.float().mean(dim=(0, 2, 3)).round().to(some.dtype)

    def needed(self, indices: Tensor, view: int) -> Tensor:
        """Where images are mixed, their partners come after them."""
        return indices if self._mixing is None else torch.cat([indices, self._mixing.partners(indices, view)])

    def build_batch(self, inputs: Inputs, rows: Tensor, count: int, view: int) -> Batch:
        """The batch of ``count`` images, augmented and mixed, that is made of the pixels ``inputs``."""
        assert isinstance(inputs, Tensor)
        plan = self._plan(rows, view)
        images, targets = apply_plan(inputs, plan, self._fill), self.targets[rows]
        if self._has_masks:
            targets = targets if self._views is None else self._views.move_masks(targets, rows, view)
            targets = move_masks(targets, plan)
        if self._mixing is None:
            return Batch(inputs=images, targets=targets, ids=rows, view=view)
        mixture = self._mixing.sample(rows[:count], view)
        images, share = mix(images[:count], images[count:], mixture)
        own, others = targets[:count], targets[count:]
        if self._has_masks:
            own, mixed = mix_masks(own, others, mixture, share)
        else:
            mixed = Mixed(targets=others, share=share)
        return Batch(inputs=images, targets=own, ids=rows[:count], view=view, mixed=mixed)

    def _plan(self, indices: Tensor, view: int) -> Plan | None:
        config = self.config
        return sample_plan(
            config.augmentation,
            indices,
            view_seed=config.view_seed,
            view=view,
            shift=config.shift,
            cutout=config.cutout,
            erasing=config.erasing,
            size=self._size,
        )


class ResidentLoader(ImageLoader):
    """A dataset's images on ``device``, which all loaders of the dataset share."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        super().__init__(dataset, config, device)
        self.images = images_on(device, dataset)

    def inputs(self, indices: Tensor, view: int) -> Tensor:
        """The images (B, C, H, W) at ``indices`` (B,), as they are: views are made of them afterwards."""
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
    if config.augmentation in ("shift", "flip_shift") and config.shift >= side:
        raise UsageError(f"shift must be below the images' {side} pixels, got {config.shift}; 2 to 4 are usual")
    if config.cutout > side:
        raise UsageError(f"cutout must be at most the images' {side} pixels, got {config.cutout}; 8 to 16 are usual")
