"""ShuffleNetV2 (Ma, Zhang, Zheng & Sun 2018, arXiv 1807.11164), width 1, for 32 × 32 images.

As the distillation literature builds it (Tian, Krishnan & Isola 2019, arXiv 1910.10699): the paper's network, but for a
1×1 stem in place of a strided 3×3 one and its max-pool. PyTorch's own initial weights.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from model_compression.models.base import MODELS, Network
from model_compression.models.blocks import (
    ChannelShuffle,
    chain,
    convolution,
    convolution_relu,
    run_of_blocks,
    stage,
    with_head,
)


class SplitUnit(nn.Module):
    """Half of the channels pass, half go through ``right``. With stride 2 all go through ``left`` and ``right``."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        half = width // 2
        self.left = None
        if stride == 2:
            self.left = chain(
                conv1=convolution(channels, channels, 3, stride=2, groups=channels),
                bn1=nn.BatchNorm2d(channels),
                conv2=convolution(channels, half, 1),
                bn2=nn.BatchNorm2d(half),
                relu2=nn.ReLU(),
            )
        self.right = chain(
            conv1=convolution(channels if stride == 2 else half, half, 1),
            bn1=nn.BatchNorm2d(half),
            relu1=nn.ReLU(),
            conv2=convolution(half, half, 3, stride=stride, groups=half),
            bn2=nn.BatchNorm2d(half),
            conv3=convolution(half, half, 1),
            bn3=nn.BatchNorm2d(half),
            relu3=nn.ReLU(),
        )
        self.shuffle = ChannelShuffle(2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        left, right = maps.chunk(2, dim=1) if self.left is None else (self.left(maps), maps)
        answer: Tensor = self.shuffle(torch.cat([left, self.right(right)], dim=1))
        return answer


@MODELS.register("shufflenet_v2")
def shufflenet_v2(num_classes: int = 10) -> Network:
    """A stem, three stages at 16, 8 and 4 pixels, a 1×1 convolution to 1,024 maps, and a head.

    1.26 M parameters and 44 M MACs for ten classes.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=convolution_relu(3, 24, 1))
    channels = 24
    for number, (width, count) in enumerate(((116, 4), (232, 8), (464, 4)), start=1):
        layers[f"stage{number}"] = stage(run_of_blocks(SplitUnit, channels, width, count, stride=2))
        channels = width
    layers["last"] = convolution_relu(channels, 1024, 1)
    return with_head(layers, 1024, num_classes)
