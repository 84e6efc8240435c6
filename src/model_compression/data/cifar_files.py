"""CIFAR-10 and CIFAR-100 as people have them: official folders and archives, read in place, nothing is extracted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model_compression.core.errors import DataError, FileFormatError
from model_compression.core.options import setting
from model_compression.core.safe_pickle import loads
from model_compression.data.cifar_content import IMAGE_BYTES, Arrays, Bytes, Cifar, assemble, records_of
from model_compression.data.tar_members import read_members


def read_official(cifar: Cifar, path: Path) -> tuple[Arrays, Path] | None:
    """Reads the archive or folder that ``path`` is or contains; returns (arrays, what was read).

    None when ``path`` can become a store: it is not there, or an empty folder. Raises FileFormatError for a file that
    is corrupt, truncated or no archive, DataError for a folder of other files; does not verify the content.
    """
    if path.is_file():
        return read_archive(cifar, path), path
    for name, ending in _forms(cifar):
        for folder in (path, path / name):
            if any((folder / f"{file}{ending}").is_file() for file in cifar.files):
                return assemble(cifar, _read_folder(cifar, folder, ending), str(folder)), folder
    for archive in cifar.archives:
        if (path / archive).is_file():
            return read_archive(cifar, path / archive), path / archive
    _refuse_foreign(cifar, path)
    return None


def read_archive(cifar: Cifar, path: Path) -> Arrays:
    """Reads an official archive, as `read_official` does."""
    members = {f"{folder}/{name}{ending}": (name, ending) for folder, ending in _forms(cifar) for name in cifar.files}

    def files() -> Iterator[tuple[str, Bytes]]:
        limits = {member: _max_bytes(cifar, name, ending) for member, (name, ending) in members.items()}
        for member, payload in read_members(path, limits):
            name, ending = members[member]
            yield name, _decode(cifar, name, ending, payload, f"{path}: {member}")

    return assemble(cifar, files(), str(path))


def _forms(cifar: Cifar) -> tuple[tuple[str, str], tuple[str, str]]:
    """(folder, ending of the files in it) of the Python and the binary form."""
    return (cifar.python_folder, ""), (cifar.binary_folder, ".bin")


def _max_bytes(cifar: Cifar, name: str, ending: str) -> int:
    """The largest size that a file can have; a pickle also holds names of images and lists of labels."""
    count = cifar.files[name]
    return count * (IMAGE_BYTES + len(cifar.labels)) if ending else count * (IMAGE_BYTES + 128) + 65_536


def _read_folder(cifar: Cifar, folder: Path, ending: str) -> Iterator[tuple[str, Bytes]]:
    for name in cifar.files:
        file, limit = folder / f"{name}{ending}", _max_bytes(cifar, name, ending)
        if not file.is_file():
            continue  # assemble names all that are missing
        if file.stat().st_size > limit:
            raise FileFormatError(f"{file} has {file.stat().st_size} bytes; expected at most {limit}: fetch it again")
        yield name, _decode(cifar, name, ending, file.read_bytes(), str(file))


def _decode(cifar: Cifar, name: str, ending: str, payload: bytes, source: str) -> Bytes:
    """The records of one official file. Raises FileFormatError."""
    if not ending:
        return records_from_pickle(cifar, cifar.files[name], payload, source)
    expected = _max_bytes(cifar, name, ending)
    if len(payload) != expected:
        raise FileFormatError(
            f"{source} has {len(payload)} bytes, expected {expected}; it is truncated or something else: fetch it again"
        )
    return np.frombuffer(payload, dtype=np.uint8).reshape(cifar.files[name], -1)


def records_from_pickle(cifar: Cifar, count: int, payload: bytes, source: str) -> Bytes:
    """The records of a file of the Python archive, {data: (count, 3072) uint8, labels: lists}; executes nothing.

    Raises FileFormatError for anything else.
    """
    values = loads(payload, source, encoding="bytes")
    if not isinstance(values, dict):
        raise FileFormatError(f"{source} holds a {type(values).__name__}; expected the dictionary of {cifar.name}")
    values = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in values.items()}
    pixels, *labels = (values.get(key) for key in ("data", *cifar.labels))
    if not isinstance(pixels, np.ndarray) or not all(isinstance(column, list | np.ndarray) for column in labels):
        raise FileFormatError(
            f"{source} has the keys {sorted(map(str, values))[:8]}; expected data, {' and '.join(cifar.labels)} of "
            f"{cifar.name}"
        )
    return records_of(cifar, count, labels, np.asarray(pixels), source)


def _refuse_foreign(cifar: Cifar, folder: Path) -> None:
    if not folder.exists():
        if folder.name.endswith((".gz", ".tgz", ".tar", ".bin")) or folder.name in dict(_forms(cifar)):
            raise DataError(f"there is no {folder}; give the path of what you have: {cifar.official_forms}")
        return
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if names:
        found = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise DataError(
            f"{folder} holds {found}; expected {cifar.official_forms}, or an empty or new folder to store {cifar.name} "
            f"in; give such a folder, or leave {setting('data_dir')} out to use the cache"
        )
