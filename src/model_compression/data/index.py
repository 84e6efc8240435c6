"""What was found in a folder or in tar shards, kept in the user's cache: names, sizes and times, read memory-mapped."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
from safetensors.numpy import save

from model_compression.core.errors import ModelCompressionError
from model_compression.core.files import user_path, write_atomically

WORTH_KEEPING = 10_000  # files: fewer are found anew in moments
_VERSION = "model-compression index 1"
_SETTLED_NS = 2_000_000_000  # what was written so shortly before may be written again within a tick of its clock
_MAX_HEADER_BYTES = 100_000_000
_LETTERS = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Names:
    """Byte strings by number, one after the other in ``text`` from ``starts`` (N+1,) on, which may be a mapped file."""

    text: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "Names":
        """Those in memory."""
        text, lengths = bytearray(), [0]
        for name in names:
            text += name
            lengths.append(len(name))
        return cls(np.frombuffer(bytes(text), dtype=np.uint8), np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Names"]) -> "Names":
        """Those of ``parts`` one after the other."""
        lengths = np.concatenate([[0], *(np.diff(part.starts) for part in parts)])
        return cls(np.concatenate([part.text for part in parts]), np.cumsum(lengths, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> bytes:
        return self.text[self.starts[number] : self.starts[number + 1]].tobytes()

    def text_of(self, number: int) -> str:
        """As text; bytes that are none are kept as they are."""
        return os.fsdecode(self[number])


def read_index(kind: str, key: str) -> tuple[dict[str, Any], Arrays] | None:
    """(header, arrays) that `write_index` wrote for ``key``; None where there are none, or they are damaged."""
    path = _path(kind, key)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER_BYTES:
                return None
            layout = json.loads(file.read(length))
        mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
        header = json.loads(layout.pop("__metadata__")[_VERSION])
        arrays = {
            name: np.asarray(mapped[slice(*part["data_offsets"])]).view(_LETTERS[part["dtype"]]).reshape(part["shape"])
            for name, part in layout.items()
        }
        digest = header.pop("sha256")
        return (header, arrays) if header.get("key") == key and digest == _digest(header, arrays) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_index(kind: str, key: str, header: dict[str, Any], arrays: Arrays, report: Callable[[str], None]) -> None:
    """Keeps an index; where the cache cannot be written, reports that the next start will take as long as this one."""
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.loads(json.dumps({**header, "key": key}))
    header["sha256"] = _digest(header, held)
    try:
        write_atomically(_path(kind, key), save(held, {_VERSION: json.dumps(header)}))
    except ModelCompressionError as error:
        report(
            f"the index of {key.partition(chr(0))[0]} is not kept, and made again by the next start: {error}; "
            "MODEL_COMPRESSION_CACHE names another folder"
        )


def is_settled(times_ns: Sequence[int] | npt.NDArray[np.int64], started_ns: int) -> bool:
    """Whether all ``times_ns`` are so long before ``started_ns`` that whoever writes later leaves another time."""
    return bool(np.max(times_ns, initial=0) < started_ns - _SETTLED_NS)


def now_ns() -> int:
    """The time of files that are written now."""
    return time.time_ns()


def _digest(header: dict[str, Any], arrays: Arrays) -> str:
    hasher = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        hasher.update(f"{name} {array.dtype.str} {len(array)}\n".encode())
        hasher.update(array.data)
    return hasher.hexdigest()


def _path(kind: str, key: str) -> Path:
    folder = user_path(os.environ.get("MODEL_COMPRESSION_CACHE") or platformdirs.user_cache_dir("model-compression"))
    name = hashlib.sha256(os.fsencode(key)).hexdigest()[:32]
    return folder / "indexes" / f"{kind}-{name}.safetensors"
