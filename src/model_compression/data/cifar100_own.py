"""CIFAR-100 as people have it already."""

from pathlib import Path

import numpy as np

from model_compression.core.errors import FileFormatError
from model_compression.core.safe_pickle import loads
from model_compression.data import cifar100_content as content
from model_compression.data import own_files
from model_compression.data.cifar10_content import IMAGE_BYTES, Arrays
from model_compression.data.own_files import Layout

EXPECTED = "cifar-100-python, cifar-100-binary, cifar-100-python.tar.gz or cifar-100-binary.tar.gz"


def part_from_pickle(payload: bytes, source: str) -> content.Part:
    """One member of the Python archive: {data: (N, 3072) uint8, fine_labels, coarse_labels}; executes nothing.

    Raises FileFormatError for anything else.
    """
    batch = loads(payload, source, encoding="bytes")
    if not isinstance(batch, dict):
        raise FileFormatError(f"{source} holds a {type(batch).__name__}; expected the dictionary of CIFAR-100")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    if "fine_labels" not in batch and "labels" in batch:
        raise FileFormatError(f"{source} is of CIFAR-10; expected CIFAR-100")
    images, labels = batch.get("data"), [batch.get("coarse_labels"), batch.get("fine_labels")]
    if not isinstance(images, np.ndarray) or not all(isinstance(part, list | np.ndarray) for part in labels):
        raise FileFormatError(
            f"{source} has the keys {sorted(map(str, batch))[:8]}; expected data, fine_labels and coarse_labels"
        )
    try:
        coarse, fine = (np.asarray(part) for part in labels)
    except ValueError as error:  # lists in lists, of different lengths
        raise FileFormatError(f"{source} has labels that are no integers: {error}") from None
    return content.part_of(images, coarse, fine, source)


LAYOUTS = (
    Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        parts=("train", "test"),
        ending="",
        # A pickle also holds file names and two lists of labels.
        max_bytes=lambda name: content.RECORDS[name] * (IMAGE_BYTES + 128) + 65_536,
        decode=part_from_pickle,
    ),
    Layout(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        parts=("train", "test"),
        ending=".bin",
        max_bytes=content.part_bytes,
        decode=content.part_from_records,
    ),
)


def read_own(path: Path) -> tuple[Arrays, Path] | None:
    """What ``path`` is or contains; see own_files.read_own."""
    return own_files.read_own(path, LAYOUTS, content.assemble)


def read_archive(path: Path) -> Arrays:
    """Reads either official archive; see own_files.read_archive."""
    return own_files.read_archive(path, LAYOUTS, content.assemble)


def looks_official(path: Path) -> bool:
    """Whether the name of ``path`` is one of the official ones."""
    return own_files.looks_official(path, LAYOUTS)


def refuse_foreign(folder: Path) -> None:
    """Raises DataError for a folder that holds files but no CIFAR-100."""

    def others(names: set[str]) -> str | None:
        return "CIFAR-10" if any(name.startswith(("cifar-10-", "data_batch_")) for name in names) else None

    own_files.refuse_foreign(folder, content.NAME, EXPECTED, others)
