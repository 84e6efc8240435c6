"""A network whose large inner products are written as products of two, so that pruning can lower their rank too."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models.base import MODELS, Network
from model_compression.models.copies import tied
from model_compression.models.loading import build_body, build_named

NAME = "factored"
_LEAST_RANK = 32  # an inner product that is worth more than a product of this rank is written as one


@MODELS.register(NAME, listed=False)
def factored(
    body: str = "lenet",
    body_options: dict[str, Any] | None = None,
    layers: Sequence[str] = (),
    num_classes: int | None = None,
) -> Network:
    """Network ``body``, each inner product (in, out) of ``layers`` in two: (in, rank) without bias, then (rank, out).

    The rank is min(in, out), with which nothing is lost: pruning lowers it. ``num_classes`` is the body's option of
    that name.
    """
    network = build_body(body, body_options, num_classes)
    known = dict(network.named_modules())
    for name in layers:
        layer = known.get(name)
        if type(layer) is not nn.Linear:
            raise UsageError(f"layer {name!r} of {body} is no inner product")
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, _in_two(layer))
    return network


def large_inner_products(network: nn.Module) -> list[str]:
    """The names of the inner products that a product of a useful rank is smaller than: no classifier of few classes.

    Those whose weights are another layer's too stay whole: in two they would be weights of their own.
    """
    shared = tied(network)
    return [
        name
        for name, layer in network.named_modules()
        if type(layer) is nn.Linear
        and layer.weight.requires_grad
        and id(layer.weight) not in shared
        and layer.weight.numel() > _LEAST_RANK * sum(layer.weight.shape)
    ]


@torch.no_grad()
def as_factored(source: Network) -> Network:
    """What ships of ``source``, with its `large_inner_products` in two; it answers the same, to rounding.

    The parts are those of the singular value decomposition, the roots of the singular values on both sides: channels
    between them are of decreasing worth. A network without large inner products comes back as it is.
    """
    deployed = source.deployed()
    layers = large_inner_products(deployed)
    if not layers:
        return deployed
    options = {"body": deployed.name, "body_options": deployed.options, "layers": layers}
    network = build_named(NAME, options, 0)
    weights = dict(deployed.state_dict())
    for name in layers:
        u, s, v = torch.linalg.svd(weights.pop(f"{name}.weight").double(), full_matrices=False)
        weights[f"{name}.first.weight"] = (s.sqrt()[:, None] * v).float()
        weights[f"{name}.second.weight"] = (u * s.sqrt()).float()
        if f"{name}.bias" in weights:
            weights[f"{name}.second.bias"] = weights.pop(f"{name}.bias")
    network.load_state_dict(weights)
    network.preprocessing, network.declares_preprocessing = deployed.preprocessing, True
    return network


def _in_two(layer: nn.Linear) -> nn.Sequential:
    rank = min(layer.in_features, layer.out_features)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    return nn.Sequential(OrderedDict(first=first, second=second))
