"""A network with fewer channels than its builder gives it: which network, and how many are left in each layer.

What was pruned is saved, loaded, exported and trained as any other network: a weights file says that its network is
"pruned", and of what.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core.errors import UsageError, reason_of
from model_compression.core.registry import unknown_name
from model_compression.models.base import MODELS, Network
from model_compression.models.loading import build_body, build_named
from model_compression.models.sparse import NAME as SPARSE
from model_compression.models.sparse import keep_zeros

NAME = "pruned"
Widths = dict[str, list[int]]

_TOLERANCE = 1e-5  # of the largest logit: the same layers in the same order


@MODELS.register(NAME, listed=False)
def pruned(
    body: str = "lenet",
    body_options: dict[str, Any] | None = None,
    widths: Widths | None = None,
    num_classes: int | None = None,
) -> Network:
    """Network ``body`` with the ``widths`` of its layers in the place of its own.

    ``widths`` are [channels in, channels out] of convolutions and inner products and [channels] of normalisations, by
    the layer's name; layers that are not named stay as they are. ``num_classes`` is the body's option of that name.
    """
    network = build_body(body, body_options, num_classes)
    pixels = _pixels(network)
    for name, given in (widths or {}).items():
        _set_widths(network, name, given)
    if pixels is not None and network.flatten_shape is not None:
        channels = _first_inner_product(network).in_features // pixels
        network.flatten_shape = (channels, *network.flatten_shape[1:])
    if body == SPARSE:
        keep_zeros(network)  # what was resized has lost the body's hooks
    return network


def layer_widths(network: nn.Module) -> Widths:
    """[in, out] of each convolution and inner product of ``network``, [channels] of each normalisation, by name."""
    return {name: _widths(layer) for name, layer in network.named_modules() if _widths(layer)}


def as_pruned(cut: Network, source: Network, images: Tensor) -> Network:
    """``cut``, made of a copy of ``source`` by taking channels away, as a network that a weights file can describe.

    ``images`` (B, C, H, W) are normalised, and show that it answers as ``cut`` does. Raises UsageError where it cannot
    be built again with other widths, as where the code of the network has a number of channels written in it.
    """
    body, options = source.name, source.options
    if body == NAME:
        body, options = options.get("body", "lenet"), _body_options(options)
    own = layer_widths(build_named(body, options, None, from_file=True))
    widths = {name: sizes for name, sizes in layer_widths(cut).items() if sizes != own.get(name)}
    options = {"body": body, "body_options": options, "widths": widths}
    refusal = f"{body} cannot be built again with fewer channels"
    try:
        again = build_named(NAME, options, 0)
        again.load_state_dict(cut.state_dict())
        with torch.no_grad():
            expected, found = cut.eval()(images), again.eval()(images)
    except UsageError:
        raise
    except Exception as error:  # of a user's code, which may rely on the numbers that it was written with
        raise UsageError(f"{refusal}: {reason_of(error)}; its code must take them from its layers") from error
    if not bool((expected - found).abs().max() <= _TOLERANCE * expected.abs().max()):
        raise UsageError(f"{refusal}: it answers otherwise then; its code must take them from its layers")
    again.preprocessing, again.declares_preprocessing = source.preprocessing, True
    return again


def computes(network: Network, widths: Widths, images: Tensor) -> bool:
    """Whether ``network``, in evaluation, takes ``images`` with layers of other ``widths``; it stays as it is."""
    own = {name: network.get_submodule(name) for name in widths}
    try:
        for name, layer in own.items():
            network.set_submodule(name, deepcopy(layer))
            _set_widths(network, name, widths[name])
        with torch.no_grad():
            network(images)
    except Exception:  # of a user's code, which may rely on the numbers that it was written with
        return False
    finally:
        for name, layer in own.items():
            network.set_submodule(name, layer)
    return True


def _body_options(options: dict[str, Any]) -> dict[str, Any]:
    given = dict(options.get("body_options") or {})
    return given if options.get("num_classes") is None else {**given, "num_classes": options["num_classes"]}


def _widths(layer: nn.Module) -> list[int]:
    if isinstance(layer, nn.Conv2d):
        return [layer.in_channels, layer.out_channels]
    if isinstance(layer, nn.Linear):
        return [layer.in_features, layer.out_features]
    return [layer.num_features] if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) else []


def _set_widths(network: Network, name: str, given: list[int]) -> None:
    """Gives a layer other widths, none larger than its own, and fresh weights."""
    known = layer_widths(network)
    if name not in known:
        raise unknown_name(f"layer of {network.name!r} with widths:", name, list(known))
    if not isinstance(given, list) or len(given) != len(known[name]) or not all(map(_fits, given, known[name])):
        raise UsageError(f"widths of layer {name!r} must lie between 1 and {known[name]}, got {given!r}")
    layer = network.get_submodule(name)
    if isinstance(layer, nn.Conv2d):
        if layer.groups == layer.in_channels > 1:  # each map for itself
            layer.groups = given[0]
        if given[0] % layer.groups or given[1] % layer.groups:
            raise UsageError(f"widths of layer {name!r}, with {layer.groups} groups, are no multiples of it: {given}")
        layer.in_channels, layer.out_channels = given
        _resize(layer, "weight", (given[1], given[0] // layer.groups, *layer.kernel_size))
        _resize(layer, "bias", (given[1],))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = given
        _resize(layer, "weight", (given[1], given[0]))
        _resize(layer, "bias", (given[1],))
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        layer.num_features = given[0]
        for field in ("weight", "bias", "running_mean", "running_var"):
            _resize(layer, field, (given[0],))
    layer.reset_parameters()  # type: ignore[operator]


def _fits(width: Any, own: int) -> bool:
    return type(width) is int and 1 <= width <= own


def _resize(layer: nn.Module, field: str, shape: tuple[int, ...]) -> None:
    old = getattr(layer, field)
    if isinstance(old, nn.Parameter):  # whitening and some scales are not trained
        setattr(layer, field, nn.Parameter(old.new_empty(shape), requires_grad=old.requires_grad))
    elif old is not None:
        setattr(layer, field, old.new_empty(shape))


def _first_inner_product(network: Network) -> nn.Linear:
    return next(layer for layer in network.modules() if isinstance(layer, nn.Linear))


def _pixels(network: Network) -> int | None:
    """H · W of the maps before the first inner product, where the network says what they are."""
    if network.flatten_shape is None or not any(isinstance(layer, nn.Linear) for layer in network.modules()):
        return None
    _, height, width = network.flatten_shape
    return height * width
