"""A network some of whose weights are zero for good: training leaves them so."""

from typing import Any

import torch
from torch import Tensor

from model_compression.models.base import MODELS, Network
from model_compression.models.loading import build_body, build_named

NAME = "sparse"


@MODELS.register(NAME, listed=False)
def sparse(body: str = "lenet", body_options: dict[str, Any] | None = None, num_classes: int | None = None) -> Network:
    """Network ``body``, of which weights that are zero stay zero: they get no gradient. Biases and norms are as ever.

    ``num_classes`` is the body's option of that name.
    """
    network = build_body(body, body_options, num_classes)
    keep_zeros(network)
    return network


def keep_zeros(network: Network) -> None:
    """Lets no gradient reach weights that are zero, as they are in the step."""
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.requires_grad:
            parameter.register_hook(lambda gradient, weight=parameter: gradient * (weight != 0))


@torch.no_grad()
def as_sparse(source: Network, density: float) -> Network:
    """A copy of ``source`` that keeps the share ``density`` (0 to 1) of its weights: the largest, over all layers."""
    network = source.deployed()
    options = network.options if network.name == NAME else {"body": network.name, "body_options": network.options}
    copy = build_named(NAME, options, 0)
    copy.load_state_dict(network.state_dict())
    copy.preprocessing, copy.declares_preprocessing = network.preprocessing, True
    weights = prunable_weights(copy)
    kept = round(density * sum(weight.numel() for weight in weights))
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    mask = torch.zeros_like(sizes, dtype=torch.bool)
    mask[sizes.argsort(descending=True, stable=True)[:kept]] = True
    for weight, chosen in zip(weights, mask.split([weight.numel() for weight in weights]), strict=True):
        weight.mul_(chosen.view_as(weight))
    return copy


def prunable_weights(network: Network) -> list[Tensor]:
    """The weights that magnitude pruning sets to zero: those of two and more dimensions that are trained."""
    return [weight for weight in network.parameters() if weight.ndim > 1 and weight.requires_grad]


def density_of(network: Network) -> float:
    """The share of `prunable_weights` that is not zero."""
    weights = prunable_weights(network)
    return sum(int((weight != 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))
