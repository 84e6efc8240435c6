"""Caffe's binary files: both layer formats, every encoding of numbers, and everything that can be wrong."""

import builtins
import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_compression.classic import caffemodel
from model_compression.classic.caffemodel import read_blob, read_caffemodel
from model_compression.core.errors import FileFormatError, MissingExtraError


def read(tmp_path, payload):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(payload)
    return read_caffemodel(path)


def assert_same(layers, arrays):
    assert list(layers) == list(arrays)
    for name, (weights, bias) in arrays.items():
        assert layers[name].weights.dtype == np.float32
        np.testing.assert_array_equal(layers[name].weights, weights)
        np.testing.assert_array_equal(layers[name].bias, bias)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_read_caffemodel_gives_the_arrays_in_every_encoding(tmp_path, wire, tiny_arrays, legacy, double, packed):
    payload = wire.network(tiny_arrays, legacy=legacy, double=double, packed=packed)
    assert_same(read(tmp_path, payload), tiny_arrays)


def test_read_caffemodel_takes_current_layers_with_legacy_blobs(tmp_path, wire, tiny_arrays):
    parts = [
        wire.layer(name, "Convolution" if w.ndim == 4 else "InnerProduct", [wire.blob(a, legacy=True) for a in (w, b)])
        for name, (w, b) in tiny_arrays.items()
    ]
    assert_same(read(tmp_path, b"".join(parts)), tiny_arrays)


def test_read_caffemodel_turns_a_transposed_inner_product(tmp_path, wire):
    weights = np.arange(9.0).reshape(3, 3)
    transposed = wire.field(117, wire.field(6, 1))
    layers = read(tmp_path, wire.layer("ip1", "InnerProduct", [wire.blob(weights)], extra=transposed))
    np.testing.assert_array_equal(layers["ip1"].weights, weights.T)
    assert layers["ip1"].bias is None


def test_read_caffemodel_keeps_leading_ones_of_a_convolution(tmp_path, wire):
    layers = read(
        tmp_path, wire.layer("c", "Convolution", [wire.blob(np.ones((1, 1, 5, 5)), legacy=True)], legacy=True)
    )
    assert layers["c"].weights.shape == (1, 1, 5, 5)


@pytest.mark.parametrize("legacy", [False, True])
def test_read_caffemodel_truncated_at_every_byte_is_refused_or_lacks_whole_layers(tmp_path, wire, tiny_arrays, legacy):
    payload = wire.network(tiny_arrays, legacy=legacy)
    whole = read(tmp_path, payload)
    accepted = 0
    for length in range(len(payload)):
        try:
            layers = read(tmp_path, payload[:length])
        except FileFormatError as error:
            message = str(error)
        else:  # protobuf has no end mark: a cut between two layers is found when the layers are matched with a model
            assert_same(layers, {name: (whole[name].weights, whole[name].bias) for name in layers})
            accepted, message = accepted + 1, "net.caffemodel"
        assert "net.caffemodel" in message
        assert "\n" not in message
    assert accepted <= 6


def test_read_caffemodel_refuses_a_layer_cut_inside_and_says_which(tmp_path, wire, tiny_arrays):
    cut = wire.layer("ip1", "InnerProduct", [wire.blob(np.ones((2, 4)))[:-4]])
    with pytest.raises(FileFormatError, match=r"net\.caffemodel: layer 'ip1' weights cannot be read"):
        read(tmp_path, cut)


@pytest.mark.parametrize("shape", [(2, 3), (0,), (-2, -2), (2**62, 2**62), (2**40,), (1,) * 40, ()])
def test_read_caffemodel_refuses_a_shape_that_is_not_that_of_its_numbers(tmp_path, wire, shape):
    payload = wire.layer("ip1", "InnerProduct", [wire.blob(np.ones(4), shape)])
    with pytest.raises(FileFormatError, match=r"net\.caffemodel: layer 'ip1' weights claims shape .* holds 4 numbers"):
        read(tmp_path, payload)


def test_read_caffemodel_refuses_a_blob_without_shape(tmp_path, wire):
    with pytest.raises(FileFormatError, match="layer 'ip1' weights has no shape"):
        read(tmp_path, wire.layer("ip1", "InnerProduct", [wire.field(5, np.ones(2, "<f4").tobytes())]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_read_caffemodel_refuses_numbers_that_are_not_finite(tmp_path, wire, tiny_arrays, value):
    tiny_arrays["ip1"][1][1] = value
    with pytest.raises(FileFormatError, match="layer 'ip1' bias holds 1 values that are NaN or infinite"):
        read(tmp_path, wire.network(tiny_arrays))


def test_read_caffemodel_refuses_doubles_that_float32_does_not_have(tmp_path, wire):
    signalling_nan = np.frombuffer(b"\x01\0\0\0\0\0\xf0\x7f", "<f8")
    for value in (1e300, signalling_nan[0]):
        with pytest.raises(FileFormatError, match="NaN or infinite in float32"):
            read(tmp_path, wire.layer("ip1", "InnerProduct", [wire.blob([[value]], double=True)]))


@pytest.mark.parametrize(
    "name", ["", "../evil", "a/b", "a\\b", "a\nb", "a\x00b", "\x1b[31m", b"\xff\x85\x00", "x" * 300]
)
def test_read_caffemodel_refuses_names_that_could_do_harm(tmp_path, wire, name):
    with pytest.raises(FileFormatError, match=r"layer name .* is refused") as caught:
        read(tmp_path, wire.layer(name, "InnerProduct", [wire.blob(np.ones((1, 1)))]))
    assert str(caught.value).isprintable()


def test_read_caffemodel_refuses_two_layers_of_one_name(tmp_path, wire, tiny_arrays):
    with pytest.raises(FileFormatError, match="two layers with weights are named 'conv1'"):
        read(tmp_path, wire.network(tiny_arrays) + wire.network(tiny_arrays, legacy=True))


def test_read_caffemodel_names_every_layer_that_it_cannot_take(tmp_path, wire, tiny_arrays):
    scale = [wire.blob(np.ones(2))] * 3
    payload = wire.network(tiny_arrays) + wire.layer("bn1", "BatchNorm", scale) + wire.layer("c", "Convolution", scale)
    with pytest.raises(FileFormatError, match=r"'bn1' \(BatchNorm, 3 blobs\), 'c' \(Convolution, 3 blobs\)"):
        read(tmp_path, payload)
    with pytest.raises(FileFormatError, match=r"'bn1' \(type 99, 3 blobs\)"):
        read(tmp_path, wire.layer("bn1", "BatchNorm", scale, legacy=True))


@pytest.mark.parametrize("depth", [200, 100_000])
def test_read_caffemodel_survives_deep_nesting(tmp_path, wire, tiny_arrays, depth):
    groups = b"\x0b" * depth + b"\x0c" * depth  # groups in groups, of a field that nobody knows
    for payload in (groups, wire.field(100, groups), wire.layer("a", "InnerProduct", [groups])):
        with pytest.raises(FileFormatError, match=r"net\.caffemodel"):
            read(tmp_path, payload)
    nested = b""
    for _ in range(500):
        nested = wire.field(100, nested)
    with pytest.raises(FileFormatError, match="no layer with weights"):
        read(tmp_path, nested)


def test_read_caffemodel_refuses_huge_claims(tmp_path, wire):
    for payload in (
        wire.varint(100 << 3 | 2) + wire.varint(2**31 - 1) + b"short",
        wire.varint(100 << 3 | 2) + wire.varint(2**63),
        wire.layer("a", "InnerProduct", [wire.varint(5 << 3 | 2) + wire.varint(2**40)]),
    ):
        with pytest.raises(FileFormatError, match="truncated or corrupt"):
            read(tmp_path, payload)
    with pytest.raises(FileFormatError, match="claims 20000 layers"):
        read(tmp_path, wire.field(2, b"") * 20_000)


def test_read_caffemodel_refuses_what_is_no_file_of_caffe(tmp_path, wire, monkeypatch):
    for payload, complaint in (
        (b"", "no layer with weights"),
        (b'name: "LeNet"\nlayer { name: "data" }', "not a Caffe network"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 snapshot"),
    ):
        with pytest.raises(FileFormatError, match=complaint):
            read(tmp_path, payload)
    with pytest.raises(FileFormatError, match="no such file"):
        read_caffemodel(tmp_path / "absent.caffemodel")
    with pytest.raises(FileFormatError, match="is a folder"):
        read_caffemodel(tmp_path)
    monkeypatch.setattr("model_compression.classic.caffe_layers.MAX_FILE_BYTES", 4)
    with pytest.raises(FileFormatError, match="larger than"):
        read(tmp_path, b"12345")


def test_read_caffemodel_without_protobuf_names_the_extra(tmp_path, wire, tiny_arrays, monkeypatch):
    def no_protobuf(name, *args, **kwargs):
        if name.startswith("google"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_protobuf)
    caffemodel.message_classes.cache_clear()
    with pytest.raises(MissingExtraError, match=r"model-compression\[caffe\]"):
        read(tmp_path, wire.network(tiny_arrays))


@pytest.mark.parametrize("options", [{"legacy": True}, {}, {"double": True}])
def test_read_blob_gives_a_mean_image(tmp_path, wire, options):
    mean = np.random.default_rng(0).uniform(0, 255, (3, 4, 5)).astype(np.float32)
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(wire.blob(mean, **options))
    np.testing.assert_array_equal(read_blob(path).reshape(3, 4, 5), mean)
    for length in range(len(path.read_bytes())):
        path.write_bytes(wire.blob(mean, **options)[:length])
        with pytest.raises(FileFormatError, match=r"mean\.binaryproto"):
            read_blob(path)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_caffemodel_never_fails_but_by_its_own_error(tmp_path, wire, tiny_arrays, data):
    payload = bytearray(wire.network(tiny_arrays, legacy=data.draw(st.booleans()), packed=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        payload[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    for reader in (read_caffemodel, read_blob):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(payload)
        with contextlib.suppress(FileFormatError):
            reader(path)
