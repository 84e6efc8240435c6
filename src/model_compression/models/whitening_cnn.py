"""A fast, strong CIFAR-10 network: frozen whitening, Dirac initialisation, normalisation without a scale.

After Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, and the work it builds on
(Page 2019; tysam-code 2023). Deviations: no label smoothing, cross-entropy as a mean, one view at test time.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.models.base import MODELS, Network, check_num_classes

_LOGIT_SCALE = 1 / 9  # keeps the first losses near log K: the features that reach the head are large


@MODELS.register("whitening-cnn")
def whitening_cnn(num_classes: int = 10, widths: tuple[int, int, int] = (64, 256, 256)) -> Network:
    """A 2×2 whitening convolution, three blocks of two 3×3 convolutions, a max-pool and a linear head.

    ``widths`` are the channels of the blocks. 1.97 M parameters and 118 M MACs at the default.
    """
    check_num_classes(num_classes)
    if len(widths) != 3 or min(widths) < 24:
        raise UsageError(f"widths must be three numbers of at least 24 channels, got {widths}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(whiten=nn.Conv2d(3, 24, 2), gelu=nn.GELU())  # (B, 24, 31, 31)
    channels = 24
    for number, width in enumerate(widths, start=1):
        layers[f"block{number}"] = _block(channels, width)  # 31 → 15 → 7 → 3
        channels = width
    layers["pool"] = nn.MaxPool2d(3)
    layers["flatten"] = nn.Flatten()
    layers["head"] = _ScaledLinear(channels, num_classes, bias=False)
    model = _WhiteningCNN(layers)
    _whitening(model).weight.requires_grad_(False)
    return model


class _WhiteningCNN(Network):
    num_prepared = 5000

    def prepare(self, images: Tensor) -> None:
        """Sets the first convolution to whiten the 2×2 patches of ``images``."""
        _whitening(self).weight.data.copy_(whitening_filters(self.preprocessing(images)))


class _ScaledLinear(nn.Linear):
    def forward(self, embedding: Tensor) -> Tensor:
        return super().forward(embedding) * _LOGIT_SCALE


def _whitening(model: Network) -> nn.Conv2d:
    layer = model.get_submodule("whiten")
    assert isinstance(layer, nn.Conv2d)
    return layer


def whitening_filters(images: Tensor, size: int = 2, eps: float = 5e-4) -> Tensor:
    """Filters (2 · 3 · size², 3, size, size) that turn patches of ``images`` (B, 3, H, W) to unit covariance.

    Each eigenvector of the patch covariance, divided by the root of its eigenvalue, comes with its negative, so that
    nothing is lost in the activation that follows.
    """
    channels = images.shape[1]
    patches = images.unfold(2, size, 1).unfold(3, size, 1)  # (B, 3, H', W', size, size)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * size * size).double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + eps).sqrt()).T.flip(0).reshape(-1, channels, size, size)
    return torch.cat([filters, -filters]).to(images.dtype)


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=_dirac_convolution(channels, width),
            pool=nn.MaxPool2d(2),
            bn1=_norm(width),
            gelu1=nn.GELU(),
            conv2=_dirac_convolution(width, width),
            bn2=_norm(width),
            gelu2=nn.GELU(),
        )
    )


def _dirac_convolution(channels: int, width: int) -> nn.Conv2d:
    """3×3, the first ``channels`` outputs start as copies of the inputs, so that a deep stack starts shallow."""
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:channels])
    return convolution


def _norm(width: int) -> nn.BatchNorm2d:
    """Without a scale: the convolution before it has one."""
    norm = nn.BatchNorm2d(width)
    norm.weight.requires_grad_(False)
    return norm
