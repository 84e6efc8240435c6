"""Safetensors files that notice damage: the SHA-256 of every tensor and of the whole file are in their header.

The digests find what goes wrong on a disk or a line, not what somebody does on purpose. Nothing in such a file could
execute.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model_compression.core.errors import FileFormatError

_SEAL = "sha256"
_BLANK = "0" * 64  # stands for the digest of the whole while that is computed
_MAX_HEADER_BYTES = 100_000_000  # as safetensors has it
# The header is JSON whose one value is JSON in a string: quotes inside are escaped.
_WHOLE = re.compile(rb'\\"whole\\": \\"([0-9a-f]{64})\\"')


def seal(tensors: dict[str, Tensor], key: str, header: dict[str, Any]) -> bytes:
    """The bytes of a file with ``tensors`` and, under ``key``, ``header`` (plain values) and the digests.

    One key: safetensors writes several in a random order, and equal contents should have equal files.
    """
    tensors = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digests = {name: _digest(tensor) for name, tensor in sorted(tensors.items())}
    text = json.dumps({_SEAL: {"whole": _BLANK, "tensors": digests}, **header})
    try:
        payload = save(tensors, {key: text})
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, which no class of Python's stands for
            raise
        raise MemoryError("not enough memory to put a file together") from None
    return payload.replace(_BLANK.encode(), hashlib.sha256(payload).hexdigest().encode(), 1)


def save_in_order(tensors: dict[str, Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """The bytes of a safetensors file whose ``metadata`` are in order: equal contents have equal files."""
    payload = save(tensors, dict(metadata) if metadata else None)
    end = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:end])
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + payload[end:]


def unseal(path: Path, key: str, *, sealed: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, header) of a file that `seal` made, or, if not ``sealed``, of one without digests.

    The tensors are no view of the file. Raises FileFormatError when it cannot be read, has no ``key``, or is damaged;
    the tensor is named where it is one.
    """
    try:
        payload = path.read_bytes()
        tensors = load(payload)
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    metadata = _metadata(payload)
    if key not in metadata:
        raise FileFormatError(f"{path}: format is {next(iter(metadata), 'none')!r}, expected {key!r}")
    try:
        header = json.loads(metadata[key])
        if sealed:
            _check(path, payload, tensors, header.pop(_SEAL))
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: the header is damaged: {error}") from None
    return tensors, header


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` without memory in common, as tied weights have: safetensors writes each under one name only."""
    held: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in held else tensor
        held.add(place)
    return apart


def _metadata(payload: bytes) -> dict[str, str]:
    """What safetensors, which has read the payload before, keeps for its users."""
    length = int.from_bytes(payload[:8], "little")
    assert length <= _MAX_HEADER_BYTES
    metadata: dict[str, str] = json.loads(payload[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _check(path: Path, payload: bytes, tensors: dict[str, Tensor], digests: dict[str, Any]) -> None:
    length = int.from_bytes(payload[:8], "little")
    blank = _WHOLE.sub(lambda found: found[0].replace(found[1], _BLANK.encode()), payload[: 8 + length], count=1)
    whole = hashlib.sha256(blank)
    whole.update(memoryview(payload)[8 + length :])
    if whole.hexdigest() == digests["whole"]:
        return
    wrong = [name for name, tensor in tensors.items() if digests["tensors"].get(name) != _digest(tensor)]
    what = f"the content of {wrong[0]!r} is not what was written" if wrong else "it is not what was written"
    raise FileFormatError(f"{path} is damaged: {what} (SHA-256)")


def _digest(tensor: Tensor) -> str:
    """SHA-256 of a contiguous tensor's type, shape and bytes."""
    hasher = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
