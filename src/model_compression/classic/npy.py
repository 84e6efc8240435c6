"""The `.npy` dictionaries of caffe-tensorflow: read without executing anything, and written.

The file is a NumPy array of one object, a pickled dictionary: layer → {'weights', 'biases'}, or in older files layer →
[weights, biases]. Convolutions are (H, W, in, out), inner products (in, out) over an (H, W, C) flattening.
"""

import io
import math
import os
import tokenize
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_compression.classic.caffe_layers import (
    CaffeLayer,
    FloatArray,
    ImageShape,
    check_floats,
    check_layers,
    check_name,
    read_bounded,
)
from model_compression.core import safe_pickle
from model_compression.core.errors import FileFormatError, reason_of
from model_compression.core.files import write_atomically

MAGIC = b"\x93NUMPY"
_KEYS = ("weights", "biases")


def read_npy(path: str | os.PathLike[str], flattened: Mapping[str, ImageShape] | None = None) -> dict[str, CaffeLayer]:
    """Reads the layers of a caffe-tensorflow `.npy` file into Caffe's layout.

    ``flattened`` names the inner products that take a flattened (C, H, W) image: their inputs are put from (H, W, C)
    into (C, H, W) order. Only the target model knows that shape, so a layer of another size is left for it to refuse.
    Raises FileFormatError, which names the file and the layer.
    """
    source = Path(path)
    payload = read_bounded(source)
    _, _, dtype, start = _read_header(payload, source)
    if not dtype.hasobject:
        raise FileFormatError(
            f"{source} holds a plain array of {dtype}; expected a pickled dictionary layer -> weights and biases "
            "(a mean image belongs to --mean)"
        )
    content = safe_pickle.loads(payload[start:], source, encoding="latin1")  # latin1: Python 2 wrote most of them
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content.item()
    if not isinstance(content, dict):
        raise FileFormatError(
            f"{source} holds a pickled {type(content).__name__}; expected a dictionary layer -> weights and biases"
        )
    layers = {}
    for key, entry in content.items():
        name = check_name(key, source)
        layers[name] = _layer(name, entry, (flattened or {}).get(name), source)
    return check_layers(layers, source)


def write_npy(
    path: str | os.PathLike[str],
    layers: Mapping[str, CaffeLayer],
    flattened: Mapping[str, ImageShape] | None = None,
) -> None:
    """Writes ``layers`` as caffe-tensorflow would; ``read_npy`` with the same ``flattened`` gives them back exactly.

    Raises FileFormatError for what ``read_npy`` would refuse, ModelCompressionError when the file cannot be written.
    """
    source = Path(path)
    content: dict[str, dict[str, FloatArray]] = {}
    for name, layer in check_layers(layers, source).items():
        weights = check_floats(layer.weights, f"layer '{check_name(name, source)}' weights", source)
        entry = {"weights": _to_tensorflow(weights, (flattened or {}).get(name))}
        if layer.bias is not None:
            entry["biases"] = np.array(check_floats(layer.bias, f"layer '{name}' biases", source))
        content[name] = entry
    holder = np.empty((), dtype=object)
    holder[()] = content
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, holder, version=(1, 0), allow_pickle=True)
    write_atomically(source, buffer.getbuffer())


def read_plain_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a `.npy` file of numbers; its claimed shape is compared with its size before anything is allocated.

    Raises FileFormatError, also for pickled content.
    """
    source = Path(path)
    payload = read_bounded(source)
    shape, is_fortran, dtype, start = _read_header(payload, source)
    if dtype.kind not in "fiu":
        raise FileFormatError(f"{source} holds {dtype}; expected an array of numbers")
    claimed, found = math.prod(shape) * dtype.itemsize, len(payload) - start
    if claimed != found:
        raise FileFormatError(f"{source} claims {claimed} bytes for shape {shape} but holds {found}; it is truncated?")
    return np.frombuffer(payload, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")


def _read_header(payload: bytes, source: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, dtype and where the data starts."""
    stream = io.BytesIO(payload)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 2 headers are read with a warning that concerns nobody here
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"format version {version}; expected 1.0 or 2.0")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(stream)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise FileFormatError(f"{source} is not a readable .npy file: {ascii(reason_of(error))[1:-1]}") from None
    if len(shape) > 32 or any(type(size) is not int or size < 1 for size in shape):
        raise FileFormatError(f"{source} is not a readable .npy file: its header claims an impossible shape")
    return shape, is_fortran, dtype, stream.tell()


def _layer(name: str, entry: Any, flattened: ImageShape | None, source: Path) -> CaffeLayer:
    """One entry of the dictionary, in Caffe's layout."""
    if isinstance(entry, (list, tuple)) and 1 <= len(entry) <= 2:
        entry = dict(zip(_KEYS, entry, strict=False))
    if not isinstance(entry, dict):
        raise FileFormatError(
            f"{source}: layer '{name}' is of type {type(entry).__name__}; expected a dictionary of weights and biases"
        )
    unknown = [ascii(key)[:40] for key in entry if key not in _KEYS]
    if unknown or "weights" not in entry:
        raise FileFormatError(
            f"{source}: layer '{name}' holds {', '.join(unknown[:20]) or 'no weights'}; expected 'weights' and "
            "'biases' only (convolutions and inner products are read, nothing else)"
        )
    arrays = {}
    for key, values in entry.items():
        if not isinstance(values, np.ndarray):
            raise FileFormatError(
                f"{source}: layer '{name}' {key} are of type {type(values).__name__}; expected a NumPy array"
            )
        arrays[key] = check_floats(np.asarray(values), f"layer '{name}' {key}", source)
    return CaffeLayer(weights=_from_tensorflow(arrays["weights"], flattened), bias=arrays.get("biases"))


def _from_tensorflow(weights: FloatArray, flattened: ImageShape | None) -> FloatArray:
    if weights.ndim == 4:
        return np.ascontiguousarray(weights.transpose(3, 2, 0, 1))  # (H, W, in, out) -> (out, in, H, W)
    if weights.ndim != 2:
        return weights
    if flattened is not None and weights.shape[0] == math.prod(flattened):
        channels, height, width = flattened
        image = weights.reshape(height, width, channels, -1)
        return np.ascontiguousarray(image.transpose(3, 2, 0, 1)).reshape(weights.shape[1], -1)  # (out, C·H·W)
    return np.ascontiguousarray(weights.T)


def _to_tensorflow(weights: FloatArray, flattened: ImageShape | None) -> FloatArray:
    if weights.ndim == 4:
        return np.array(weights.transpose(2, 3, 1, 0), order="C")  # (out, in, H, W) -> (H, W, in, out)
    if flattened is not None and weights.ndim == 2 and weights.shape[1] == math.prod(flattened):
        image = weights.reshape(-1, *flattened)  # (out, C, H, W)
        return np.array(image.transpose(2, 3, 1, 0), order="C").reshape(-1, weights.shape[0])  # (H·W·C, out)
    return np.array(weights.T, order="C")
