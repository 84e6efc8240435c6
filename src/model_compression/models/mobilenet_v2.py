"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov & Chen 2018, arXiv 1801.04381) for 32 × 32 images, at half width.

As the distillation literature builds it (Tian, Krishnan & Isola 2019, arXiv 1910.10699): expansion 6, ReLU in place of
ReLU6, strides 2, 1, 1, 2, 2, 1, 2, 1 in stem and groups, the first group's pointwise convolution kept at expansion 1,
widths halved but for the 1,280 of the last convolution, no dropout.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from model_compression.models.base import MODELS, Network
from model_compression.models.blocks import convolution, convolution_relu, he_init, run_of_blocks, stage, with_head

# For each stage its groups of blocks: (expansion, channels, blocks, stride of the first)
_STAGES = (
    ((1, 8, 1, 1), (6, 12, 2, 1)),
    ((6, 16, 3, 2),),
    ((6, 32, 4, 2), (6, 48, 3, 1)),
    ((6, 80, 3, 2), (6, 160, 1, 1)),
)


class InvertedResidual(nn.Sequential):
    """Expands the channels, filters each on its own, and projects them back, without an activation at the end.

    The input is added where it has the answer's shape.
    """

    def __init__(self, expansion: int, channels: int, width: int, stride: int):
        hidden = expansion * channels
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            expand=convolution(channels, hidden, 1),
            bn1=nn.BatchNorm2d(hidden),
            relu1=nn.ReLU(),
            filter=convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            bn2=nn.BatchNorm2d(hidden),
            relu2=nn.ReLU(),
            project=convolution(hidden, width, 1),
            bn3=nn.BatchNorm2d(width),
        )
        super().__init__(layers)
        self.residual = stride == 1 and channels == width

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        change: Tensor = super().forward(maps)
        return maps + change if self.residual else change


@MODELS.register("mobilenet_v2")
def mobilenet_v2(num_classes: int = 10) -> Network:
    """A stem, four stages at 16, 8, 4 and 2 pixels, a 1×1 convolution to 1,280 maps, and a head.

    0.70 M parameters and 6.4 M MACs for ten classes.
    """
    channels = 16
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=convolution_relu(3, channels, 3, stride=2))
    for number, groups in enumerate(_STAGES, start=1):
        blocks: list[nn.Module] = []
        for expansion, width, count, stride in groups:
            blocks += run_of_blocks(partial(InvertedResidual, expansion), channels, width, count, stride)
            channels = width
        layers[f"stage{number}"] = stage(blocks)
    layers["last"] = convolution_relu(channels, 1280, 1)
    return he_init(with_head(layers, 1280, num_classes), head_std=0.01)
