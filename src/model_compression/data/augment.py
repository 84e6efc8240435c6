"""Augmentation in two steps: sample a plan for (view, image), apply it to a whole batch on its device.

A plan is a pure function of (view_seed, view, sample index, operation), drawn by a counter-based generator: the order
of the images, the batch size, the number of workers and the device change nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_compression.counter_random import random_bits

# One number per random operation; a new operation takes a new one, so that old plans stay as they are.
_FLIP, _SHIFT_Y, _SHIFT_X = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to each image of a batch: flip (B,) bool, shift (B, 2) in pixels, down and to the right."""

    flip: Tensor
    shift: Tensor


def sample_plan(augmentation: str, indices: Tensor, *, view_seed: int, view: int, shift: int) -> Plan | None:
    """The plan for the images at ``indices`` (B,) in ``view``; None where ``augmentation`` is "none".

    Flips follow Jordan 2024 (arXiv 2404.00498): random in even views, the other side in the view that follows, so that
    two views show both sides.
    """
    if augmentation == "none":
        return None
    flip = (random_bits(indices, view_seed, view // 2, _FLIP) & 1 == 1) ^ (view % 2 == 1)
    if augmentation == "flip":
        return Plan(flip=flip, shift=torch.zeros(len(indices), 2, dtype=torch.int64, device=indices.device))
    choices = 2 * shift + 1
    shifts = [random_bits(indices, view_seed, view, axis) % choices - shift for axis in (_SHIFT_Y, _SHIFT_X)]
    return Plan(flip=flip, shift=torch.stack(shifts, dim=1))


def apply_plan(images: Tensor, plan: Plan | None) -> Tensor:
    """Flips and shifts a batch (B, C, H, W) of any dtype; pixels from outside are reflected at the border."""
    if plan is None:
        return images
    _, channels, height, width = images.shape
    rows = _reflected(torch.arange(height, device=images.device) - plan.shift[:, :1], height)  # (B, H)
    columns = _reflected(torch.arange(width, device=images.device) - plan.shift[:, 1:], width)  # (B, W)
    columns = torch.where(plan.flip[:, None], width - 1 - columns, columns)
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H · W)
    gathered = images.flatten(2).gather(2, source[:, None].expand(-1, channels, -1))
    return gathered.view_as(images)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions outside 0..size−1 come back from the border, which is not repeated."""
    position = position.abs()
    return torch.where(position > size - 1, 2 * (size - 1) - position, position)
