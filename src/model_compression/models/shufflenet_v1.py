"""ShuffleNet (Zhang, Zhou, Lin & Sun 2017, arXiv 1707.01083), three groups, for 32 × 32 images.

As the distillation literature builds it (Tian, Krishnan & Isola 2019, arXiv 1910.10699). It deviates from the paper: a
1×1 stem without a pool, a ReLU after the 3×3 convolution, and a bottleneck of a quarter of what the convolutions add to
the answer, which is less than a quarter of the answer where the input is concatenated. PyTorch's own initial weights.
"""

from collections import OrderedDict

from torch import Tensor, nn

from model_compression.models.base import MODELS, Network
from model_compression.models.blocks import (
    Add,
    ChannelShuffle,
    Concatenate,
    convolution,
    convolution_relu,
    run_of_blocks,
    stage,
    with_head,
)

_GROUPS = 3
_STEM = 24


class ShuffleUnit(nn.Module):
    """Two grouped 1×1 convolutions around a 3×3 one of each channel on its own, and a shortcut past them.

    With stride 2 the shortcut is a mean of the input, whose channels are appended. ``join`` answers with the maps
    before the last ReLU.
    """

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        added = width if stride == 1 else width - channels
        hidden = added // 4
        groups = 1 if channels == _STEM else _GROUPS  # the stem's channels are too few to be split
        self.conv1 = convolution(channels, hidden, 1, groups=groups)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.shuffle = ChannelShuffle(groups)
        self.conv2 = convolution(hidden, hidden, 3, stride=stride, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = convolution(hidden, added, 1, groups=_GROUPS)
        self.bn3 = nn.BatchNorm2d(added)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.join = Add() if stride == 1 else Concatenate()
        self.relu3 = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        hidden = self.shuffle(self.relu1(self.bn1(self.conv1(maps))))
        change = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(hidden)))))
        answer: Tensor = self.relu3(self.join(change, maps if self.shortcut is None else self.shortcut(maps)))
        return answer


@MODELS.register("shufflenet_v1")
def shufflenet_v1(num_classes: int = 10) -> Network:
    """A stem, three stages at 16, 8 and 4 pixels, and a head. 0.86 M parameters and 39 M MACs for ten classes."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=convolution_relu(3, _STEM, 1))
    channels = _STEM
    for number, (width, count) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
        layers[f"stage{number}"] = stage(run_of_blocks(ShuffleUnit, channels, width, count, stride=2))
        channels = width
    return with_head(layers, channels, num_classes)
