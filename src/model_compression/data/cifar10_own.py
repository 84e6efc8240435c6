"""CIFAR-10 as people have it already."""

from pathlib import Path

import numpy as np

from model_compression.core.errors import FileFormatError
from model_compression.core.safe_pickle import loads
from model_compression.data import cifar10_content as content
from model_compression.data import own_files
from model_compression.data.own_files import Layout


def batch_from_pickle(payload: bytes, source: str) -> content.Batch:
    """One member of the Python archive: {data: (10000, 3072) uint8, labels: list}; executes nothing.

    Raises FileFormatError for anything else.
    """
    batch = loads(payload, source, encoding="bytes")
    if not isinstance(batch, dict):
        raise FileFormatError(f"{source} holds a {type(batch).__name__}; expected the dictionary of a CIFAR-10 batch")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    images, labels = batch.get("data"), batch.get("labels")
    if "fine_labels" in batch:
        raise FileFormatError(f"{source} is of CIFAR-100; expected CIFAR-10")
    if not isinstance(images, np.ndarray) or not isinstance(labels, list | np.ndarray):
        raise FileFormatError(f"{source} has the keys {sorted(map(str, batch))[:8]}; expected data and labels")
    if isinstance(labels, list) and not all(type(label) is int for label in labels):
        raise FileFormatError(f"{source} has labels that are no integers; expected 0 to 9")
    return content.batch_of(images, labels, source)


LAYOUTS = (
    Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        parts=content.BATCHES,
        ending="",
        # A pickle also holds file names and a list of labels.
        max_bytes=lambda name: content.batch_bytes() + content.RECORDS_PER_BATCH * 128 + 65_536,
        decode=batch_from_pickle,
    ),
    Layout(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        parts=content.BATCHES,
        ending=".bin",
        max_bytes=lambda name: content.batch_bytes(),
        decode=content.batch_from_records,
    ),
)
EXPECTED = "cifar-10-batches-py, cifar-10-batches-bin, cifar-10-python.tar.gz or cifar-10-binary.tar.gz"


def read_own(path: Path) -> tuple[content.Arrays, Path] | None:
    """What ``path`` is or contains; see own_files.read_own."""
    return own_files.read_own(path, LAYOUTS, content.assemble)


def read_archive(path: Path) -> content.Arrays:
    """Reads either official archive; see own_files.read_archive."""
    return own_files.read_archive(path, LAYOUTS, content.assemble)


def looks_official(path: Path) -> bool:
    """Whether the name of ``path`` is one of the official ones."""
    return own_files.looks_official(path, LAYOUTS)


def refuse_foreign(folder: Path) -> None:
    """Raises DataError for a folder that holds files but no CIFAR-10."""

    def others(names: set[str]) -> str | None:
        is_other = any(name.startswith("cifar-100") for name in names) or {"train", "test", "meta"} <= names
        return "CIFAR-100" if is_other else None

    own_files.refuse_foreign(folder, content.NAME, EXPECTED, others)
