"""Random boxes in an image, as torchvision's RandomResizedCrop and RandomErasing draw them.

The draws are made beforehand, as a function of the sample alone; the box follows once the size of the image is known.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_compression.core.counter_random import uniform
from model_compression.data.on_demand import PixelBox

ATTEMPTS = 10  # to find a box of the drawn area and shape inside the image
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BoxDraws:
    """For B images: ``areas`` (B, A), shares of the image's area; ``ratios`` (B, A), width / height; ``places`` (B, 2),
    in 0…1, of the top and the left among those that are possible.
    """

    areas: Floats
    ratios: Floats
    places: Floats

    def box(self, row: int, height: int, width: int, *, smaller: bool = False) -> PixelBox | None:
        """The box in an image of ``height`` and ``width``: of the first area and shape that fit, else None.

        ``smaller``: the box must be smaller than the image, both ways.
        """
        for area, ratio in zip(self.areas[row], self.ratios[row], strict=True):
            wide = round(math.sqrt(height * width * area * ratio))
            high = round(math.sqrt(height * width * area / ratio))
            if 0 < wide <= width - smaller and 0 < high <= height - smaller:
                top, left = self.places[row]
                return int(top * (height - high + 1)), int(left * (width - wide + 1)), high, wide
        return None


def draw_boxes(ids: Tensor, key: tuple[int, ...], scale: tuple[float, float], ratio: tuple[float, float]) -> BoxDraws:
    """The draws for the samples ``ids`` (B,): areas uniform in ``scale``, ratios log-uniform in ``ratio``.

    ``key`` are the numbers of seed, view and operation. They are computed on the CPU: every device shows the same box.
    """
    ids = ids.cpu()
    drawn = torch.stack([uniform(ids, *key, number) for number in range(2 * ATTEMPTS + 2)], dim=1).numpy()
    areas, ratios, places = drawn[:, :ATTEMPTS], drawn[:, ATTEMPTS : 2 * ATTEMPTS], drawn[:, 2 * ATTEMPTS :]
    low, high = map(math.log, ratio)
    return BoxDraws(
        areas=scale[0] + (scale[1] - scale[0]) * areas, ratios=np.exp(low + (high - low) * ratios), places=places
    )


def central_box(height: int, width: int, ratio: tuple[float, float]) -> PixelBox:
    """The largest box in the middle of an image whose width / height is in ``ratio``: where no drawn box fits."""
    low, high = ratio
    wide, tall = width, height
    if width / height < low:
        tall = round(width / low)
    elif width / height > high:
        wide = round(height * high)
    return (height - tall) // 2, (width - wide) // 2, tall, wide
