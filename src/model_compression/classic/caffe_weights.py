"""From the files of Caffe and caffe-tensorflow to this package's models, and back to `.npy`.

The models name their layers as Caffe does, so layer and module have one name. What is converted is the order of axes,
which the readers do, and the order of colours: Caffe reads images as BGR, these models take RGB.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from model_compression.classic.caffe_layers import CaffeLayer, FloatArray, ImageShape, starts_with
from model_compression.classic.caffemodel import read_caffemodel
from model_compression.classic.mean import read_mean
from model_compression.classic.npy import MAGIC, read_npy, write_npy
from model_compression.core.errors import UsageError, WeightsMismatchError
from model_compression.models import Network, Preprocessing, create_model

ChannelOrder = Literal["bgr", "rgb"]
INPUT_SIZE = (32, 32)  # of all networks here that Caffe's layers can express


def import_model(
    path: str | os.PathLike[str],
    model_name: str,
    *,
    channel_order: ChannelOrder = "bgr",
    mean: str | os.PathLike[str] | None = None,
    scale: float = 1.0,
    num_classes: int = 10,
) -> Network:
    """Builds a model from a file and gives it the preprocessing (pixels in 0 to 255 − mean) · scale, on RGB.

    Args:
        path: a `.caffemodel` or a caffe-tensorflow `.npy` file; its content, not its name, decides how it is read.
        model_name: what the weights are for. The hidden units of `nin-ip` are taken from the file.
        channel_order: of the images the file's network was trained on. Caffe's tools make BGR, except that its CIFAR-10
            example keeps RGB.
        mean: a file, `.npy` or `.binaryproto`, in the channel order of the weights; without it nothing is subtracted.
        num_classes: of the file's network.

    Raises:
        FileFormatError: the file is corrupt, or holds something that is refused.
        WeightsMismatchError: the layers are not those of the model; every difference is listed.
        UsageError: the model is not known, or has layers that such a file cannot hold.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"scale must be a number > 0, got {scale}; Caffe's prototxt has it in transform_param")
    options, state = _read_for_model(path, model_name, channel_order, num_classes)
    model = create_model(model_name, seed=0, **options)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    channels = next(iter(_layers_of(model).values())).weight.shape[1]
    model.preprocessing = _preprocessing(mean, scale, (channels, *INPUT_SIZE), channel_order)
    return model.eval()


def export_npy(model: Network, path: str | os.PathLike[str], *, channel_order: ChannelOrder = "bgr") -> None:
    """Writes a model's weights as caffe-tensorflow would; `import_model` with this order gives them back exactly.

    The file has no place for the preprocessing: who reads it must subtract the same mean and apply the same scale.
    Raises UsageError when the model has layers that such a file cannot hold.
    """
    modules = _layers_of(model)
    flip = _first_convolution(modules) if _is_bgr(channel_order) else None
    layers = {}
    for name, module in modules.items():
        weights = module.weight.detach().cpu().numpy()
        bias = None if module.bias is None else module.bias.detach().cpu().numpy()
        layers[name] = CaffeLayer(weights=_reverse_channels(weights) if name == flip else weights, bias=bias)
    write_npy(path, layers, _flatten_shapes(model))


def _read_for_model(
    path: str | os.PathLike[str], model_name: str, channel_order: ChannelOrder, num_classes: int
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """The options of the model's builder, and its state dict."""
    flips = _is_bgr(channel_order)
    options: dict[str, Any] = {"num_classes": num_classes}
    template = _template(model_name, options)
    modules = _layers_of(template)
    layers = _read(path, _flatten_shapes(template))
    if model_name == "nin-ip" and "ip1" in layers and layers["ip1"].weights.ndim == 2:
        options["hidden"] = layers["ip1"].weights.shape[0]
        modules = _layers_of(_template(model_name, options))
    differences = _differences(layers, modules)
    if differences:
        raise WeightsMismatchError(
            f"{path} does not fit the model {model_name!r} with {num_classes} classes (shapes are out, in, height, "
            f"width): {'; '.join(differences)}"
        )
    flip = _first_convolution(modules) if flips else None
    state = {}
    for name in modules:
        layer = layers[name]
        state[f"{name}.weight"] = _reverse_channels(layer.weights) if name == flip else layer.weights.copy()
        if layer.bias is not None:
            state[f"{name}.bias"] = layer.bias.copy()
    return options, state


def _template(model_name: str, options: Mapping[str, Any]) -> Network:
    with torch.device("meta"):  # shapes are all that is needed of it
        return create_model(model_name, **options)


def _read(path: str | os.PathLike[str], flattened: Mapping[str, ImageShape]) -> dict[str, CaffeLayer]:
    return read_npy(path, flattened) if starts_with(path, MAGIC) else read_caffemodel(path)


def _layers_of(model: Network) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and inner products in the order of the model; raises UsageError when it has other weights."""
    layers = {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    others = sorted({key.rpartition(".")[0] for key in model.state_dict()} - set(layers))
    if others:
        raise UsageError(
            f"model {model.name!r} has layers that Caffe's convolutions and inner products cannot hold: "
            f"{', '.join(others)}; choose a model without them, as lenet or nin"
        )
    return layers


def _flatten_shapes(model: Network) -> dict[str, ImageShape]:
    """The first inner product with the image shape that it takes flattened, if it takes one."""
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    return {linear[0]: model.flatten_shape} if linear and model.flatten_shape else {}


def _differences(layers: Mapping[str, CaffeLayer], modules: Mapping[str, nn.Conv2d | nn.Linear]) -> list[str]:
    """What keeps ``layers`` from being the weights of ``modules``, a clause for each."""
    found = []
    for name, module in modules.items():
        weights, bias = tuple(module.weight.shape), None if module.bias is None else tuple(module.bias.shape)
        if name not in layers:
            found.append(f"layer '{name}' is not in the file, expected weights {weights}")
            continue
        layer = layers[name]
        if layer.weights.shape != weights:
            found.append(f"layer '{name}' weights: found {layer.weights.shape}, expected {weights}")
        if (None if layer.bias is None else layer.bias.shape) != bias:
            held = "no bias" if layer.bias is None else layer.bias.shape
            found.append(f"layer '{name}' bias: found {held}, expected {bias or 'no bias'}")
    extra = [name for name in layers if name not in modules]
    return found + [f"layer '{name}' {layers[name].weights.shape} is not in the model" for name in extra]


def _preprocessing(
    mean: str | os.PathLike[str] | None, scale: float, shape: ImageShape, channel_order: ChannelOrder
) -> Preprocessing:
    channels = shape[0]
    std = (1 / (255 * scale),) * channels
    values = np.zeros(channels, np.float32) if mean is None else read_mean(mean, shape)
    if channel_order == "bgr":
        values = np.ascontiguousarray(values[::-1])
    if values.ndim == 1:
        return Preprocessing(mean=tuple(float(value) / 255 for value in values), std=std)
    return Preprocessing(mean=(0.0,) * channels, std=std, mean_image=torch.from_numpy(values.copy()))


def _is_bgr(channel_order: str) -> bool:
    if channel_order not in ("bgr", "rgb"):
        raise UsageError(f"channel_order must be 'bgr' or 'rgb', got {channel_order!r}")
    return channel_order == "bgr"


def _first_convolution(modules: Mapping[str, nn.Conv2d | nn.Linear]) -> str | None:
    return next((name for name, module in modules.items() if isinstance(module, nn.Conv2d)), None)


def _reverse_channels(weights: FloatArray) -> FloatArray:
    return np.ascontiguousarray(weights[:, ::-1])  # (out, BGR, H, W) -> (out, RGB, H, W); grey stays grey
