"""Shapes at which a kernel of torch is wrong: a run with one of them computes in float32.

On a processor, the bfloat16 kernel of a convolution with padding, whose stride is larger than its maps, leaves those
weights out of its gradient that never meet a pixel. Their gradient is what the memory held before, NaN at worst, where
it should be 0. Seen in torch 2.8.0 to 2.14.1, on all such shapes that were tried and on no others.
"""

import torch
from torch import Tensor, nn

from model_compression.core.inputs import Inputs
from model_compression.models.base import Network
from model_compression.models.eval_mode import evaluating


@torch.no_grad()
def faulty_convolution(model: Network, inputs: Inputs) -> str | None:
    """The first convolution that the bfloat16 kernel is wrong for, as people call it; ``inputs`` (B, …)."""
    found: list[str] = []

    def look(name: str, layer: nn.Conv2d, maps: Tensor) -> None:
        size, stride = maps.shape[2:], layer.stride
        padded = layer.padding == "same" or (layer.padding != "valid" and any(layer.padding))
        if padded and any(step > max(1, side) for step, side in zip(stride, size, strict=True)):
            found.append(f"{name}, a convolution with stride {max(stride)} on maps of {size[0]} × {size[1]}")

    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: look(name, layer, inputs[0]))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with evaluating(model):
            model(model.preprocessing(inputs))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def kernel_fault(device: torch.device, model: Network, inputs: Inputs) -> str | None:
    """What is wrong with training ``model`` in bfloat16 on ``device``; None where nothing is known to be."""
    layer = faulty_convolution(model, inputs) if device.type == "cpu" else None
    return None if layer is None else f"torch's bfloat16 kernel gives a wrong gradient for {layer}"
