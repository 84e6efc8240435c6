"""safe_pickle: plain arrays come back, nothing is executed, and no bytes break it."""

import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from model_compression.core.errors import FileFormatError
from model_compression.core.safe_pickle import loads

NUMBERS = st.one_of(
    st_numpy.boolean_dtypes(),
    st_numpy.integer_dtypes(endianness="?"),
    st_numpy.floating_dtypes(endianness="?"),
    st_numpy.complex_number_dtypes(endianness="?"),
    st_numpy.byte_string_dtypes(min_len=1),
    st_numpy.unicode_string_dtypes(min_len=1),
)
ARRAYS = st_numpy.arrays(
    NUMBERS, st_numpy.array_shapes(min_dims=0, min_side=1, max_dims=4, max_side=5)
)  # an empty one is a call of bytes(), refused
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(value=PLAIN, protocol=st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_loads_returns_plain_values(value, protocol):
    assert loads(pickle.dumps(value, protocol), "x") == value


@given(array=ARRAYS, protocol=st.integers(0, 4), fortran=st.booleans())
def test_loads_returns_arrays_to_the_byte(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran and array.ndim else array
    payload = pickle.dumps({"w": array}, protocol)
    loaded, expected = loads(payload, "x")["w"], pickle.loads(payload)["w"]
    assert loaded.dtype == expected.dtype  # NumPy makes the byte order native
    assert loaded.shape == array.shape
    assert np.asarray(loaded).tobytes() == expected.tobytes() == array.astype(expected.dtype).tobytes()


@given(array=ARRAYS)
def test_loads_leaves_numpy_as_it_was(array):
    """A dtype from a file must not change the one that all arrays of the process share."""
    loads(pickle.dumps(array, 2), "x")
    for name in ("f4", "f8", "i4", "i8", "u2", "c8"):
        assert np.dtype(name).isnative
        assert np.dtype(name).byteorder == "="


def test_loads_returns_dictionaries_of_object_arrays():
    """What numpy.save makes of a dictionary: caffe-tensorflow's form."""
    whole = np.array({"conv1": {"weights": np.ones((2, 3), np.float32)}}, dtype=object)
    loaded = loads(pickle.dumps(whole, 2), "x").item()
    assert loaded["conv1"]["weights"].tolist() == [[1, 1, 1], [1, 1, 1]]


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"a": [bad]}, lambda bad: np.array([bad], dtype=object)])
def test_loads_executes_nothing(tmp_path, protocol, wrap):
    proof = tmp_path / "executed"
    payload = pickle.dumps(wrap(Call(os.mkdir, str(proof))), protocol)
    with pytest.raises(FileFormatError, match=r"mine: .*refused"):
        loads(payload, "mine")
    assert not proof.exists()
    pickle.loads(payload)
    assert proof.exists()


@pytest.mark.parametrize(
    "bad",
    [
        Call(eval, "1"),
        Call(getattr, np.ndarray, "tofile"),
        Call(np.load, "x"),
        Call(np.fromfile, "x"),
        Call(subprocess.Popen, "true"),
        Call(__import__, "os"),
        Call(np.frombuffer, b"x"),
        np.float64(1.0),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.ma.masked_array([1, 2], [0, 1]),
        np.random.default_rng(0),
        object(),
        {1, 2},
    ],
)
def test_loads_refuses_everything_else(bad):
    with pytest.raises(FileFormatError, match="mine"):
        loads(pickle.dumps(bad, 2), "mine")


def test_loads_refuses_a_dotted_name():
    """Protocol 4 looks attributes of attributes up: numpy.ndarray.tofile would be one."""
    payload = b"\x80\x04" + pickle.SHORT_BINUNICODE + b"\x05numpy" + pickle.SHORT_BINUNICODE + b"\x0endarray.tofile"
    with pytest.raises(FileFormatError, match="refused"):
        loads(payload + pickle.STACK_GLOBAL + b".", "x")


def test_loads_refuses_persistent_objects_and_extensions():
    for payload in (b"\x80\x02Pname\n.", b"\x80\x02\x82\x01.", b"\x80\x02" + b"K\x01Q."):
        with pytest.raises(FileFormatError, match="x"):
            loads(payload, "x")


ALLOCATOR = """
import resource, sys
from model_compression.core.errors import FileFormatError
from model_compression.core.safe_pickle import loads
payload = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    loads(payload, "x")
except FileFormatError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def claims(shape, data=b""):
    """The pickle of an array that claims ``shape``."""
    honest = pickle.dumps(np.zeros(3, np.uint8), 2)
    assert honest.count(b"K\x03\x85") == 1  # the shape (3,)
    return honest.replace(b"K\x03\x85", b"".join(number(size) for size in shape) + b"\x85")


def number(value):
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


@pytest.mark.parametrize(
    "payload",
    [
        claims((1 << 40,)),
        claims((1 << 62,)),
        claims((1 << 70,)),
        claims((-1,)),
        b"\x80\x02" + b"r" + b"\xff\xff\xff\x7f" + b".",
        b"\x80\x02N" + b"r" + b"\xff\xff\xff\x7f" + b".",
        b"\x80\x02N" + b"p999999999\n.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",
        b"\x80\x02B" + b"\xff\xff\xff\x7f" + b".",
        b"\x80\x02\x8b" + b"\xff\xff\xff\x7f" + b".",
        b"(" * 1_000_000,
        b"\x80\x02" + b"]" + b"(]" * 200_000 + b"e" * 200_000 + b".",
    ],
)
def test_loads_refuses_enormous_claims_in_little_memory(payload):
    done = subprocess.run([sys.executable, "-c", ALLOCATOR], input=payload, capture_output=True, check=True)
    if done.stdout:
        assert int(done.stdout) < 50_000  # kilobytes
    else:
        assert len(payload) > 100_000  # nothing wrong with a long one


@settings(max_examples=400, deadline=None)
@given(junk=st.binary(max_size=400), encoding=st.sampled_from(["ASCII", "bytes", "latin1"]))
def test_loads_survives_any_bytes(junk, encoding):
    refusal(junk, encoding)


@settings(max_examples=400, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from([opcode.code.encode("latin1") for opcode in pickletools.opcodes]),
            st.binary(min_size=1, max_size=6),
            st.sampled_from(
                [b"numpy\ndtype\n", b"numpy\nndarray\n", b"numpy.core.multiarray\n_reconstruct\n", b"u1\n"]
            ),
        ),
        max_size=30,
    )
)
def test_loads_survives_any_sequence_of_opcodes(parts):
    refusal(b"\x80\x02" + b"".join(parts) + b".", "latin1")


@settings(max_examples=400, deadline=None)
@given(
    array=ARRAYS,
    protocol=st.integers(0, 4),
    position=st.floats(0, 1, exclude_max=True),
    change=st.binary(min_size=1, max_size=6),
    encoding=st.sampled_from(["ASCII", "bytes", "latin1"]),
)
def test_loads_survives_any_change_of_an_array(array, protocol, position, change, encoding):
    payload = bytearray(pickle.dumps({"w": array}, protocol))
    start = int(position * len(payload))
    payload[start : start + len(change)] = change
    refusal(bytes(payload), encoding)


@given(array=ARRAYS, position=st.floats(0, 1, exclude_max=True))
def test_loads_refuses_every_truncation(array, position):
    payload = pickle.dumps({"w": array}, 2)
    message = refusal(payload[: int(position * len(payload))], "latin1")
    assert message is not None
    assert "mine" in message


def refusal(payload, encoding):
    """The message of the refusal, None when the payload was read; any other error fails the test."""
    try:
        loads(payload, "mine", encoding)
    except FileFormatError as error:
        return str(error)
    return None
