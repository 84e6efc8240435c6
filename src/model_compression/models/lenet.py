"""LeNet as the historic experiment coded it, and as its drawing shows it (Caffe's)."""

from collections import OrderedDict

from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models.base import MODELS, Network, check_num_classes


@MODELS.register("lenet")
def lenet(num_classes: int = 10, init: str = "historic") -> Network:
    """The student as coded: 64 and 128 channels, 1,024 hidden units, no ReLU after the convolutions.

    3.5 M parameters, 27.5 M MACs. ``init`` is "historic" (Xavier-uniform weights, N(0, 0.5) biases) or "default"
    (PyTorch's own).
    """
    return _lenet(64, 128, 1024, num_classes, init)


@MODELS.register("lenet-caffe")
def lenet_caffe(num_classes: int = 10, init: str = "default") -> Network:
    """The student as drawn, which is Caffe's LeNet on three channels: 20 and 50 channels, 500 hidden units."""
    return _lenet(20, 50, 500, num_classes, init)


def _lenet(first: int, second: int, hidden: int, num_classes: int, init: str) -> Network:
    check_num_classes(num_classes)
    model = Network(
        OrderedDict(
            conv1=nn.Conv2d(3, first, 5),  # (B, first, 28, 28)
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 5),  # (B, second, 10, 10)
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),  # (B, second · 25)
            ip1=nn.Linear(second * 25, hidden),
            relu1=nn.ReLU(),
            ip2=nn.Linear(hidden, num_classes),
        ),
        flatten_shape=(second, 5, 5),
    )
    if init == "historic":
        _historic_init(model)
    elif init != "default":
        raise UsageError(f"init must be 'historic' or 'default', got {init!r}")
    return model


def _historic_init(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.5)
