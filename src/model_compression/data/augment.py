"""Augmentation in two steps: sample a plan for (view, image), apply it to a whole batch on its device.

A plan is a pure function of (view_seed, view, sample index, operation), drawn by a counter-based generator: the order
of the images, the batch size, the number of workers and the device change nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_compression.core.counter_random import random_bits, uniform
from model_compression.core.data_config import CROPPING
from model_compression.core.masks import IGNORE
from model_compression.data.crops import draw_boxes
from model_compression.data.scaling import Size

# One number per random operation; a new operation takes a new one, so that old plans stay as they are.
_FLIP, _SHIFT_Y, _SHIFT_X, _HOLE_Y, _HOLE_X, _ERASED, _ERASED_BOX = 1, 2, 3, 4, 5, 6, 7
# Shares of the area and width / height of erased boxes, as torchvision's RandomErasing has them by default.
_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (1 / 3.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to each image of a batch: flip (B,) bool, shift (B, 2) in pixels, down and to the right, or neither.

    Where ``cutout`` is not 0, a square hole of that side: its middle is ``hole`` (B, 2), in shares of height and width.
    ``erased`` (B, 4) are boxes, top, left, height and width in pixels, of height 0 where nothing is erased.
    """

    flip: Tensor | None = None
    shift: Tensor | None = None
    hole: Tensor | None = None
    cutout: int = 0
    erased: Tensor | None = None


def sample_plan(
    augmentation: str, indices: Tensor, *, view_seed: int, view: int, shift: int, cutout: int = 0,
    erasing: float = 0.0, size: Size = (0, 0),
) -> Plan | None:  # fmt: skip
    """The plan for the images at ``indices`` (B,) in ``view``; None where nothing is done.

    Flips follow Jordan 2024 (arXiv 2404.00498): random in even views, the other side in the view that follows, so that
    two views show both sides. ``cutout`` is the side of a hole whose middle is anywhere in the image (DeVries 2017,
    arXiv 1708.04552), 0 for none. ``erasing`` is the probability of a box that is erased in images of ``size``
    (Zhong et al. 2017, arXiv 1708.04896). Images of augmentations that crop are mirrored before, by `ImageViews`.
    """
    if augmentation == "none":
        return None
    flip = shifts = hole = erased = None
    if augmentation not in CROPPING:
        flip = sample_flips(indices, view_seed, view)
        flip = torch.zeros_like(flip) if augmentation == "shift" else flip
        shifts = torch.zeros(len(indices), 2, dtype=torch.int64, device=indices.device)
    if augmentation in ("shift", "flip_shift"):
        axes = [random_bits(indices, view_seed, view, axis) % (2 * shift + 1) for axis in (_SHIFT_Y, _SHIFT_X)]
        shifts = torch.stack(axes, dim=1) - shift
    if cutout:
        axes = [random_bits(indices, view_seed, view, axis) & 0xFFFF for axis in (_HOLE_Y, _HOLE_X)]
        hole = torch.stack(axes, dim=1) / 2**16
    if erasing:
        draws = draw_boxes(indices, (view_seed, view, _ERASED_BOX), _ERASED_AREA, _ERASED_RATIO)
        chosen = uniform(indices.cpu(), view_seed, view, _ERASED) < erasing
        boxes = [draws.box(row, *size, smaller=True) if chosen[row] else None for row in range(len(indices))]
        erased = torch.tensor([box or (0, 0, 0, 0) for box in boxes]).to(indices.device)
    return Plan(flip=flip, shift=shifts, hole=hole, cutout=cutout, erased=erased)


def sample_flips(indices: Tensor, view_seed: int, view: int) -> Tensor:
    """(B,) bool: which of the images at ``indices`` are mirrored in ``view``, see `sample_plan`."""
    return (random_bits(indices, view_seed, view // 2, _FLIP) & 1 == 1) ^ (view % 2 == 1)


def apply_plan(images: Tensor, plan: Plan | None, fill: Tensor | None = None) -> Tensor:
    """Flips and shifts a batch (B, C, H, W) of any dtype, then makes the holes; pixels from outside are reflected.

    ``fill`` (C,), of the same dtype, is what is in a hole and an erased box; 0 without it.
    """
    if plan is None:
        return images
    _, channels, height, width = images.shape
    moved = _move(images, plan)
    fill = moved.new_zeros(channels) if fill is None else fill
    if plan.hole is not None:
        in_hole = (
            _within(plan.hole[:, :1], plan.cutout, height)[:, :, None]
            & _within(plan.hole[:, 1:], plan.cutout, width)[:, None, :]
        )  # (B, H, W)
        moved = torch.where(in_hole[:, None], fill.view(1, -1, 1, 1), moved)
    if plan.erased is not None:
        top, left, high, wide = (part[:, None] for part in plan.erased.unbind(1))
        row, column = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        rows, columns = (row >= top) & (row < top + high), (column >= left) & (column < left + wide)
        moved = torch.where((rows[:, :, None] & columns[:, None, :])[:, None], fill.view(1, -1, 1, 1), moved)
    return moved


def _move(images: Tensor, plan: Plan) -> Tensor:
    """Flipped, then shifted."""
    if plan.flip is None or plan.shift is None:
        return images
    _, channels, height, width = images.shape
    rows = _reflect(torch.arange(height, device=images.device) - plan.shift[:, :1], height)  # (B, H)
    columns = _reflect(torch.arange(width, device=images.device) - plan.shift[:, 1:], width)  # (B, W)
    columns = torch.where(plan.flip[:, None], width - 1 - columns, columns)
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H · W)
    gathered = images.flatten(2).gather(2, source[:, None].expand(-1, channels, -1))
    return gathered.view_as(images)


def move_masks(masks: Tensor, plan: Plan | None) -> Tensor:
    """Masks (B, H, W) moved as `apply_plan` moves their images, never blended; what is in a hole does not count."""
    fill = torch.full((1,), IGNORE, dtype=masks.dtype, device=masks.device)
    return apply_plan(masks[:, None], plan, fill)[:, 0]


def _within(middle: Tensor, side: int, size: int) -> Tensor:
    """(B, size) bool: which of the positions 0..size−1 are in holes of ``side`` around the share ``middle`` (B, 1)."""
    first = (middle * size).long() - side // 2
    position = torch.arange(size, device=middle.device)
    return (position >= first) & (position < first + side)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside 0..size−1 come back from the border, which is not repeated."""
    position = position.abs()
    return torch.where(position > size - 1, 2 * (size - 1) - position, position)
