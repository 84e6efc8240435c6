"""CIFAR-10 as people have it already: the official folders and archives, read in place, nothing extracted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_compression.data import cifar10_content as content
from model_compression.data.tar_members import read_members
from model_compression.errors import DataError, FileFormatError
from model_compression.safe_pickle import loads


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One of the official forms: the folder's name, the archive's, the files' ending, and how a file is decoded."""

    folder: str
    archive: str
    ending: str
    decode: Callable[[bytes, str], content.Batch]

    def max_bytes(self) -> int:
        """The largest size that a file of this form can have: a pickle also holds file names and a list of labels."""
        return content.batch_bytes() + (content.RECORDS_PER_BATCH * 128 + 65_536 if not self.ending else 0)


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
    Layout(folder="cifar-10-batches-py", archive="cifar-10-python.tar.gz", ending="", decode=batch_from_pickle),
    Layout(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        ending=".bin",
        decode=content.batch_from_records,
    ),
)
EXPECTED = "cifar-10-batches-py, cifar-10-batches-bin, cifar-10-python.tar.gz or cifar-10-binary.tar.gz"


def read_own(path: Path) -> tuple[content.Arrays, Path] | None:
    """Reads what ``path`` is or contains, in the forms of LAYOUTS; returns (arrays, what was read).

    None when there is none of them. Raises FileFormatError for a file that is corrupt, truncated or no archive; does
    not verify the content.
    """
    if path.is_file():
        return read_archive(path), path
    for layout in LAYOUTS:
        for folder in (path, path / layout.folder):
            if any((folder / f"{name}{layout.ending}").is_file() for name in content.BATCHES):
                return _read_folder(folder, layout), folder
    for layout in LAYOUTS:
        if (path / layout.archive).is_file():
            return read_archive(path / layout.archive), path / layout.archive
    return None


def looks_official(path: Path) -> bool:
    """Whether the name of ``path`` is one of the official ones, so that it is not meant as a new folder to store in."""
    return path.name.endswith((".gz", ".tgz", ".tar", ".bin")) or path.name in {form.folder for form in LAYOUTS}


def read_archive(path: Path) -> content.Arrays:
    """Reads either official archive by member name. Raises FileFormatError; does not verify the content."""
    members = {f"{form.folder}/{name}{form.ending}": (form, name) for form in LAYOUTS for name in content.BATCHES}

    def batches() -> Iterator[tuple[str, content.Batch]]:
        for member, payload in read_members(path, {name: form.max_bytes() for name, (form, _) in members.items()}):
            layout, name = members[member]
            yield name, layout.decode(payload, f"{path}: {member}")

    return content.assemble(batches(), str(path))


def _read_folder(folder: Path, layout: Layout) -> content.Arrays:
    def batches() -> Iterator[tuple[str, content.Batch]]:
        for name in content.BATCHES:
            file = folder / f"{name}{layout.ending}"
            if not file.is_file():
                continue  # assemble names all that are missing
            if file.stat().st_size > layout.max_bytes():
                raise FileFormatError(
                    f"{file} has {file.stat().st_size} bytes; expected at most {layout.max_bytes()}: fetch it again"
                )
            yield name, layout.decode(file.read_bytes(), str(file))

    return content.assemble(batches(), str(folder))


def refuse_foreign(folder: Path) -> None:
    """Raises DataError for a folder that holds files but no CIFAR-10: it is not taken as a store."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return
    if any(name.startswith("cifar-100") for name in names) or {"train", "test", "meta"} <= set(names):
        found = "CIFAR-100"
    else:
        found = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise DataError(
        f"{folder} holds {found}; expected {EXPECTED}, or an empty or new folder to store CIFAR-10 in; "
        "give such a folder, or leave --data-dir out to use the cache"
    )
