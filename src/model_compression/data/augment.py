"""Augmentation in two steps: sample a plan for (view, image), apply it to a whole batch on its device.

A plan is a pure function of (view_seed, view, sample index, operation), drawn by a counter-based generator: the order
of the images, the batch size, the number of workers and the device change nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_compression.core.counter_random import random_bits

# One number per random operation; a new operation takes a new one, so that old plans stay as they are.
_FLIP, _SHIFT_Y, _SHIFT_X, _HOLE_Y, _HOLE_X = 1, 2, 3, 4, 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to each image of a batch: flip (B,) bool, shift (B, 2) in pixels, down and to the right.

    Where ``cutout`` is not 0, a square hole of that side: its middle is ``hole`` (B, 2), in shares of height and width.
    """

    flip: Tensor
    shift: Tensor
    hole: Tensor | None = None
    cutout: int = 0


def sample_plan(
    augmentation: str, indices: Tensor, *, view_seed: int, view: int, shift: int, cutout: int = 0
) -> Plan | None:
    """The plan for the images at ``indices`` (B,) in ``view``; None where ``augmentation`` is "none".

    Flips follow Jordan 2024 (arXiv 2404.00498): random in even views, the other side in the view that follows, so that
    two views show both sides. ``cutout`` is the side of a hole whose middle is anywhere in the image (DeVries 2017,
    arXiv 1708.04552), 0 for none.
    """
    if augmentation == "none":
        return None
    flip = (random_bits(indices, view_seed, view // 2, _FLIP) & 1 == 1) ^ (view % 2 == 1)
    shifts = torch.zeros(len(indices), 2, dtype=torch.int64, device=indices.device)
    if augmentation == "flip_shift":
        axes = [random_bits(indices, view_seed, view, axis) % (2 * shift + 1) for axis in (_SHIFT_Y, _SHIFT_X)]
        shifts = torch.stack(axes, dim=1) - shift
    hole = None
    if cutout:
        axes = [random_bits(indices, view_seed, view, axis) & 0xFFFF for axis in (_HOLE_Y, _HOLE_X)]
        hole = torch.stack(axes, dim=1) / 2**16
    return Plan(flip=flip, shift=shifts, hole=hole, cutout=cutout)


def apply_plan(images: Tensor, plan: Plan | None, fill: Tensor | None = None) -> Tensor:
    """Flips and shifts a batch (B, C, H, W) of any dtype, then makes the holes; pixels from outside are reflected.

    ``fill`` (C,), of the same dtype, is what is in a hole; 0 without it.
    """
    if plan is None:
        return images
    _, channels, height, width = images.shape
    rows = _reflect(torch.arange(height, device=images.device) - plan.shift[:, :1], height)  # (B, H)
    columns = _reflect(torch.arange(width, device=images.device) - plan.shift[:, 1:], width)  # (B, W)
    columns = torch.where(plan.flip[:, None], width - 1 - columns, columns)
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H · W)
    gathered = images.flatten(2).gather(2, source[:, None].expand(-1, channels, -1))
    moved = gathered.view_as(images)
    if plan.hole is None:
        return moved
    in_hole = (
        _within(plan.hole[:, :1], plan.cutout, height)[:, :, None]
        & _within(plan.hole[:, 1:], plan.cutout, width)[:, None, :]
    )  # (B, H, W)
    fill = moved.new_zeros(channels) if fill is None else fill
    return torch.where(in_hole[:, None], fill.view(1, -1, 1, 1), moved)


def _within(middle: Tensor, side: int, size: int) -> Tensor:
    """(B, size) bool: which of the positions 0..size−1 are in holes of ``side`` around the share ``middle`` (B, 1)."""
    first = (middle * size).long() - side // 2
    position = torch.arange(size, device=middle.device)
    return (position >= first) & (position < first + side)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside 0..size−1 come back from the border, which is not repeated."""
    position = position.abs()
    return torch.where(position > size - 1, 2 * (size - 1) - position, position)
