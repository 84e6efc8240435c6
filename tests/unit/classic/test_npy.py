"""caffe-tensorflow's .npy files: axes, round trips, what Python 2 wrote, and what must never be executed."""

import contextlib
import io
import pickle
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_compression.classic.caffe_layers import CaffeLayer
from model_compression.classic.npy import read_npy, read_plain_npy, write_npy
from model_compression.core.errors import FileFormatError, ModelCompressionError

FLATTENED = {"ip1": (3, 2, 4)}


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    shapes = {"conv1": (5, 2, 3, 4), "ip1": (6, 24), "ip2": (7, 6)}
    return {
        name: CaffeLayer(
            weights=rng.normal(size=shape).astype(np.float32), bias=rng.normal(size=shape[0]).astype(np.float32)
        )
        for name, shape in shapes.items()
    }


def save(path, content):
    np.save(path, np.array(content, dtype=object) if isinstance(content, dict) else content, allow_pickle=True)


def with_pickle(payload):
    """A .npy file of one object whose pickle is ``payload``."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    return stream.getvalue() + payload


def test_write_npy_is_what_plain_numpy_reads_as_caffe_tensorflow_has_it(tmp_path, layers):
    write_npy(tmp_path / "net.npy", layers, FLATTENED)
    content = np.load(tmp_path / "net.npy", allow_pickle=True).item()
    assert [type(content), list(content), list(content["conv1"])] == [dict, list(layers), ["weights", "biases"]]
    assert type(content["conv1"]["weights"]) is np.ndarray
    conv, first, second = (content[name]["weights"] for name in layers)
    assert [conv.shape, first.shape, second.shape] == [(3, 4, 2, 5), (24, 6), (6, 7)]
    for out, channel, row, column in np.ndindex(5, 2, 3, 4):
        assert conv[row, column, channel, out] == layers["conv1"].weights[out, channel, row, column]
    for out, channel, row, column in np.ndindex(6, 3, 2, 4):
        flat_hwc, flat_chw = row * 12 + column * 3 + channel, channel * 8 + row * 4 + column
        assert first[flat_hwc, out] == layers["ip1"].weights[out, flat_chw]
    np.testing.assert_array_equal(second, layers["ip2"].weights.T)


def test_npy_round_trip_is_exact_both_ways(tmp_path, layers):
    write_npy(tmp_path / "a.npy", layers, FLATTENED)
    again = read_npy(tmp_path / "a.npy", FLATTENED)
    assert list(again) == list(layers)
    for name, layer in layers.items():
        np.testing.assert_array_equal(again[name].weights, layer.weights)
        np.testing.assert_array_equal(again[name].bias, layer.bias)
        assert again[name].weights.flags.c_contiguous
    write_npy(tmp_path / "b.npy", again, FLATTENED)
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("as_list", [False, True])
def test_read_npy_takes_lists_other_protocols_other_floats_and_fortran_order(tmp_path, protocol, as_list):
    weights = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    entry = [weights, np.ones(3, ">f4")] if as_list else {"weights": weights, "biases": np.ones(3, ">f4")}
    payload = pickle.dumps(np.array({"ip2": entry}, dtype=object), protocol)
    (tmp_path / "net.npy").write_bytes(with_pickle(payload))
    layer = read_npy(tmp_path / "net.npy")["ip2"]
    np.testing.assert_array_equal(layer.weights, weights.T)
    np.testing.assert_array_equal(layer.bias, np.ones(3))
    assert layer.weights.dtype == layer.bias.dtype == np.float32


def test_read_npy_takes_what_python_2_wrote(tmp_path):
    def text(value):
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING, which Python 3 no longer writes

    def array(shape, kind, data):
        size = b"".join(b"K" + bytes([n]) for n in shape)
        dtype = b"cnumpy\ndtype\n(" + text(kind) + b"K\x00K\x01tR(K\x03" + text(b"<" if kind == b"f4" else b"|")
        dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
        return start + b"(K\x01(" + size + b"t" + dtype + b"\x89" + data + b"tb"

    values = np.array([[0.1, 200.0, -3e-8]], "<f4")
    entry = b"}(" + text(b"weights") + array((1, 3), b"f4", text(values.tobytes()))
    entry += text(b"biases") + array((3,), b"f4", text(values.tobytes())) + b"u"
    content = b"](}(" + text(b"ip2") + entry + b"ue"
    (tmp_path / "net.npy").write_bytes(with_pickle(b"\x80\x02" + array((), b"O8", content) + b"."))
    layer = read_npy(tmp_path / "net.npy")["ip2"]
    np.testing.assert_array_equal(layer.weights, values.T)
    np.testing.assert_array_equal(layer.bias, values[0])


def test_npy_layer_without_bias_stays_without(tmp_path, layers):
    write_npy(tmp_path / "net.npy", {"c": CaffeLayer(weights=layers["conv1"].weights, bias=None)})
    assert read_npy(tmp_path / "net.npy")["c"].bias is None


@pytest.mark.parametrize("place", ["whole", "layer", "array"])
def test_read_npy_never_executes_a_pickle(tmp_path, place):
    witness = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    content = {"whole": Evil(), "layer": {"ip1": Evil()}, "array": {"ip1": {"weights": Evil(), "biases": Evil()}}}[
        place
    ]
    (tmp_path / "net.npy").write_bytes(with_pickle(pickle.dumps(np.array(content, dtype=object), 4)))
    with pytest.raises(FileFormatError, match=r"net\.npy: the pickle asks for _?io\.open, which is refused"):
        read_npy(tmp_path / "net.npy")
    assert not witness.exists()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"\x80\x02cnumpy\nndarray\n(K\x01t\x85R.", "not callable"),  # would allocate what the file asks for
        (b"\x80\x02Nr" + struct.pack("<I", 2**31) + b".", "under the number 2147483648"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "not a readable pickle"),
        (b"\x80\x04" + b"]" * 200_000, "not a readable pickle"),
        (b"\x80\x02cx\x1b[31m\ny\n.", "asks for x.x1b"),
        (b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x0001tR.", "dtype '01'; expected plain numbers"),
        (b"\x80\x02cnumpy\ndtype\n(X\x05\x00\x00\x00i4,i4tR.", "dtype 'i4,i4'; expected plain numbers"),
        (b"\x80\x02co\\d\ny\n.", "which is refused"),
        (pickle.dumps([1]), "a pickled list; expected a dictionary"),
        (b"", "not a readable pickle"),
    ],
)
def test_read_npy_refuses_hostile_pickles(tmp_path, payload, complaint):
    (tmp_path / "net.npy").write_bytes(with_pickle(payload))
    with pytest.raises(FileFormatError, match=complaint) as caught:
        read_npy(tmp_path / "net.npy")
    assert "net.npy" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("count", [2**20, 2**40])
@pytest.mark.parametrize("kind", ["f4", "O"])
def test_read_npy_refuses_an_array_that_claims_more_than_it_holds(tmp_path, count, kind):
    class Claim:
        def __reduce__(self):
            rebuild, arguments, state = np.zeros(1, kind).__reduce__()
            return rebuild, arguments, (state[0], (count,), *state[2:])

    (tmp_path / "net.npy").write_bytes(with_pickle(pickle.dumps({"ip1": {"weights": Claim()}}, 4)))
    with pytest.raises(FileFormatError, match=r"net\.npy: a pickled array claims shape"):
        read_npy(tmp_path / "net.npy")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({}, "no layer with weights"),
        ({"ip1": {"weights": np.ones((2, 2)), "mean": np.ones(2)}}, "layer 'ip1' holds 'mean'"),
        ({"ip1": {"biases": np.ones(2)}}, "layer 'ip1' holds no weights"),
        ({"ip1": {"weights": [1.0, 2.0]}}, "layer 'ip1' weights are of type list"),
        ({"ip1": np.ones(2)}, "layer 'ip1' is of type _Array|layer 'ip1' is of type ndarray"),
        ({"ip1": {"weights": np.ones((2, 2), int)}}, "layer 'ip1' weights has dtype int64"),
        ({"ip1": {"weights": np.ones((2, 0))}}, r"layer 'ip1' weights is empty, of shape \(2, 0\)"),
        ({"ip1": {"weights": np.array([[1, np.nan]])}}, "layer 'ip1' weights holds 1 values that are NaN"),
        ({"ip1": {"weights": np.array([[1, 1e300]])}}, "layer 'ip1' weights holds 1 values that are NaN or infinite"),
        ({"ip1": {"weights": np.ones((1, 1)), "biases": np.array([np.inf])}}, "layer 'ip1' biases holds 1"),
        ({"a/b": {"weights": np.ones((2, 2))}}, "layer name 'a/b' is refused"),
        ({"a\n": {"weights": np.ones((2, 2))}}, r"layer name 'a\\n' is refused"),
        ({3: {"weights": np.ones((2, 2))}}, "a layer's name is of type int"),
        (np.ones(3), "holds a plain array of float64"),
    ],
)
def test_read_npy_names_what_is_wrong(tmp_path, content, complaint):
    save(tmp_path / "net.npy", content)
    with pytest.raises(FileFormatError, match=complaint) as caught:
        read_npy(tmp_path / "net.npy")
    assert "net.npy" in str(caught.value)
    assert str(caught.value).isprintable()


def test_read_npy_refuses_a_file_truncated_at_any_byte(tmp_path):
    path = tmp_path / "net.npy"
    save(path, {"ip1": {"weights": np.ones((2, 2), np.float32), "biases": np.ones(2, np.float32)}})
    payload = path.read_bytes()
    for length in range(len(payload)):
        path.write_bytes(payload[:length])
        with pytest.raises(FileFormatError, match=r"net\.npy"):
            read_npy(path)


def test_write_npy_refuses_what_it_could_not_read(tmp_path, layers):
    broken = CaffeLayer(weights=np.full((2, 2), np.nan, np.float32), bias=None)
    for content in ({}, {"a/b": layers["ip2"]}, {"a": broken}):
        with pytest.raises(FileFormatError):
            write_npy(tmp_path / "net.npy", content)
    with pytest.raises(ModelCompressionError, match="cannot write"):
        write_npy(tmp_path, layers)
    assert list(tmp_path.iterdir()) == []


def header(descr, shape):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (header("<f4", "(1000000000000,)"), "claims 4000000000000 bytes"),
        (header("<f4", "(99999999999999999999, 0)"), "impossible shape"),
        (header("<f4", "(-1,)"), "impossible shape"),
        (header("<f4", "(True,)"), "impossible shape"),
        (header("<f4", "(" * 5000), "not a readable .npy file"),
        (header("O", "()") + b"cos\nsystem\n(S'true'\ntR.", "holds object"),
        (header("<U4", "()") + b"x" * 16, "holds <U4"),
        (b"\x93NUMPY\x03\x00" + header("<f4", "()")[8:], "format version"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "not a readable .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 65535, "not a readable .npy file"),
    ],
)
def test_read_plain_npy_refuses_hostile_headers(tmp_path, payload, complaint):
    (tmp_path / "mean.npy").write_bytes(payload)
    with pytest.raises(FileFormatError, match=complaint):
        read_plain_npy(tmp_path / "mean.npy")


@pytest.mark.parametrize(
    "array", [np.ones((2, 3), ">f8"), np.asfortranarray(np.arange(6).reshape(2, 3)), np.float32(3)]
)
def test_read_plain_npy_gives_what_numpy_wrote(tmp_path, array):
    np.save(tmp_path / "mean.npy", array)
    np.testing.assert_array_equal(read_plain_npy(tmp_path / "mean.npy"), array)


def test_read_plain_npy_takes_a_python_2_header_without_a_warning(tmp_path):
    (tmp_path / "mean.npy").write_bytes(header("<f4", "(1L, 2L)") + np.ones(2, "<f4").tobytes())
    assert read_plain_npy(tmp_path / "mean.npy").shape == (1, 2)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_npy_never_fails_but_by_its_own_error(tmp_path, data):
    content = {"ip1": {"weights": np.ones((2, 2), np.float32), "biases": np.ones(2, np.float32)}}
    protocol = data.draw(st.sampled_from([0, 2, 4]))
    payload = bytearray(with_pickle(pickle.dumps(np.array(content, dtype=object), protocol)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        payload[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    (tmp_path / "net.npy").write_bytes(payload)
    for reader in (read_npy, read_plain_npy):
        with contextlib.suppress(FileFormatError):
            reader(tmp_path / "net.npy")
