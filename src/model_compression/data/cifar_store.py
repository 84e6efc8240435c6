"""The store: CIFAR-10 or CIFAR-100 in one uncompressed file, written in one atomic step, read in a moment."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model_compression.core.errors import DataError, FileFormatError
from model_compression.core.files import write_atomically, writing_failed
from model_compression.data.cifar_content import Arrays, Cifar, shapes, verify

TAG_NAME = "CACHEDIR.TAG"
# What backup programs look for; it also tells that a folder is a store of ours, and not somebody's data.
TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache, made by model-compression.\n"
MAX_HEADER_BYTES = 65_536


def read_store(cifar: Cifar, path: Path) -> tuple[Arrays, str]:
    """Reads and verifies the file; returns (arrays, name of the source it was filled from).

    Raises FileNotFoundError when there is none, FileFormatError when it is not, to the byte, what was stored.
    """
    expected = shapes(cifar)
    if path.stat().st_size > sum(map(math.prod, expected.values())) + MAX_HEADER_BYTES:
        raise FileFormatError(f"{path} is larger than the dataset is")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays: Arrays = {name: file.get_tensor(name) for name in expected}
            source = (file.metadata() or {}).get("source", "")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise FileFormatError(f"{path} cannot be read: {error}") from error
    for name, shape in expected.items():
        if arrays[name].dtype != np.uint8 or arrays[name].shape != shape:
            raise FileFormatError(f"{path}: {name} has another type or shape than uint8, {shape}")
    try:
        verify(cifar, arrays, str(path))
    except DataError as error:
        raise FileFormatError(str(error)) from None
    return arrays, "".join(letter for letter in source if letter.isprintable())


@contextmanager
def lock_store(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Holds the store against other processes, and marks its folder as one; says so when it has to wait.

    The system frees the lock of a process that died. Raises ModelCompressionError when the folder cannot be written.
    """
    write_atomically(path.with_name(TAG_NAME), TAG)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"another process is filling {path.parent}: waiting for it")
        lock.acquire()
    except OSError as error:
        raise writing_failed(path.with_suffix(".lock"), error) from error
    try:
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def write_store(path: Path, arrays: Arrays, source: str) -> None:
    """Writes the file in one atomic step. Raises ModelCompressionError when the disk is full."""
    # One entry of metadata only: safetensors writes several in random order, and files would differ from run to run.
    write_atomically(path, save(arrays, metadata={"source": source}))
