"""Networks, one family per file, built by name."""

from model_compression.models import (
    factored,
    lenet,
    mobilenet_v2,
    nin,
    pruned,
    quantization_aware,
    resnet_cifar,
    reused_classifier,
    shufflenet_v1,
    shufflenet_v2,
    sparse,
    unet,
    vgg_cifar,
    whitening_cnn,
    wide_resnet,
)
from model_compression.models.base import MODELS, Network
from model_compression.models.create import create_model
from model_compression.models.preprocessing import Preprocessing

__all__ = [
    "MODELS",
    "Network",
    "Preprocessing",
    "create_model",
    "factored",
    "lenet",
    "mobilenet_v2",
    "nin",
    "pruned",
    "quantization_aware",
    "resnet_cifar",
    "reused_classifier",
    "shufflenet_v1",
    "shufflenet_v2",
    "sparse",
    "unet",
    "vgg_cifar",
    "whitening_cnn",
    "wide_resnet",
]
