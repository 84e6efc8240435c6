"""Reads pickled NumPy data from strangers without executing anything.

The only globals that are resolved are those that NumPy needs to rebuild a plain array; any other name is refused before
it is looked up.
"""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from model_compression.errors import FileFormatError

_SCALAR_KINDS = "biufSUc"


def _dtype(*arguments: Any) -> np.dtype[Any]:
    """numpy.dtype for plain numbers and strings only: an object or structured dtype could hold more pickled things."""
    if not arguments or not isinstance(arguments[0], str):
        raise FileFormatError("a pickled dtype is given by something else than its name")
    dtype = np.dtype(arguments[0])
    if dtype.kind not in _SCALAR_KINDS + "O" or dtype.names is not None:
        raise FileFormatError(f"a pickled array has dtype {arguments[0]!r}; expected plain numbers")
    return dtype


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> np.ndarray[Any, Any]:
    if subtype is not np.ndarray or shape != (0,):
        raise FileFormatError("a pickled array is rebuilt in an unusual way; expected a plain numpy.ndarray")
    return np.ndarray((0,), np.int8)


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """What Python 3's pickle protocol 2 writes for bytes: _codecs.encode(text, 'latin1')."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise FileFormatError("pickled bytes are encoded in an unusual way; expected latin1")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _WhitelistUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise FileFormatError(f"the pickle asks for {module}.{name}, which is refused: only plain arrays are read")
        return _ALLOWED[(module, name)]

    def persistent_load(self, pid: Any) -> Any:
        raise FileFormatError("the pickle asks for a persistent object, which is refused: only plain arrays are read")


def loads(payload: bytes, source: str | Path, encoding: str = "ASCII") -> Any:
    """Unpickles numbers, strings, containers and plain arrays; ``source`` is the file that errors name.

    ``encoding`` is how Python 2 strings are decoded ("bytes" leaves them bytes). Raises FileFormatError for anything else
    and for truncated or corrupt input.
    """
    try:
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
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(f"{source} is not a readable pickle: {detail}") from None
