"""VGG networks for 32 × 32 images, with batch normalisation and one inner product.

After Simonyan & Zisserman 2014 (arXiv 1409.1556), as the distillation literature builds them (Tian, Krishnan & Isola
2019, arXiv 1910.10699): convolutions keep their biases, three max-pools in place of five, since the images are small,
and ``vgg8`` has one convolution a stage.
"""

from collections import OrderedDict
from functools import partial

from torch import nn

from model_compression.models.base import MODELS, Network
from model_compression.models.blocks import chain, he_init, with_head

_WIDTHS = (64, 128, 256, 512, 512)
_POOLED = 3  # the first stages end at 32, 16 and 8 pixels; the last two are at 4

# name → convolutions of each stage
_NETWORKS = {"vgg8": (1, 1, 1, 1, 1), "vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2)}


def _vgg(counts: tuple[int, ...], num_classes: int = 10) -> Network:
    """Five stages of 3×3 convolutions, each with normalisation and ReLU, and a head."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (count, width) in enumerate(zip(counts, _WIDTHS, strict=True), start=1):
        layers[f"stage{number}"] = _stage(channels, width, count)
        if number <= _POOLED:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = width
    return he_init(with_head(layers, channels, num_classes), head_std=0.01)


def _stage(channels: int, width: int, count: int) -> nn.Sequential:
    layers: dict[str, nn.Module] = {}
    for number in range(1, count + 1):
        layers[f"conv{number}"] = nn.Conv2d(channels if number == 1 else width, width, 3, padding=1)
        layers[f"bn{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU()
    return chain(**layers)


for _name, _counts in _NETWORKS.items():
    MODELS.register(_name)(partial(_vgg, _counts))
