"""What every importer hands over: named layers in Caffe's own layout, with the checks that they share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_compression.core.errors import FileFormatError, NotThereError

FloatArray: TypeAlias = NDArray[np.float32]
ImageShape: TypeAlias = tuple[int, int, int]  # (C, H, W)

MAX_FILE_BYTES = 2**28  # a network in network with inner products of 4,096 units takes 200 MB
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class CaffeLayer:
    """A convolution (out, in, H, W) or an inner product (out, in) over a (C, H, W) flattening; its bias (out,)."""

    weights: FloatArray
    bias: FloatArray | None


def read_bounded(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file of at most MAX_FILE_BYTES; raises FileFormatError for any other."""
    payload = _read(Path(path), MAX_FILE_BYTES + 1)
    if len(payload) > MAX_FILE_BYTES:
        raise FileFormatError(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB, the most that an importer reads")
    return payload


def starts_with(path: str | os.PathLike[str], magic: bytes) -> bool:
    """Whether a file begins with ``magic``; raises FileFormatError when it cannot be read."""
    return _read(Path(path), len(magic)) == magic


def _read(path: Path, count: int) -> bytes:
    if not path.exists():
        raise NotThereError(f"{path}: no such file")
    if not path.is_file():
        raise FileFormatError(f"{path} is a folder or a device; expected a file")
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}") from error


def check_name(name: object, source: Path) -> str:
    """``name`` if it may become a layer's name; refuses control characters, path separators and what is no text."""
    if not isinstance(name, str):
        raise FileFormatError(f"{source}: a layer's name is of type {type(name).__name__}; expected text")
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable() or "/" in name or "\\" in name:
        shown = ascii(name[:MAX_NAME_LENGTH])
        raise FileFormatError(
            f"{source}: the layer name {shown} is refused; expected 1 to {MAX_NAME_LENGTH} printable characters "
            "without / and \\"
        )
    return name


def check_floats(values: NDArray[Any], what: str, source: Path) -> FloatArray:
    """``values`` as float32; refuses integers, no numbers at all, NaN and infinity (``what`` names the array)."""
    if values.dtype.kind != "f":
        raise FileFormatError(f"{source}: {what} has dtype {values.dtype}; expected floating point numbers")
    if not values.size:
        raise FileFormatError(f"{source}: {what} is empty, of shape {values.shape}")
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a double beyond float32 becomes infinite, and is refused with the others
        floats = np.asarray(values, dtype=np.float32)
    bad = int(floats.size - np.isfinite(floats).sum())
    if bad:
        raise FileFormatError(
            f"{source}: {what} holds {bad} values that are NaN or infinite in float32; the file is damaged or its "
            "training diverged"
        )
    return floats


def check_layers(layers: Mapping[str, CaffeLayer], source: Path) -> dict[str, CaffeLayer]:
    """``layers``, of which there must be some."""
    if not layers:
        raise FileFormatError(f"{source} holds no layer with weights; it is empty, or a network without training")
    return dict(layers)
