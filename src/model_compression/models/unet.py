"""A small U-Net for segmentation (Ronneberger et al. 2015, arXiv 1505.04597): maps of three sizes, joined on the way
back."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.models.base import MODELS, Network, check_num_classes
from model_compression.models.blocks import Concatenate, convolution_relu
from model_compression.models.dense import at_size_of


class Level(nn.Module):
    """Half the size and twice the width inside, then back at the size of what came in, beside it."""

    def __init__(self, channels: int, inner: int, inside: nn.Module):
        super().__init__()
        self.down = convolution_relu(channels, inner, 3, stride=2)
        self.inside = inside
        self.join = Concatenate()
        self.fuse = convolution_relu(channels + inner, channels, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        below = self.inside(self.down(maps))
        raised = F.interpolate(below, size=maps.shape[2:], mode="bilinear", align_corners=False)
        fused: Tensor = self.fuse(self.join(maps, raised))
        return fused


class UNet(Network):
    """Logits (B, K, H, W) of images (B, 3, H, W) of any size."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, K, H, W)."""
        return at_size_of(images, super().forward(images))


@MODELS.register("unet")
def unet(num_classes: int = 10, width: int = 24) -> Network:
    """Maps at 1/2, 1/4 and 1/8 of the images' size, of ``width``, 2 · and 4 · ``width`` channels.

    0.21 M parameters with the default width, 0.38 M with 32, 95,000 with 16.
    """
    check_num_classes(num_classes)
    if type(width) is not int or width < 1:
        raise UsageError(f"width must be a number of channels, at least 1, got {width!r}; 16 to 32 are usual")
    context = convolution_relu(4 * width, 4 * width, 3)
    return UNet(
        OrderedDict(
            stem=convolution_relu(3, width, 3, stride=2),
            level=Level(width, 2 * width, Level(2 * width, 4 * width, context)),
            head=nn.Conv2d(width, num_classes, 1),
        )
    )
