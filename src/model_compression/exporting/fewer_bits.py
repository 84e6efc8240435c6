"""ONNX models in fewer bits: int8 arithmetic, calibrated on images, or weights that are stored small.

int8 as ONNX Runtime computes it: activations in 8 bits per tensor, between ranges that are seen on images; weights
symmetric, per output channel, in 7 bits (−64 to 64). The eighth bit would be worth little, and processors without
VNNI add products of 8-bit numbers up with saturation: the file would answer otherwise there.

int4 is the same arithmetic on weights of 4 bits (−7 to 7), two to a byte, which the runtime widens when it loads the
file; the first layer and the last one, which suffer most and weigh little, have weights as in int8.

Weights that the network computes from its parameters, as weight standardisation and weight normalisation do, are
computed once and stored. A model whose weights stay in float32 nevertheless is refused: its name would promise a size
that it does not have.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import ModelCompressionError, UsageError, reason_of
from model_compression.core.extras import check_extra
from model_compression.core.files import temporary_folder
from model_compression.core.registry import unknown_name
from model_compression.exporting.images_in_parts import ImagesInParts
from model_compression.exporting.quiet import quiet

Array = npt.NDArray[Any]

FOUR_BIT_BOUND = 7
FOUR_BIT_REACH = 2.5  # root mean squares; weights beyond are clipped: near the least squared error for a normal law
CALIBRATIONS = ("minmax", "percentile", "entropy")
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")
_INT8 = (*_WEIGHTED, "Add", "Relu", "Clip", *_POOLS, "Reshape", "Flatten", "Concat")
_INT4_OPSET = 21  # the first whose casts know 4 bits
_SMALL = 1024  # numbers: tensors of fewer are left as they are
_WIDE = 0.1  # of the bytes of large tensors may stay in float32, as tables that are added to activations
_ANY_SIZE = 1 << 40  # numbers: weights of every size are computed


def to_int8(model: Any, images: Array, calibration: str, weight_bits: int = 8) -> Any:
    """``model`` with int8 arithmetic between quantised tensors (QDQ), its weights in ``weight_bits``, 8 or 4.

    ``images`` (N, C, H, W), as the model takes them, show the ranges of activations. ``calibration`` is "minmax", all
    that is seen; "percentile", without the outermost 0.01 %; or "entropy", the range whose histogram loses least.

    Raises UsageError for an unknown calibration, for a model without a convolution or inner product and, with 4 bits,
    for one of two at most; and MissingExtraError.
    """
    check_extra("quantize", "quantising")
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    methods = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
    if calibration not in methods:
        raise unknown_name("calibration", calibration, list(methods))
    model = _folded(model)
    whole, untouched = _bytes(model), [*_preprocessing(model), *_clipped_off_zero(model)]
    options: dict[str, Any] = {"CalibStridedMinMax": 1}  # a part of the reader at a time, whatever the calibration
    options |= {"CalibPercentile": 99.99} if calibration == "percentile" else {}
    if weight_bits == 4:
        model = _of_opset(model, _INT4_OPSET)
        options["TensorQuantOverrides"] = _rounded_to_four_bits(model)
    with temporary_folder() as folder, quiet():
        path = folder / "int8.onnx"
        try:
            quantize_static(
                model,
                path,
                ImagesInParts(model, images),
                op_types_to_quantize=list(_INT8),
                nodes_to_exclude=untouched,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[methods[calibration]],
                extra_options=options,
            )
        except (ValueError, RuntimeError, KeyError, AssertionError) as error:  # it has no exceptions of its own
            raise ModelCompressionError(f"ONNX Runtime cannot quantise this network: {reason_of(error)}") from error
        quantised = _loaded(path)
    if weight_bits == 4:
        quantised = _stored_in_four_bits(quantised, options["TensorQuantOverrides"])
    return _kept_small(quantised, whole, f"int{weight_bits}")


def _rounded_to_four_bits(model: Any) -> dict[str, list[dict[str, Any]]]:
    """Rounds weights of ``model`` in place; returns, by name, what ONNX Runtime's quantiser needs to keep them so."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [node.input[1] for node in model.graph.node if node.op_type in _WEIGHTED and node.input[1] in tensors]
    names = [name for name in dict.fromkeys(weights) if name not in (weights[0], weights[-1])]
    if not names:
        raise UsageError("the network has no layer between its first and its last that int4 would store smaller")
    kept = {}
    for name in names:
        values = numpy_helper.to_array(tensors[name])
        axis, others = _axes(model, name, values.ndim)
        reach = np.minimum(np.abs(values).max(axis=others), FOUR_BIT_REACH * np.sqrt((values**2).mean(axis=others)))
        scale = (np.maximum(reach, 1e-12) / FOUR_BIT_BOUND).astype(np.float32)
        by_channel = np.expand_dims(scale, others)
        steps = np.round(values / by_channel).clip(-FOUR_BIT_BOUND, FOUR_BIT_BOUND)
        tensors[name].CopyFrom(numpy_helper.from_array(steps.astype(np.float32) * by_channel, name))
        kept[name] = [{"axis": axis, "scale": one, "zero_point": np.int8(0)} for one in scale]
    return kept


def _stored_in_four_bits(model: Any, names: Iterable[str]) -> Any:
    """``model`` with the int8 integers of weights ``names``, which are small, two to a byte."""
    import ml_dtypes
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        whole = tensor.name.removesuffix("_quantized")
        if whole in names:
            steps, name = numpy_helper.to_array(tensor), tensor.name
            tensor.CopyFrom(numpy_helper.from_array(steps.astype(ml_dtypes.int4), f"{name}_int4"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_wide", to=TensorProto.INT8))
    assert len(casts) == len(list(names)), "a weight was not quantised"
    return _with_nodes_first(model, casts)


def _of_opset(model: Any, version: int) -> Any:
    """``model`` in a version of the operators that is at least ``version``."""
    from onnx import version_converter

    (own,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return model if own >= version else version_converter.convert_version(model, version)


def to_half(model: Any) -> Any:
    """``model`` with weights in half precision, which are widened when it is loaded: it computes in float32."""
    from onnx import TensorProto, helper, numpy_helper

    model, casts = _folded(model), []
    whole = _bytes(model)
    for tensor in _large(model):
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ModelCompressionError(f"{tensor.name} has weights that half precision cannot hold")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_wide", to=TensorProto.FLOAT))
    return _kept_small(_with_nodes_first(model, casts), whole, "half")


def to_int8_weights(model: Any) -> Any:
    """``model`` with the weights of each output channel in 8 bits and a scale: it computes in float32."""
    from onnx import helper, numpy_helper

    model, nodes = _folded(model), []
    whole = _bytes(model)
    for tensor in _large(model):
        values, name = numpy_helper.to_array(tensor), tensor.name
        axis, others = _axes(model, name, values.ndim)
        scale = np.maximum(np.abs(values).max(axis=others), 1e-12) / 127
        steps = np.round(values / np.expand_dims(scale, others)).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(steps, f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        inputs = [f"{name}_int8", f"{name}_scale"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_wide", axis=axis))
    return _kept_small(_with_nodes_first(model, nodes), whole, "int8-weights")


def to_int8_dynamic(model: Any) -> Any:
    """``model`` with int8 weights of inner products and tables, and activations that are rounded as they come.

    No samples are needed: each inner product measures the range of what goes into it. It serves transformers, whose
    ranges differ from text to text. Raises UsageError for a model without an inner product.
    """
    check_extra("quantize", "quantising")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _folded(model)
    whole = _bytes(model)
    _ = _preprocessing(model)  # which refuses a model without an inner product
    with temporary_folder() as folder, quiet():
        path = folder / "int8.onnx"
        quantize_dynamic(
            model, path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        )  # fmt: skip
        quantised = _loaded(path)
    return _kept_small(quantised, whole, "int8-dynamic")


def _folded(model: Any) -> Any:
    """``model`` with everything computed that depends on no image; in place."""
    from onnxscript import optimizer

    optimizer.fold_constants(model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    optimizer.remove_unused_nodes(model)
    for node in model.graph.node:
        del node.metadata_props[:]  # what was folded into it
    del model.graph.value_info[:]
    return model


def _wide(model: Any) -> list[tuple[int, tuple[int, ...]]]:
    """Bytes and shape of each large tensor that ``model`` stores in float32 or float64."""
    from onnx import TensorProto

    sizes = {TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8}
    constants = (entry.t for node in model.graph.node for entry in node.attribute if entry.HasField("t"))
    tensors = [(tensor.data_type, tuple(tensor.dims)) for tensor in (*model.graph.initializer, *constants)]
    found = [(sizes[kind] * math.prod(shape), shape) for kind, shape in tensors if kind in sizes]
    return [(size, shape) for size, shape in found if size >= 4 * _SMALL]


def _bytes(model: Any) -> int:
    return sum(size for size, _ in _wide(model))


def _kept_small(model: Any, whole: int, precision: str) -> Any:
    """``model``, whose large tensors took ``whole`` bytes. Raises ModelCompressionError if too many stayed so."""
    if _bytes(model) <= _WIDE * whole:
        return model
    remedy = "try int8-weights or half" if precision in ("int8", "int4") else "export the network in float32"
    raise ModelCompressionError(
        f"{precision} leaves {_bytes(model):,} of {whole:,} bytes of weights in float32, the largest of shape "
        f"{max(_wide(model))[1]}: no layer that {precision} knows uses them; {remedy}"
    )


def _preprocessing(model: Any) -> list[str]:
    """Names of the nodes before the first one with weights."""
    names: list[str] = []
    for node in model.graph.node:
        if node.op_type in _WEIGHTED:
            return names
        names.append(node.name)
    raise UsageError("the network has no convolution and no inner product, which int8 would make smaller or faster")


def _clipped_off_zero(model: Any) -> list[str]:
    """Names of the nodes that clip to a range which may not hold zero, as for a division.

    Others, as ReLU6, become the range of what they clip, which always holds zero.
    """
    from onnx import numpy_helper

    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def holds_zero(node: Any) -> bool:
        low, high = [*list(node.input)[1:], "", ""][:2]
        computed = {low, high} - {*numbers, ""}
        return not computed and bool(numbers.get(low, -np.inf) <= 0 <= numbers.get(high, np.inf))

    return [node.name for node in model.graph.node if node.op_type == "Clip" and not holds_zero(node)]


def _large(model: Any) -> list[Any]:
    """Its tensors of float32 numbers that are worth storing small."""
    from onnx import TensorProto

    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and int(np.prod(tensor.dims)) >= _SMALL
    ]


def _axes(model: Any, name: str, count: int) -> tuple[int, tuple[int, ...]]:
    """The axis of a weight that counts output channels, the last of a MatMul's, the first of others'; and the rest."""
    axis = 0
    for node in model.graph.node:
        if name in node.input:
            transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
            is_plain = node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed)
            axis = count - 1 if is_plain else 0
            break
    return axis, tuple(number for number in range(count) if number != axis)


def _with_nodes_first(model: Any, nodes: Sequence[Any]) -> Any:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return model


def _loaded(path: Path) -> Any:
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    return model
