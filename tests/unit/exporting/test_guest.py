"""ONNX files of others run apart, within limits of memory and time; those of one's own run here."""

import json
import time
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model_compression.core import trust
from model_compression.core.errors import FileFormatError
from model_compression.exporting import guest
from model_compression.exporting.metadata import FORMAT, KEY, Metadata
from model_compression.exporting.runtimes import open_file

KNOWN = Metadata(
    model="x", class_names=("a", "b"), image_shape=(3, 4, 4), preprocessing_inside=False, mean=(0.5,) * 3,
    std=(0.5,) * 3, channel_order="rgb", data="", accuracy=None, weights_sha256="",
)  # fmt: skip


def constant(name, values, dtype=np.int64):
    return onnx.numpy_helper.from_array(np.array(values, dtype=dtype), name)


def write(path, nodes=(), initializers=(), logits="plain"):
    """A graph that answers images with the sums of two of their channels, behind ``nodes``."""
    plain = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Slice", ["means", "zero", "two", "one"], ["plain"]),
    ]
    fixed = [constant(name, [value]) for name, value in (("zero", 0), ("two", 2), ("one", 1))]
    graph = helper.make_graph(
        [*plain, *nodes],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, 4, 4])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["b", 2])],
        [*fixed, constant("axes", [2, 3]), *initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.append(
        onnx.StringStringEntryProto(key=KEY, value=json.dumps({"format": FORMAT, **asdict(KNOWN)}))
    )
    path.write_bytes(model.SerializeToString())
    return path


def large(size):
    """Nodes that add zeros to the logits, made from a tensor of ``size`` × 1000 numbers."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),  # so that nothing is known beforehand
        helper.make_node("Expand", ["largest", "shape"], ["many"]),
        helper.make_node("Exp", ["many"], ["others"]),
        helper.make_node("ReduceSum", ["others"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "nothing"], ["zeros"]),
        helper.make_node("Add", ["plain", "zeros"], ["logits"]),
    ]
    return nodes, [constant("shape", [size, 1000]), constant("nothing", 0.0, np.float32)]


def looping(trips):
    """Nodes that add the same zero to the logits, ``trips`` times."""
    inputs = [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("before", TensorProto.FLOAT, ["b", 2])]
    outputs = [("on", TensorProto.BOOL, []), ("after", TensorProto.FLOAT, ["b", 2])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["before", "nothing"], ["after"])],
        "body",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
    )
    loop = helper.make_node("Loop", ["trips", "true", "plain"], ["logits"], body=body)
    numbers = [constant("trips", trips), constant("true", True, bool), constant("nothing", 0.0, np.float32)]
    return [loop], numbers


def images(count=3):
    return np.random.default_rng(0).random((count, 3, 4, 4), dtype=np.float32)


def test_file_of_others_answers_as_one_of_ones_own(tmp_path):
    path, expected = write(tmp_path / "a.onnx"), images().mean(axis=(2, 3))[:, :2]
    strange = open_file(path)
    assert strange.is_guest
    np.testing.assert_allclose(strange.run(images()), expected, rtol=1e-5)
    np.testing.assert_allclose(strange.run(images()[:1]), expected[:1], rtol=1e-5)  # it is asked again
    with trust.all_files():
        assert not open_file(path).is_guest
    trust.seal_content(path.read_bytes())
    own = open_file(path)
    assert not own.is_guest
    assert np.array_equal(own.run(images()), strange.run(images()))
    assert strange.metadata == own.metadata


def test_small_loops_and_expansions_run_and_large_ones_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(guest, "_SAMPLE_S", 0.5)
    expected = images().mean(axis=(2, 3))[:, :2]
    for make, honest, hostile in [(large, 100, 10**9), (looping, 3, 10**15)]:
        nodes, numbers = make(honest)
        fine = open_file(write(tmp_path / "fine.onnx", nodes, numbers, "logits"))
        np.testing.assert_allclose(fine.run(images()), expected, rtol=1e-5)
        nodes, numbers = make(hostile)
        file = open_file(write(tmp_path / "evil.onnx", nodes, numbers, "logits"))
        monkeypatch.setattr(guest, "_OPEN_S", 1.0)
        begun = time.monotonic()
        with pytest.raises(FileFormatError, match=r"evil\.onnx cannot be run: "):
            file.run(images())
        assert time.monotonic() - begun < 30
        monkeypatch.undo()
        monkeypatch.setattr(guest, "_SAMPLE_S", 0.5)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08" * 1000])
def test_what_is_no_onnx_file_is_named(tmp_path, content):
    (tmp_path / "evil.onnx").write_bytes(content)
    with pytest.raises(FileFormatError, match="is no ONNX file that ONNX Runtime can run: "):
        open_file(tmp_path / "evil.onnx")


def test_file_that_takes_too_long_to_open_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(guest, "_OPEN_S", 0.01)
    with pytest.raises(FileFormatError, match="did not answer within 0 s, or took too much memory; add trust=True"):
        open_file(write(tmp_path / "slow.onnx"))
