"""Windows that slide over images too large to be answered at once, or larger than those that a network knows."""

from collections.abc import Callable
from typing import Any

import numpy as np


def window_starts(length: int, side: int) -> list[int]:
    """Where windows of ``side`` begin on an axis of ``length``: half a window apart, the last one at the end."""
    if length <= side:
        return [0]
    count = -(-2 * (length - side) // side)  # steps of half a window, at most
    return [number * (length - side) // count for number in range(count + 1)]


def slide(answer: Callable[[Any], Any], images: Any, size: tuple[int, int]) -> Any:
    """The logits (B, K, H, W) of ``images`` (B, C, H, W): the mean of those of all windows (h, w) ``size`` that see a
    pixel. Arrays of NumPy or tensors.

    An image that is smaller than a window is answered as it is.
    """
    height, width = images.shape[2:]
    if height <= size[0] and width <= size[1]:
        return answer(images)
    total: Any = 0
    counts = np.zeros((height, width), dtype=np.float32)
    for top in window_starts(height, size[0]):
        for left in window_starts(width, size[1]):
            rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
            found = answer(images[:, :, rows, columns])
            if not counts.any():
                shape = (*found.shape[:2], height, width)
                total = np.zeros(shape, found.dtype) if isinstance(found, np.ndarray) else found.new_zeros(shape)
            total[:, :, rows, columns] += found
            counts[rows, columns] += 1
    return total / (counts if isinstance(total, np.ndarray) else total.new_tensor(counts))
