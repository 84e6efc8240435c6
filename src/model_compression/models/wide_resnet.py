"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv 1605.07146): ``wrn_40_2`` has 40 layers and width factor 2.

Normalisation and ReLU come before each convolution, so the stages' answers are maps before an activation; layer
``relu`` answers with the last ones after it. No dropout, as in the distillation literature.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from model_compression.models.base import MODELS, Network
from model_compression.models.blocks import convolution, he_init, run_of_blocks, stage, with_head


class PreactivationBlock(nn.Module):
    """Two 3×3 convolutions, each after normalisation and ReLU, and a shortcut past them.

    Where the shape changes, the shortcut is a 1×1 convolution of the activated maps: they are shared.
    """

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution(channels, width, 3, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = convolution(width, width, 3)
        self.shortcut = convolution(channels, width, 1, stride=stride) if channels != width else None

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        active = self.relu1(self.bn1(maps))
        change: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return change + (maps if self.shortcut is None else self.shortcut(active))


def _wide_resnet(depth: int, factor: int, num_classes: int = 10) -> Network:
    """A convolution, three stages of (depth − 4) / 6 blocks each at 32, 16 and 8 pixels, and a head."""
    count, widths = (depth - 4) // 6, (16, 16 * factor, 32 * factor, 64 * factor)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=convolution(3, widths[0], 3))
    for number in (1, 2, 3):
        stride = 1 if number == 1 else 2
        blocks = run_of_blocks(PreactivationBlock, widths[number - 1], widths[number], count, stride)
        layers[f"stage{number}"] = stage(blocks)
    layers |= {"bn": nn.BatchNorm2d(widths[3]), "relu": nn.ReLU()}
    return he_init(with_head(layers, widths[3], num_classes))


_NETWORKS = {"wrn_16_1": (16, 1), "wrn_16_2": (16, 2), "wrn_40_1": (40, 1), "wrn_40_2": (40, 2)}
for _name, _shape in _NETWORKS.items():
    MODELS.register(_name)(partial(_wide_resnet, *_shape))
