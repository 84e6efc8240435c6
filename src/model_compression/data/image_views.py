"""What a view shows of one image: a random crop, mirrored or not, then operations on its colours or its shape.

A view is a pure function of (view_seed, view, sample id) and the size of the image. All is computed on the CPU, image
by image, in the processes that decode: order, batch, number of workers and device change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_compression.core.counter_random import random_bits, uniform
from model_compression.core.data_config import DataConfig
from model_compression.core.masks import IGNORE
from model_compression.data.augment import sample_flips
from model_compression.data.crops import BoxDraws, central_box, draw_boxes
from model_compression.data.dataset import Dataset
from model_compression.data.on_demand import Images, ImageSource, OriginalSource, PixelBox, Rows, Shown
from model_compression.data.operations import (
    BINS,
    GEOMETRIC,
    RANDAUGMENT,
    TRIVIALAUGMENT,
    Operation,
    Space,
    apply_operation,
    kernels,
    move_mask,
)
from model_compression.data.scaling import Size, crop_array

# Numbers of the random operations, apart from those of `augment` and `mixing`.
_BOX, _FACTOR, _ORDER, _GREY, _WHICH, _BIN, _SIGN = 31, 32, 33, 34, 35, 36, 37
_JITTER = ("Brightness", "Contrast", "Color", "Hue")


@dataclass(frozen=True, kw_only=True)
class ImageView:
    """What is done to one image, in this order: the box is cut out and scaled, mirrored, then the operations follow."""

    box: PixelBox
    flip: bool
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ViewDraws:
    """The views of a batch, drawn before the sizes of its images are known."""

    boxes: BoxDraws
    flips: npt.NDArray[np.bool_]
    operations: list[tuple[Operation, ...]]
    ratio: tuple[float, float]

    def of(self, row: int, height: int, width: int) -> ImageView:
        """The view of the image at ``row`` of the batch, which has ``height`` and ``width``."""
        box = self.boxes.box(row, height, width) or central_box(height, width, self.ratio)
        return ImageView(box=box, flip=bool(self.flips[row]), operations=self.operations[row])


@dataclass(frozen=True, kw_only=True)
class ImageViews:
    """The views that ``config`` asks for, of images that become (C, H, W) ``shape``; ``fill`` (C,) is their mean.

    ``of_originals``: crops are cut from the images before they are scaled, if a source has them.
    """

    config: DataConfig
    shape: tuple[int, int, int]
    fill: tuple[int, ...]
    of_originals: bool = True

    @classmethod
    def of(cls, config: DataConfig, dataset: Dataset) -> "ImageViews":
        """Those of ``dataset``. Masks are held as they are scaled, so that images are cropped from there as well.

        Raises MissingExtraError where operations need torchvision.
        """
        fill = tuple(round(255 * mean) for mean in dataset.mean)
        views = cls(config=config, shape=dataset.image_shape, fill=fill, of_originals=not dataset.has_masks)
        if views._names:
            kernels(f"augmentation {config.augmentation}")
        return views

    @property
    def has_colours(self) -> bool:
        """Whether operations on colours are known for so many channels: grey and RGB."""
        return self.shape[0] in (1, 3)

    @property
    def _names(self) -> list[str]:
        """The operations that may be drawn."""
        config = self.config
        if config.augmentation != "photo":
            return [name for name in self._space if self.has_colours or name in (*GEOMETRIC, "Identity")]
        jitter = [config.color_jitter] * 3 + [config.hue]
        names = [name for name, size in zip(_JITTER, jitter, strict=True) if size] + ["Grey"] * bool(config.grey)
        return [name for name in names if self.has_colours and (self.shape[0] == 3 or name in _JITTER[:2])]

    @property
    def _space(self) -> Space:
        return RANDAUGMENT if self.config.augmentation == "randaugment" else TRIVIALAUGMENT

    def draw(self, ids: Tensor, view: int) -> ViewDraws:
        """What ``view`` shows of the samples ``ids`` (B,) of the dataset."""
        ids, config = ids.cpu(), self.config
        ratio = (1 / config.crop_ratio, config.crop_ratio)
        return ViewDraws(
            boxes=draw_boxes(ids, (config.view_seed, view, _BOX), (config.crop_area, 1.0), ratio),
            flips=sample_flips(ids, config.view_seed, view).numpy(),
            operations=self._draw_jitter(ids, view) if config.augmentation == "photo" else self._draw_space(ids, view),
            ratio=ratio,
        )

    def _draw_jitter(self, ids: Tensor, view: int) -> list[tuple[Operation, ...]]:
        """Brightness, contrast, saturation and hue in random order, as ColorJitter; then perhaps grey."""
        config, names = self.config, self._names
        seed, sizes = config.view_seed, dict.fromkeys(_JITTER[:3], config.color_jitter) | {"Hue": config.hue}
        # each name has its own draws, whatever else is on
        draws = {
            name: (uniform(ids, seed, view, _ORDER, _JITTER.index(name)).tolist(),
                   (2 * uniform(ids, seed, view, _FACTOR, _JITTER.index(name)) - 1).tolist())
            for name in names if name != "Grey"
        }  # fmt: skip
        grey = (uniform(ids, seed, view, _GREY) < config.grey).tolist() if "Grey" in names else [False] * len(ids)
        found = []
        for row in range(len(ids)):
            order = sorted(draws, key=lambda name: draws[name][0][row])
            jitter = [Operation(name, sizes[name] * draws[name][1][row]) for name in order]
            found.append((*jitter, *[Operation("Grey")] * grey[row]))
        return found

    def _draw_space(self, ids: Tensor, view: int) -> list[tuple[Operation, ...]]:
        """Operations of RandAugment, each at the same magnitude, or one of TrivialAugment at any."""
        config, (_, height, width) = self.config, self.shape
        fixed = config.randaugment_magnitude if config.augmentation == "randaugment" else None
        count = config.randaugment_ops if config.augmentation == "randaugment" else 1
        names = self._names
        tables = {name: (self._space[name][0](height, width), self._space[name][1]) for name in names}
        drawn: list[list[Operation]] = [[] for _ in ids]
        for number in range(count):
            keys = [(config.view_seed, view, what, number) for what in (_WHICH, _BIN, _SIGN)]
            which, bins, signs = (random_bits(ids, *key).tolist() for key in keys)
            for row, operations in enumerate(drawn):
                name = names[which[row] % len(names)]
                magnitudes, signed = tables[name]
                size = float(magnitudes[bins[row] % BINS if fixed is None else fixed])
                operations.append(Operation(name, -size if signed and signs[row] & 1 else size))
        return [tuple(operations) for operations in drawn]

    def shown(self, rows: Rows, view: int) -> Shown:
        """What ``view`` shows of a batch of the samples at ``rows`` (B,)."""
        draws = self.draw(torch.from_numpy(rows), view)

        def show(row: int, source: ImageSource, number: int) -> Images:
            found: list[ImageView] = []

            def choose(height: int, width: int) -> PixelBox:
                found.append(draws.of(row, height, width))
                return found[0].box

            if self.of_originals and isinstance(source, OriginalSource):
                crop = source.decode_crop(number, choose)
            else:
                crop = crop_array(source.decode(number), self.shape[1:], choose)
            return self.transform(torch.from_numpy(crop), found[0]).numpy()

        return show

    def transform(self, crop: Tensor, view: ImageView) -> Tensor:
        """A crop (C, H, W) uint8, already scaled, mirrored and after the operations of ``view``."""
        image = (crop.flip(-1) if view.flip else crop).contiguous()  # colour operations are faster so
        for operation in view.operations:
            image = apply_operation(image, operation, self.fill)
        return image

    def apply(self, image: Tensor, view: ImageView) -> Tensor:
        """What ``view`` shows of an image (C, h, w) uint8: (C, H, W)."""
        crop = crop_array(image.numpy(), self.shape[1:], lambda height, width: view.box)
        return self.transform(torch.from_numpy(crop), view)

    def apply_to_mask(self, mask: Tensor, view: ImageView) -> Tensor:
        """What ``view`` shows of the mask (h, w) of an image: (H, W), nearest values, `IGNORE` outside of it."""
        top, left, height, width = view.box
        moved = nearest(mask[top : top + height, left : left + width], self.shape[1:])
        moved = moved.flip(-1) if view.flip else moved
        for operation in view.operations:
            moved = move_mask(moved, operation, IGNORE)
        return moved

    def move_masks(self, masks: Tensor, ids: Tensor, view: int) -> Tensor:
        """The masks (B, h, w) of the samples ``ids`` (B,) as ``view`` shows them: (B, H, W)."""
        draws, (height, width) = self.draw(ids, view), masks.shape[1:]
        shown = [self.apply_to_mask(mask, draws.of(row, height, width)) for row, mask in enumerate(masks.cpu())]
        return torch.stack(shown).to(masks.device)


def nearest(mask: Tensor, size: Size) -> Tensor:
    """A mask (h, w) of any integers scaled to ``size``: of each pixel the value at its centre."""
    (height, width), (rows, columns) = mask.shape, size
    down = ((torch.arange(rows) * 2 + 1) * height) // (2 * rows)
    across = ((torch.arange(columns) * 2 + 1) * width) // (2 * columns)
    return mask[down][:, across]


def view_notes(config: DataConfig, channels: int) -> Sequence[str]:
    """What a run says once about its views."""
    if not config.crops or channels in (1, 3):
        return []
    what = "changes of colour" if config.augmentation == "photo" else "operations on colours"
    return [
        f"images have {channels} channels: {what} are for 1 or 3 and are left out of {config.augmentation}; crops, "
        "flips and geometric operations remain"
    ]
