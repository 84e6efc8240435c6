"""The registry of networks, and what every network of this package has."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.registry import Registry
from model_compression.models.features import logits_of
from model_compression.models.preprocessing import Preprocessing, is_side


class Network(nn.Sequential):
    """A chain of named layers from normalised images (B, 3, 32, 32) to logits (B, K).

    ``flatten_shape`` is the (C, H, W) before the first inner product, None for a network without one; importers need it
    to reorder weights. ``name`` and ``options`` are what `create_model` was called with.
    """

    name: str = ""
    options: dict[str, Any]
    preprocessing: Preprocessing
    declares_preprocessing: bool = False
    """Whether its weights came with the preprocessing they were trained with; else it takes the dataset's."""
    facts: dict[str, Any]
    """What its weights file states of it, as ``test_accuracy``; empty for one from elsewhere."""
    fresh: tuple[str, ...] = ()
    """The tensors that weights of a file did not fill: those of its classifier."""
    flatten_shape: tuple[int, int, int] | None
    answer_of: Callable[[Any], torch.Tensor] = staticmethod(logits_of)
    """Takes the answer (B, …) from what the body gives: logits, or of a network without a head its embeddings."""

    def __init__(self, layers: "OrderedDict[str, nn.Module]", flatten_shape: tuple[int, int, int] | None = None):
        super().__init__(layers)
        self.preprocessing = Preprocessing()
        self.flatten_shape = flatten_shape
        self.options, self.facts = {}, {}

    def deployed(self) -> "Network":
        """The network that is saved and shipped; a training form overrides this."""
        return self

    @property
    def body(self) -> nn.Module:
        """What layers are tapped in: the network itself."""
        return self

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W): what its weights file says it was trained on, scaled as it asks for; else what its layers take,
        of 32 × 32. Raises UsageError for a network that takes no images."""
        if not self.preprocessing.std:
            raise UsageError(f"the network {self.name} takes no images, and this serves images only")
        shape = self.facts.get("image_shape")
        if not (isinstance(shape, list) and len(shape) == 3 and all(map(is_side, shape))):
            first = next((layer for layer in self.modules() if isinstance(layer, nn.Conv2d)), None)
            shape = [len(self.preprocessing.mean) if first is None else first.in_channels, 32, 32]
        channels, *size = shape
        height, width = self.preprocessing.size or size
        return channels, height, width

    num_prepared: ClassVar[int] = 0
    """About how many of the training images `prepare` wants; 0: none, it is not called."""

    def prepare(self, images: torch.Tensor) -> None:
        """Sets what is computed from some training images (M, 3, H, W), uint8, before training. Nothing by default."""


MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "model_compression.models")


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Weights that are drawn inside depend on ``seed`` alone; None leaves torch's global generator as it is."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # the CPU's alone, which is what is put back
        yield


def check_num_classes(num_classes: int) -> None:
    """Raises UsageError unless it is an integer of at least one: a single number is answered by a regression."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UsageError(f"num_classes must be an integer of at least 1, got {num_classes!r}")
