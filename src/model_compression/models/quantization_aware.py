"""A network that computes, in training, with the roundings of the int8 or int4 file that it will become.

Weights are rounded per output channel and inputs of convolutions and inner products per tensor, as `export.fewer_bits`
has it (Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", arXiv 1712.05877); gradients pass the roundings as if there were none. A normalisation after a convolution
is not folded: it scales each channel, and so does not change the roundings per channel.
"""

import math
from collections import OrderedDict
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model_compression.core.errors import UsageError
from model_compression.models.base import MODELS, Network
from model_compression.models.create import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import find_weights, read_header

NAME = "quantization-aware"
_LEVELS = 255  # of activations
_WEIGHT_BOUND = {8: 64, 4: 7}  # the integer that is the largest weight, by bits
_REACH = {8: math.inf, 4: 2.5}  # root mean squares of a channel, beyond which its weights are clipped
_MOMENTUM = 0.05  # of the ranges, per step


@MODELS.register(NAME, listed=False)
def quantization_aware(body: str = "lenet", num_classes: int | None = None, weight_bits: int = 8) -> Network:
    """Network ``body``: the name of one with fresh weights, of ``num_classes``; or a weights file or run.

    ``weight_bits``: 8 or 4; with 4 the weights of the first layer and the last have 8 nevertheless.
    """
    if weight_bits not in _WEIGHT_BOUND:
        raise UsageError(f"weight_bits must be 8 or 4, got {weight_bits}")
    if body in MODELS:
        options = {} if num_classes is None else {"num_classes": num_classes}
        return _QuantizationAware(create_model(body, **options), weight_bits)
    path = find_weights(body)
    if read_header(path)["model"] == NAME:  # as in a file that names itself
        raise UsageError(f"{path} is of a network with roundings itself; give the weights of a plain one")
    return _QuantizationAware(read_model(path), weight_bits)


class _QuantizationAware(Network):
    ranges: Tensor

    def __init__(self, body: Network, weight_bits: int = 8):
        super().__init__(OrderedDict(network=body))
        self.preprocessing, self.declares_preprocessing = body.preprocessing, body.declares_preprocessing
        self._layers = _layers_of(body)
        self._weight_bits = weight_bits
        self._bits: dict[str, int] = {} if weight_bits == 4 else dict.fromkeys(self._layers, 8)
        self.register_buffer("ranges", torch.zeros(len(self._layers), 2))  # of each layer's input; none: (0, 0)

    def deployed(self) -> Network:
        """The network itself, with the weights that were trained, not rounded: writing the file does that."""
        network = self.get_submodule("network")
        assert isinstance(network, Network)
        network.preprocessing = self.preprocessing
        return network

    @property
    def body(self) -> nn.Module:
        """What layers are tapped in."""
        return self.deployed().body

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        network, weights = self.get_submodule("network"), {}
        self._bits = self._bits or self._bits_in_order(network, images)
        with ExitStack() as stack:
            computed = stack.enter_context(_ComputedWeights())
            for number, name in enumerate(self._layers):
                layer = network.get_submodule(name)
                if _computes_its_weight(layer):
                    computed.round_in(layer, self._bits[name], stack)
                else:
                    weights[f"{name}.weight"] = rounded_weight(layer.weight, self._bits[name])  # type: ignore[arg-type]
                # For this call only: a copy of the network, as of averaged weights, has ranges of its own.
                stack.callback(layer.register_forward_pre_hook(self._rounding(number)).remove)
            # A layer that has two names has its weights under one of them: torch would put back the other's.
            logits: Tensor = torch.func.functional_call(network, weights, (images,), tie_weights=False)
        return logits

    @torch.no_grad()
    def _bits_in_order(self, network: nn.Module, images: Tensor) -> dict[str, int]:
        """Bits of each layer's weights: of the layers that compute first and last 8, as the file has it."""
        order: list[str] = []
        modes = [(module, module.training) for module in network.modules()]
        with ExitStack() as stack:
            for name in self._layers:
                layer = network.get_submodule(name)
                seen = layer.register_forward_pre_hook(lambda *_, name=name: order.append(name))
                stack.callback(seen.remove)
            network.eval()(images[:1])
        for module, mode in modes:
            module.training = mode
        between = {*order} - {order[0], order[-1]}
        return {name: self._weight_bits if name in between else 8 for name in self._layers}

    def _rounding(self, number: int) -> Any:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            if self.training:
                self._see(number, inputs[0].detach())
            return (rounded_input(inputs[0], self.ranges[number].clone()), *inputs[1:])

        return before

    @torch.no_grad()
    def _see(self, number: int, values: Tensor) -> None:
        """Moves a layer's range towards that of ``values``; zero is always in it."""
        low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
        seen = torch.stack([low, high]).to(self.ranges.dtype)
        known = self.ranges[number]
        self.ranges[number] = torch.where((known == 0).all(), seen, known.lerp(seen, _MOMENTUM))


class _ComputedWeights(TorchFunctionMode):
    """Rounds weights that a layer computes from its parameters, where it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self._bits: list[int] = []  # of the layers that compute now

    def round_in(self, layer: nn.Module, bits: int, stack: ExitStack) -> None:
        """Rounds the weights of ``layer`` to ``bits`` until ``stack`` closes."""
        stack.callback(layer.register_forward_pre_hook(lambda *_: self._bits.append(bits)).remove)
        stack.callback(layer.register_forward_hook(lambda *_: self._bits.pop() and None).remove)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._bits and func in (F.conv2d, F.linear):
            args = (args[0], rounded_weight(args[1], self._bits[-1]), *args[2:])
        return func(*args, **(kwargs or {}))


def _computes_its_weight(layer: nn.Module) -> bool:
    """Whether its weight is no parameter, as with weight_norm, or changed before its use, as by standardisation."""
    own = type(layer).forward in (nn.Conv2d.forward, nn.Linear.forward)
    return not own or "weight" not in layer._parameters


def _layers_of(network: nn.Module) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def check_weight_bits(network: Network, weight_bits: int) -> None:
    """Raises UsageError for a network with no layer that has weights of 4 bits: neither the first nor the last."""
    found = len(_layers_of(network.deployed()))
    if weight_bits == 4 and found < 3:
        raise UsageError(
            f"int4 stores the layers between the first and the last in 4 bits, and {network.name} has "
            f"{found} in all; choose int8"
        )


def rounded_weight(weight: Tensor, bits: int = 8) -> Tensor:
    """Each output channel (the first axis) rounded to −64…64 steps of its largest weight; the gradient passes.

    With 4 ``bits`` to −7…7 steps, the largest of which is 2.5 root mean squares of the channel at most.
    """
    channels, bound = weight.detach().flatten(1), _WEIGHT_BOUND[bits]
    reach = channels.abs().amax(dim=1)
    if math.isfinite(_REACH[bits]):  # of a channel of zeros, as pretrained networks have some, infinity makes NaN
        reach = torch.minimum(reach, _REACH[bits] * channels.square().mean(dim=1).sqrt())
    scale = (reach.clamp_min(1e-12) / bound).view(-1, *[1] * (weight.ndim - 1))
    return weight + ((weight / scale).round().clamp(-bound, bound) * scale - weight).detach()


def rounded_input(values: Tensor, limits: Tensor) -> Tensor:
    """``values`` in 255 steps between ``limits`` (low, high), and none beyond; without limits (0, 0) as they are.

    The gradient passes within the limits.
    """
    low, high = limits.unbind()
    scale = (high - low) / _LEVELS
    if not bool(scale > 0):
        return values
    zero = (-low / scale).round()
    kept = values.clamp(float(-zero * scale), float((_LEVELS - zero) * scale))
    return kept + ((kept / scale).round() * scale - kept).detach()
