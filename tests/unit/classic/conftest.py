"""Caffe's binary files, written byte by byte: the tests share no code with the reader."""

import math
import struct
from types import SimpleNamespace

import numpy as np
import pytest

LEGACY_TYPES = {"Convolution": 4, "InnerProduct": 14, "BatchNorm": 99}


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, payload):
    """A varint for an integer, else a length-delimited field."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob(values, shape=None, *, legacy=False, double=False, packed=True):
    values = np.asarray(values)
    shape = values.shape if shape is None else shape
    if legacy:
        padded = (1,) * (4 - len(shape)) + tuple(shape)
        head = b"".join(field(number, size) for number, size in enumerate(padded, start=1))
    else:
        head = field(7, field(1, b"".join(varint(size) for size in shape)))
    number, dtype, wire = (8, "<f8", 1) if double else (5, "<f4", 5)
    raw = values.astype(dtype).tobytes()
    if packed:
        return head + field(number, raw)
    size = struct.calcsize(dtype[1:].replace("f8", "d").replace("f4", "f"))
    tag = varint(number << 3 | wire)
    return head + b"".join(tag + raw[start : start + size] for start in range(0, len(raw), size))


def layer(name, kind, blobs, *, legacy=False, extra=b""):
    name = name.encode() if isinstance(name, str) else name
    if legacy:
        body = field(4, name) + field(5, LEGACY_TYPES.get(kind, 18)) + b"".join(field(6, b) for b in blobs)
        return field(2, body + extra)
    return field(100, field(1, name) + field(2, kind.encode()) + b"".join(field(7, b) for b in blobs) + extra)


def network(arrays, **options):
    """A NetParameter of {layer: (weights, bias)}, with layers without weights around them as Caffe writes them."""
    legacy = options.get("legacy", False)
    parts = [field(1, b"a net"), layer("data", "Data", [], legacy=legacy)]
    for name, (weights, bias) in arrays.items():
        kind = "Convolution" if np.ndim(weights) == 4 else "InnerProduct"
        parts.append(layer(name, kind, [blob(weights, **options), blob(bias, **options)], legacy=legacy))
        parts.append(layer(f"relu/{name}", "ReLU", [], legacy=legacy))
    return b"".join(parts)


@pytest.fixture(scope="session")
def wire():
    return SimpleNamespace(varint=varint, field=field, blob=blob, layer=layer, network=network)


@pytest.fixture
def tiny_arrays():
    """A convolution and an inner product of a few numbers, {layer: (weights, bias)}, in Caffe's layout."""
    shapes = {"conv1": (2, 3, 1, 2), "ip1": (2, 4)}
    return {
        name: (np.arange(math.prod(shape), dtype=np.float32).reshape(shape) / 7, np.array([1.5, -2], np.float32))
        for name, shape in shapes.items()
    }


@pytest.fixture
def model_arrays():
    """Function of a model's state dict: its layers {layer: (weights, bias)} as NumPy arrays."""

    def arrays_of(state):
        names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        return {name: (state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()) for name in names}

    return arrays_of
