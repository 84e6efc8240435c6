"""Residual networks for 32 × 32 images (He, Zhang, Ren & Sun 2015, arXiv 1512.03385, section 4.2).

As the distillation literature builds them (Tian, Krishnan & Isola 2019, arXiv 1910.10699, and what compares with it):
where the shape changes, the shortcut is a 1×1 convolution with batch normalisation, and not the paper's padding with
zeros: 2,752 of the parameters of resnet20. ``resnet8x4`` and ``resnet32x4`` are that literature's own, with a stem of
32 channels and stages of 64, 128 and 256. Deviation from it: the head's biases start at zero.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from model_compression.models.base import MODELS, Network
from model_compression.models.blocks import (
    Add,
    convolution,
    convolution_relu,
    he_init,
    run_of_blocks,
    stage,
    with_head,
)

_NARROW, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)  # channels of the stem and of the stages

# name → (layers with weights, but for the shortcuts; channels)
_NETWORKS = {
    "resnet8": (8, _NARROW),
    "resnet14": (14, _NARROW),
    "resnet20": (20, _NARROW),
    "resnet32": (32, _NARROW),
    "resnet44": (44, _NARROW),
    "resnet56": (56, _NARROW),
    "resnet110": (110, _NARROW),
    "resnet8x4": (8, _WIDE),
    "resnet32x4": (32, _WIDE),
}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut past them. ``add`` answers with the maps before the last ReLU."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = convolution(channels, width, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = None
        if stride != 1 or channels != width:
            self.shortcut = convolution(channels, width, 1, stride=stride)
            self.shortcut_bn = nn.BatchNorm2d(width)
        self.add = Add()
        self.relu2 = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        change: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(maps)))))
        kept = maps if self.shortcut is None else self.shortcut_bn(self.shortcut(maps))
        answer: Tensor = self.relu2(self.add(change, kept))
        return answer


def _resnet(depth: int, widths: tuple[int, int, int, int], num_classes: int = 10) -> Network:
    """A stem, three stages of (depth − 2) / 6 blocks each at 32, 16 and 8 pixels, and a head."""
    count = (depth - 2) // 6
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=convolution_relu(3, widths[0], 3))
    for number in (1, 2, 3):
        stride = 1 if number == 1 else 2
        layers[f"stage{number}"] = stage(run_of_blocks(BasicBlock, widths[number - 1], widths[number], count, stride))
    return he_init(with_head(layers, widths[3], num_classes))


for _name, _shape in _NETWORKS.items():
    MODELS.register(_name)(partial(_resnet, *_shape))
