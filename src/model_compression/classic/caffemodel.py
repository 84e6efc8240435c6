"""Caffe's own binary files: networks (`.caffemodel`, a NetParameter) and mean images (`.binaryproto`, a BlobProto).

The protobuf package decodes them by the few fields of caffe.proto that matter here. Layers and blobs are declared as
bytes and decoded one at a time: an error can name its layer, and a file of a million empty layers costs no memory.
"""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_compression.classic.caffe_layers import (
    CaffeLayer,
    FloatArray,
    check_floats,
    check_layers,
    check_name,
    read_bounded,
)
from model_compression.core.errors import FileFormatError, MissingExtraError

MAX_LAYERS = 10_000
_CONVOLUTION, _INNER_PRODUCT = "Convolution", "InnerProduct"
_LEGACY_TYPES = {4: _CONVOLUTION, 14: _INNER_PRODUCT}  # V1LayerParameter.LayerType

# Message -> fields (name, number, type, repeated); the numbers are those of caffe.proto.
_PACKAGE = "model_compression.caffe"
_FIELDS: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "BlobShape": (("dim", 1, "int64", True),),
    "BlobProto": (
        ("num", 1, "int32", False),
        ("channels", 2, "int32", False),
        ("height", 3, "int32", False),
        ("width", 4, "int32", False),
        ("data", 5, "float", True),
        ("shape", 7, "BlobShape", False),
        ("double_data", 8, "double", True),
    ),
    "InnerProductParameter": (("transpose", 6, "bool", False),),
    "LayerParameter": (
        ("name", 1, "bytes", False),
        ("type", 2, "bytes", False),
        ("blobs", 7, "bytes", True),
        ("inner_product_param", 117, "InnerProductParameter", False),
    ),
    "V1LayerParameter": (
        ("name", 4, "bytes", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "bytes", True),
        ("inner_product_param", 17, "InnerProductParameter", False),
    ),
    "NetParameter": (("layers", 2, "bytes", True), ("layer", 100, "bytes", True)),
}


def read_caffemodel(path: str | os.PathLike[str]) -> dict[str, CaffeLayer]:
    """Reads the convolutions and inner products of a `.caffemodel`, in the current or the legacy layer format.

    Raises FileFormatError, which names the file and the layer, and MissingExtraError without the extra `caffe`.
    """
    source = Path(path)
    payload = read_bounded(source)
    if payload.startswith(b"\x89HDF"):
        raise FileFormatError(f"{source} is an HDF5 snapshot; save it from Caffe with snapshot_format: BINARYPROTO")
    net = _decode("NetParameter", payload, f"{source} is not a Caffe network (a binary NetParameter)")
    if len(net.layer) + len(net.layers) > MAX_LAYERS:
        raise FileFormatError(
            f"{source} claims {len(net.layer) + len(net.layers)} layers; at most {MAX_LAYERS} are read"
        )
    layers: dict[str, CaffeLayer] = {}
    unreadable = []
    for name, kind, num_blobs, blobs, transpose in _layers_with_weights(net, source):
        if name in layers:
            raise FileFormatError(f"{source}: two layers with weights are named '{name}'")
        if kind not in (_CONVOLUTION, _INNER_PRODUCT) or num_blobs > 2:
            unreadable.append(f"'{name}' ({kind or 'no type'}, {num_blobs} blobs)")
            continue
        weights = _read_blob(blobs[0], f"layer '{name}' weights", source)
        bias = _read_blob(blobs[1], f"layer '{name}' bias", source) if num_blobs == 2 else None
        layers[name] = _layer(weights, bias, kind, transpose)
    if unreadable:
        raise FileFormatError(
            f"{source} has layers that are not read: {', '.join(unreadable[:20])}; expected convolutions and inner "
            "products with weights and a bias"
        )
    return check_layers(layers, source)


def read_blob(path: str | os.PathLike[str]) -> FloatArray:
    """Reads a `.binaryproto` file, as Caffe's compute_image_mean writes it; raises as ``read_caffemodel`` does."""
    source = Path(path)
    return _read_blob(read_bounded(source), "the blob", source)


@functools.cache
def message_classes() -> dict[str, Any]:
    """The messages of ``_FIELDS`` as classes, built in a pool of their own: a caffe_pb2 elsewhere is not disturbed."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise MissingExtraError("protobuf", "caffe", "reading Caffe's binary files") from None
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_compression/caffe.proto", package=_PACKAGE, syntax="proto2")
    for message_name, fields in _FIELDS.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, repeated in fields:
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            field = message.field.add(name=name, number=number, label=label)
            if kind in _FIELDS:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")  # packed or not, numbers are read both ways
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


def _decode(message_name: str, payload: bytes, complaint: str) -> Any:
    message_class = message_classes()[message_name]
    from google.protobuf.message import DecodeError

    try:
        return message_class.FromString(payload)
    except (DecodeError, RecursionError, MemoryError, ValueError):  # what they say is about protobuf, not this file
        raise FileFormatError(f"{complaint}; it is truncated or corrupt") from None


def _layers_with_weights(net: Any, source: Path) -> Iterator[tuple[str, str, int, list[bytes], bool]]:
    """Name, type, number of blobs, the first two undecoded, and if transposed; of each layer that has blobs."""
    for message_name, payloads in (("V1LayerParameter", net.layers), ("LayerParameter", net.layer)):
        for index, payload in enumerate(payloads):
            layer = _decode(message_name, payload, f"{source}: layer number {index} cannot be read")
            if not layer.blobs:
                continue  # data, pooling, losses: nothing to import, and their names go nowhere
            name = check_name(layer.name.decode("utf-8", errors="replace"), source)
            if isinstance(layer.type, int):
                kind = _LEGACY_TYPES.get(layer.type, f"type {layer.type}")
            else:
                kind = ascii(layer.type.decode("latin1"))[1:-1]
            yield name, kind, len(layer.blobs), layer.blobs[:2], layer.inner_product_param.transpose


def _read_blob(payload: bytes, what: str, source: Path) -> FloatArray:
    blob = _decode("BlobProto", payload, f"{source}: {what} cannot be read")
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    elif blob.HasField("shape"):
        shape = tuple(blob.shape.dim[:33])
    else:
        raise FileFormatError(f"{source}: {what} has no shape; the file is truncated or not a Caffe file")
    data, dtype = (blob.double_data, np.float64) if blob.double_data else (blob.data, np.float32)
    if len(shape) > 32 or min(shape, default=1) < 1 or math.prod(shape) != len(data):
        raise FileFormatError(f"{source}: {what} claims shape {shape} but holds {len(data)} numbers")
    values: NDArray[Any] = np.fromiter(data, dtype, count=len(data))
    return check_floats(values, what, source).reshape(shape)


def _layer(weights: FloatArray, bias: FloatArray | None, kind: str, transpose: bool) -> CaffeLayer:
    """Takes off the leading ones of legacy shapes: (1, 1, out, in) of inner products, (1, 1, 1, out) of biases."""
    if kind == _INNER_PRODUCT and weights.shape[:-2] == (1, 1):
        weights = weights.reshape(weights.shape[-2:])
    if kind == _INNER_PRODUCT and transpose and weights.ndim == 2:
        weights = np.ascontiguousarray(weights.T)
    if bias is not None and math.prod(bias.shape[:-1]) == 1:
        bias = bias.reshape(-1)
    return CaffeLayer(weights=weights, bias=bias)
