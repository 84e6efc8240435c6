"""Lists the layers of a network: shapes from a dry run, parameters, multiply-accumulates."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from model_compression.core.errors import UsageError
from model_compression.core.inputs import map_inputs
from model_compression.models.base import Network
from model_compression.models.blank import blank, described

_FLOPS_PER_MAC = 2
_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv2d,),
    "pool": (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    "linear": (nn.Linear,),
    "normalization": (nn.BatchNorm2d, nn.BatchNorm1d, nn.GroupNorm, nn.LayerNorm),
    "activation": (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU),
    "dropout": (nn.Dropout, nn.Dropout2d),
    "flatten": (nn.Flatten,),
}


def _attention(query: Any, key: Any, value: Any, *others: Any, out_shape: Any = None, **options: Any) -> int:
    """FLOP of attention on a processor, which torch does not count, from the shapes."""
    return int(sdpa_flop_count(query, key, value))


_COUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module without children: its dotted ``name``, its ``kind``, and ``text`` with its settings.

    ``shape`` is its output's for one image, (C, H, W) or (D,); ``short`` is ``text`` where space is scarce.
    """

    name: str
    kind: str
    text: str
    short: str
    shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A network's layers in the order in which they run, for one image of ``input_shape`` (C, H, W), or text of (L,).

    ``parameters`` counts frozen ones too. ``macs`` are the multiply-accumulates of convolutions, inner
    products and attention.
    """

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    parameters: int
    macs: int


def summarize(model: Network, input_shape: tuple[int, ...] | None = None) -> Summary:
    """Runs one blank image or text through ``model`` in eval mode, and records the output of each layer.

    ``input_shape`` (C, H, W) is by default the network's own, see `Network.image_shape`; (L,) is that of a text.
    A layer that runs twice is listed twice, with all its parameters and MACs at the first. The model is not changed.

    Raises UsageError when the network takes no samples of that shape.
    """
    input_shape = input_shape or model.image_shape
    names = {module: name for name, module in model.named_modules() if not any(module.children())}
    runs, flops = _dry_run(model, list(names), input_shape)
    layers = []
    for number, (module, shape) in enumerate(runs):
        first = all(module is not earlier for earlier, _ in runs[:number])
        macs = flops.get(f"{type(model).__name__}.{names[module]}", 0) // _FLOPS_PER_MAC if first else 0
        layers.append(_layer(names[module], module, shape, macs, _parameters(module) if first else 0))
    return Summary(
        input_shape=input_shape,
        layers=tuple(layers),
        parameters=_parameters(model),
        macs=flops.get("Global", 0) // _FLOPS_PER_MAC,
    )


def _dry_run(
    model: Network, modules: list[nn.Module], input_shape: tuple[int, ...]
) -> tuple[list[tuple[nn.Module, tuple[int, ...]]], dict[str, int]]:
    """([(module, shape of its output)] in the order in which they ran, {dotted name: FLOP})."""
    runs: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        runs.append((module, tuple(output.shape[1:])))

    hooks = [module.register_forward_hook(note) for module in modules]
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())

    def as_it_takes(tensor: Tensor) -> Tensor:
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)

    sample = map_inputs(as_it_takes, blank(input_shape))
    try:
        model.eval()
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_COUNTED) as counter:
            model(sample)
    except Exception as error:  # a foreign network refuses shapes in its own way
        raise UsageError(f"{model.name} does not take {described(input_shape)}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return runs, {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}


def _layer(name: str, module: nn.Module, shape: tuple[int, ...], macs: int, parameters: int) -> Layer:
    kind = next((kind for kind, types in _KINDS.items() if isinstance(module, types)), "other")
    text, short = _texts(kind, module, shape)
    return Layer(name=name, kind=kind, text=text, short=short, shape=shape, parameters=parameters, macs=macs)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _texts(kind: str, module: Any, shape: tuple[int, ...]) -> tuple[str, str]:
    """The settings of a layer, in full and in short."""
    if kind == "convolution":
        return _window_texts("convolution", "conv", module, usual_stride=(1, 1))
    if kind == "pool":
        word = "max-pool" if "Max" in type(module).__name__ else "avg-pool"
        if not hasattr(module, "kernel_size"):
            return f"{word} to {module.output_size}", f"{word} to {module.output_size}"
        return _window_texts(word, word, module, usual_stride=_pair(module.kernel_size))
    if kind == "linear":
        bias = "" if module.bias is not None else ", no bias"
        return f"inner product{bias}", "inner product"
    if kind == "normalization":
        return "batch norm" if "BatchNorm" in type(module).__name__ else type(module).__name__, "norm"
    if kind == "dropout":
        return f"dropout {module.p:g}", f"dropout {module.p:g}" if module.p else ""
    if kind == "flatten":
        return f"flatten to {shape[0]:,}", f"flatten to {shape[0]:,}"
    return type(module).__name__, type(module).__name__


def _window_texts(word: str, short_word: str, module: Any, usual_stride: tuple[int, int]) -> tuple[str, str]:
    """A sliding window: its size, and its stride and padding where they are not the usual ones."""
    (height, width), stride, padding = _pair(module.kernel_size), _pair(module.stride), module.padding
    text, short = f"{word} {height}×{width}", f"{short_word} {height}×{width}"
    if stride != usual_stride:
        text, short = f"{text}, stride {stride[0]}", f"{short}/{stride[0]}"
    if isinstance(padding, str) or max(_pair(padding)) > 0:
        text += f", padding {padding if isinstance(padding, str) else _pair(padding)[0]}"
    if getattr(module, "groups", 1) > 1:
        text += f", {module.groups} groups"
    if getattr(module, "ceil_mode", False):
        text += ", rounded up"
    return text, short


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
