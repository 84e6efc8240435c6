"""What several families of CIFAR networks are built of: stages of like blocks, a head, and joins that can be tapped."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from model_compression.models.base import Network, check_num_classes

M = TypeVar("M", bound=nn.Module)


class Add(nn.Module):
    """The sum of two branches (B, C, H, W), as a layer: so the maps before the activation have a name."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two (B, C, H, W) → (B, C, H, W)."""
        return one + other


class Concatenate(nn.Module):
    """The channels of one branch, then those of the other."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C', H, W) → (B, C + C', H, W)."""
        return torch.cat([one, other], dim=1)


class ChannelShuffle(nn.Module):
    """Deals the channels of ``groups`` groups out in turn, so that the next grouped convolution sees all groups."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W): channel j of group g becomes channel j · groups + g."""
        grouped: Tensor = maps.unflatten(1, (self.groups, -1))  # (B, groups, C / groups, H, W)
        return grouped.transpose(1, 2).flatten(1, 2)


def chain(**layers: nn.Module) -> nn.Sequential:
    """Layers that run in turn, each under its own name."""
    return nn.Sequential(OrderedDict(layers))


def convolution(channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Keeps the size of the maps but for ``stride``; has no bias, as a normalisation follows."""
    return nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)


def convolution_relu(channels: int, width: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """A convolution, its batch normalisation and a ReLU."""
    return chain(conv=convolution(channels, width, kernel, stride=stride), bn=nn.BatchNorm2d(width), relu=nn.ReLU())


def run_of_blocks(
    block: Callable[[int, int, int], nn.Module], channels: int, width: int, count: int, stride: int
) -> list[nn.Module]:
    """``count`` of block(channels, width, stride): the first changes width and size, the others keep both."""
    return [block(channels, width, stride), *(block(width, width, 1) for _ in range(count - 1))]


def stage(blocks: Iterable[nn.Module]) -> nn.Sequential:
    """The blocks in turn, named block1, block2, ..."""
    return chain(**{f"block{number}": block for number, block in enumerate(blocks, start=1)})


def with_head(layers: "OrderedDict[str, nn.Module]", channels: int, num_classes: int) -> Network:
    """``layers``, whose answer has ``channels`` maps, then the mean of each map and an inner product to the logits."""
    check_num_classes(num_classes)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()  # (B, channels)
    layers["head"] = nn.Linear(channels, num_classes)
    return Network(layers, flatten_shape=(channels, 1, 1))


def he_init(model: M, head_std: float | None = None) -> M:
    """He-normal convolutions by fan-out, zero biases; ``head_std`` is of the head's weights, None leaves PyTorch's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and head_std is not None:
            nn.init.normal_(module.weight, std=head_std)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return model
