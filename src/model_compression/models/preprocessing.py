"""What a network wants done to pixels before it sees them. Each model owns its own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.fitting import Fitting

LARGEST_SIDE = 2048
"""Of images in pixels: what a file may ask for, which decides how much memory is taken."""

CIFAR10_MEAN = (0.49140, 0.48216, 0.44653)
CIFAR10_STD = (0.24703, 0.24349, 0.26159)


def is_side(value: Any) -> bool:
    """Whether it is a height or width that an image may have."""
    return type(value) is int and 0 < value <= LARGEST_SIDE


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessing:
    """(pixels − 255 · mean) / (255 · std), after images are scaled and their channels put in ``channel_order``.

    ``mean`` and ``std`` are per channel, in units of 1 = white, in ``channel_order``. ``mean_image`` (C, H, W), in
    units of 0 to 255 and in ``channel_order``, takes the place of ``mean`` where a network was trained so.
    ``size`` (H, W) is that to which other images are scaled, whole, antialiased; None leaves them as they are.
    ``fitting`` is how photographs of any shape became images in evaluation, which data of files take over; its filter
    serves for ``size`` as well, bicubic for those that torch has not, and bilinear without one. Without mean and std it
    is that of a network that takes no images, see `AS_IT_IS`.
    """

    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean_image: Tensor | None = None
    size: tuple[int, int] | None = None
    fitting: Fitting | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for figures that could not be meant."""
        figures = (*self.mean, *self.std)
        if len(self.mean) != len(self.std) or not all(map(math.isfinite, figures)) or min(self.std, default=1) <= 0:
            raise UsageError(f"mean and std must be finite, of one length, std > 0; got {self.mean} and {self.std}")
        if self.channel_order not in ("rgb", "bgr"):
            raise UsageError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        image = self.mean_image
        if image is not None and (image.ndim != 3 or len(image) != len(self.std) or not bool(image.isfinite().all())):
            raise UsageError(f"the mean image must be finite, ({len(self.std)}, H, W), got {tuple(image.shape)}")
        size = self.size
        if size is not None and (len(size) != 2 or any(not is_side(side) for side in size)):
            raise UsageError(f"size must be (height, width), each from 1 to {LARGEST_SIDE} pixels, got {size}")

    def __call__(self, inputs: Any) -> Any:
        """uint8 RGB images (B, C, H, W) → float32 (B, C, H, W), of ``size``, channels-last in memory.

        Inputs of other kinds, for which there is no mean, stay as they are.
        """
        if not self.std:
            return inputs
        images = torch.as_tensor(inputs)
        pixels = images.flip(1) if self.channel_order == "bgr" else images
        pixels = pixels.to(torch.float32, memory_format=torch.channels_last)
        if self.size is not None and pixels.shape[2:] != self.size:
            by = "bilinear" if self.fitting is None or self.fitting.interpolation == "bilinear" else "bicubic"
            pixels = F.interpolate(pixels, self.size, mode=by, antialias=True)
            pixels = pixels if by == "bilinear" else pixels.clamp(0, 255)  # what the filter adds beside edges
        scale = pixels.new_tensor([1 / (255 * s) for s in self.std]).view(1, -1, 1, 1)
        if self.mean_image is not None:
            if self.mean_image.shape != pixels.shape[1:]:
                found, expected = tuple(pixels.shape[1:]), tuple(self.mean_image.shape)
                raise UsageError(f"images are {found}, but this network's mean image is {expected}")
            return (pixels - self.mean_image.to(pixels.device)) * scale
        offset = pixels.new_tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(1, -1, 1, 1)
        return torch.addcmul(offset, pixels, scale)

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every value as it is: what a network has that learned from normalised floats."""
        plain = all(mean == 0 for mean in self.mean) and all(std == 1 / 255 for std in self.std)
        return (
            plain and bool(self.std) and self.mean_image is None and self.channel_order == "rgb" and self.size is None
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, size and fitting where there is one; the mean image is a tensor, stored beside the weights."""
        values = {"mean": list(self.mean), "std": list(self.std), "channel_order": self.channel_order}
        size = {} if self.size is None else {"size": list(self.size)}
        return values | size | ({} if self.fitting is None else self.fitting.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], mean_image: Tensor | None = None) -> "Preprocessing":
        """Inverse of `to_dict`."""
        return cls(
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            channel_order=values["channel_order"],
            mean_image=mean_image,
            size=tuple(values["size"]) if values.get("size") is not None else None,
            fitting=Fitting.from_dict(values) if "fit" in values else None,
        )


AS_IT_IS = Preprocessing(mean=(), std=())
"""That of a network whose inputs are no images."""
