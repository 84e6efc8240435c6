"""Network in network (Lin, Chen & Yan 2013, arXiv 1312.4400) for CIFAR-10, as Caffe's model zoo has it."""

from collections import OrderedDict
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_compression.core.errors import UsageError
from model_compression.models.base import MODELS, Network, check_num_classes
from model_compression.models.create import create_model

M = TypeVar("M", bound=nn.Module)

# name → (output channels, kernel size), in three blocks that end in a pool
_BLOCKS = (
    {"conv1": (192, 5), "cccp1": (160, 1), "cccp2": (96, 1)},
    {"conv2": (192, 5), "cccp3": (192, 1), "cccp4": (192, 1)},
    {"conv3": (192, 3), "cccp5": (192, 1)},
)


@MODELS.register("nin")
def nin(num_classes: int = 10, dropout: float = 0.5) -> Network:
    """As drawn: nine convolutions, each with a ReLU, and a global average of the last one's maps as logits.

    0.967 M parameters, 222 M MACs. ``dropout`` acts after the first two pools, in training only.
    """
    return Network(_nin_layers(num_classes, dropout, batch_norm=False))


@MODELS.register("nin-bn")
def nin_bn(num_classes: int = 10, dropout: float = 0.0) -> Network:
    """`nin` with batch normalisation before each ReLU: trains several times faster, and is saved folded, as `nin`."""
    return _BatchNormNIN(_nin_layers(num_classes, dropout, batch_norm=True))


@MODELS.register("nin-ip")
def nin_ip(num_classes: int = 10, hidden: int = 1024, dropout: float = 0.5) -> Network:
    """As coded: the inner products ip1 (``hidden`` units, ReLU) and ip2 in the place of cccp6 and the last pool.

    The importer sizes ``hidden`` by the weights file.
    """
    check_num_classes(num_classes)
    if not isinstance(hidden, int) or hidden < 1:
        raise UsageError(f"hidden must be an integer of at least 1, got {hidden!r}")
    layers = _trunk(dropout, batch_norm=False)
    layers["flatten"] = nn.Flatten()  # (B, 192 · 64)
    layers["ip1"] = nn.Linear(192 * 64, hidden)
    layers["relu_ip1"] = nn.ReLU()
    layers["ip2"] = nn.Linear(hidden, num_classes)
    return _he_init(Network(layers, flatten_shape=(192, 8, 8)))


class _BatchNormNIN(Network):
    def deployed(self) -> Network:
        """An equal `nin`: every normalisation is folded into its convolution."""
        layers = dict(self.named_children())
        convolutions = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
        plain = create_model("nin", seed=0, num_classes=convolutions["cccp6"].out_channels)
        plain.preprocessing = self.preprocessing
        state: dict[str, Tensor] = {}
        for name, convolution in convolutions.items():
            norm = layers[f"bn_{name}"]
            assert isinstance(norm, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(deepcopy(convolution).eval(), deepcopy(norm).eval())
            assert fused.bias is not None
            state |= {f"{name}.weight": fused.weight.detach(), f"{name}.bias": fused.bias.detach()}
        plain.load_state_dict(state)
        return plain


def _nin_layers(num_classes: int, dropout: float, batch_norm: bool) -> "OrderedDict[str, nn.Module]":
    check_num_classes(num_classes)
    layers = _trunk(dropout, batch_norm)
    _append_convolution(layers, "cccp6", 192, num_classes, 1, batch_norm)
    layers["pool3"] = nn.AvgPool2d(8)
    layers["flatten"] = nn.Flatten()
    _he_init(nn.ModuleDict(layers))
    return layers


def _trunk(dropout: float, batch_norm: bool) -> "OrderedDict[str, nn.Module]":
    """All layers up to cccp5: (B, 3, 32, 32) → (B, 192, 8, 8)."""
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be at least 0 and below 1, got {dropout}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, block in enumerate(_BLOCKS, start=1):
        for name, (width, kernel) in block.items():
            _append_convolution(layers, name, channels, width, kernel, batch_norm)
            channels = width
        if number < 3:  # Caffe's pools round the output size up: 32 → 16 → 8
            pool = nn.MaxPool2d if number == 1 else nn.AvgPool2d
            layers[f"pool{number}"] = pool(3, 2, ceil_mode=True)
            layers[f"drop{number}"] = nn.Dropout(dropout)
    return layers


def _append_convolution(
    layers: "OrderedDict[str, nn.Module]", name: str, channels: int, width: int, kernel: int, batch_norm: bool
) -> None:
    layers[name] = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=not batch_norm)
    if batch_norm:
        layers[f"bn_{name}"] = nn.BatchNorm2d(width)
    layers[f"relu_{name}"] = nn.ReLU()


def _he_init(model: M) -> M:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
