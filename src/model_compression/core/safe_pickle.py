"""Reads pickled NumPy data from strangers without executing anything.

The only globals that are resolved are those that NumPy needs to rebuild a plain array; any other name is refused before
it is looked up.
"""

import io
import math
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from model_compression.core.errors import FileFormatError, reason_of

_PLAIN_DTYPE = re.compile(r"[<>=|]?[biufcSUO][0-9]{0,9}")  # numbers, strings, and objects that are pickled themselves
_BYTE_ORDERS = ("<", ">", "=", "|", b"<", b">", b"=", b"|")  # bytes: a Python 2 string, when strings are left bytes
_NDARRAY = "numpy.ndarray"  # stands for the class: calling the real one would allocate whatever a stranger asks for


class _Dtype:
    """A dtype of plain numbers, strings or objects: a structured one could hold more pickled things."""

    def __init__(self, *arguments: Any):
        name = arguments[0] if arguments else None
        name = name.decode("ascii") if isinstance(name, bytes) else name  # a Python 2 string left bytes
        if not isinstance(name, str):
            raise FileFormatError("a pickled dtype is given by something else than its name")
        if not _PLAIN_DTYPE.fullmatch(name):
            raise FileFormatError(f"a pickled array has dtype {name[:40]!a}; expected plain numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """Takes the byte order; NumPy's own __setstate__ would also take flags and fields, which must not be forged."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _BYTE_ORDERS:
            raise FileFormatError("a pickled dtype has an unusual state; expected a byte order")
        if any(part is not None for part in state[2:5]):
            raise FileFormatError("a pickled array has a structured dtype; expected plain numbers")
        order = state[1] if isinstance(state[1], str) else state[1].decode("ascii")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]


class _Array(np.ndarray[Any, Any]):
    """A plain array whose claimed size is compared with its data before anything is allocated."""

    def __setstate__(self, state: Any, /) -> None:
        version, shape, kind, is_fortran, data = state
        if not isinstance(kind, _Dtype) or not isinstance(shape, tuple):
            raise FileFormatError("a pickled array has an unusual state; expected shape, dtype and data")
        if len(shape) > 32 or any(type(size) is not int or size < 0 for size in shape):
            raise FileFormatError("a pickled array has an impossible shape")
        count = math.prod(shape)
        claimed = count if kind.dtype.kind == "O" else count * kind.dtype.itemsize
        if len(data) != claimed:
            raise FileFormatError(
                f"a pickled array claims shape {shape} but holds {len(data)} of {claimed} items or bytes"
            )
        super().__setstate__((version, shape, kind.dtype, is_fortran, data))


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> _Array:
    if subtype is not _NDARRAY or shape != (0,):
        raise FileFormatError("a pickled array is rebuilt in an unusual way; expected a plain numpy.ndarray")
    return _Array((0,), np.int8)


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """What Python 3's pickle protocol 2 writes for bytes: _codecs.encode(text, 'latin1')."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise FileFormatError("pickled bytes are encoded in an unusual way; expected latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _WhitelistUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            asked = ascii(f"{module}.{name}")[1:-1][:200]  # a stranger's text: no control character reaches a terminal
            raise FileFormatError(f"the pickle asks for {asked}, which is refused: only plain arrays are read")
        return _ALLOWED[(module, name)]

    def persistent_load(self, pid: Any) -> Any:
        raise FileFormatError("the pickle asks for a persistent object, which is refused: only plain arrays are read")


def _check_memo(payload: bytes) -> None:
    """Refuses a memo index that no honest pickle has: the unpickler would fill a table of that length."""
    for opcode, argument, _ in pickletools.genops(payload):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(payload):
            raise FileFormatError(f"the pickle stores an object under the number {argument}, which is refused")


def check_torch_file(payload: bytes, source: str | Path) -> None:
    """Raises FileFormatError for a file that torch.load would fill memory with, far beyond the size of the file.

    PyTorch writes its archives without compression, and no buffer of zeros that a file only names the length of.
    """
    try:
        pickles = [payload]  # of PyTorch before 1.6: several, one behind the other
        if payload[:4] == b"PK\x03\x04":  # as torch.load tells them apart
            with zipfile.ZipFile(io.BytesIO(payload)) as archive:
                members = archive.infolist()
                # The text of a TorchScript archive is compressed, which torch.load does not read.
                read = [one for one in members if one.filename.split("/")[1:2] != ["code"]]
                packed = [one.filename for one in read if one.compress_type != zipfile.ZIP_STORED]
                if packed:
                    raise FileFormatError(
                        f"{source} holds {ascii(packed[0])[1:-1][:80]} compressed, which PyTorch never writes; "
                        "a file of some MB could take all memory"
                    )
                pickles = [archive.read(one) for one in members if one.filename.endswith(".pkl")]
        if any(b"bytearray\n" in text for text in pickles):  # how a pickle names it, whatever stands around it
            raise FileFormatError(f"{source} asks for a buffer, which no weights need; save the weights alone")
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise FileFormatError(f"{source} is no readable archive: {error}") from None


def loads(payload: bytes, source: str | Path, encoding: str = "ASCII") -> Any:
    """Unpickles numbers, strings, containers and plain arrays; ``source`` is the file that errors name.

    Arrays come as a subclass of numpy.ndarray; np.asarray gives the plain one. ``encoding`` is how Python 2 strings are
    decoded ("bytes" leaves them bytes). Raises FileFormatError for anything else and for truncated or corrupt input.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes and old dtype names in the file, which nobody can mend
            _check_memo(payload)
            return _WhitelistUnpickler(io.BytesIO(payload), encoding=encoding).load()
    except FileFormatError as error:
        raise FileFormatError(f"{source}: {error}") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        ImportError,
        IndexError,
        KeyError,
        MemoryError,
        OverflowError,
        RecursionError,
        TypeError,
        UnicodeDecodeError,
        ValueError,
        struct.error,
    ) as error:
        raise FileFormatError(f"{source} is not a readable pickle: {ascii(reason_of(error))[1:-1]}") from None
