"""A published data set as people have it already: official folders and archives, read in place, nothing extracted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data.cifar10_content import Arrays
from model_compression.data.tar_members import read_members

# Puts the parts, (name, what `decode` made of it) in any order, together; the text says where they come from.
Assemble = Callable[[Iterable[tuple[str, Any]], str], Arrays]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One of the official forms: the folder's name, the archive's, the parts' names and ending, how one is decoded.

    ``max_bytes`` is the largest size that a part of this form can have.
    """

    folder: str
    archive: str
    parts: tuple[str, ...]
    ending: str
    max_bytes: Callable[[str], int]
    decode: Callable[[bytes, str], Any]


def read_own(path: Path, layouts: Sequence[Layout], assemble: Assemble) -> tuple[Arrays, Path] | None:
    """Reads what ``path`` is or contains, in one of the forms; returns (arrays, what was read).

    None when there is none of them. Raises FileFormatError for a file that is corrupt, truncated or no archive; does
    not verify the content.
    """
    if path.is_file():
        return read_archive(path, layouts, assemble), path
    for layout in layouts:
        for folder in (path, path / layout.folder):
            if any((folder / f"{name}{layout.ending}").is_file() for name in layout.parts):
                return _read_folder(folder, layout, assemble), folder
    for layout in layouts:
        if (path / layout.archive).is_file():
            return read_archive(path / layout.archive, layouts, assemble), path / layout.archive
    return None


def looks_official(path: Path, layouts: Sequence[Layout]) -> bool:
    """Whether the name of ``path`` is one of the official ones, so that it is not meant as a new folder to store in."""
    return path.name.endswith((".gz", ".tgz", ".tar", ".bin")) or path.name in {form.folder for form in layouts}


def read_archive(path: Path, layouts: Sequence[Layout], assemble: Assemble) -> Arrays:
    """Reads an official archive by member name. Raises FileFormatError; does not verify the content."""
    members = {f"{form.folder}/{name}{form.ending}": (form, name) for form in layouts for name in form.parts}

    def parts() -> Iterator[tuple[str, Any]]:
        for member, payload in read_members(path, {key: form.max_bytes(name) for key, (form, name) in members.items()}):
            layout, name = members[member]
            yield name, layout.decode(payload, f"{path}: {member}")

    return assemble(parts(), str(path))


def _read_folder(folder: Path, layout: Layout, assemble: Assemble) -> Arrays:
    def parts() -> Iterator[tuple[str, Any]]:
        for name in layout.parts:
            file = folder / f"{name}{layout.ending}"
            if not file.is_file():
                continue  # assemble names all that are missing
            limit = layout.max_bytes(name)
            if file.stat().st_size > limit:
                raise FileFormatError(
                    f"{file} has {file.stat().st_size} bytes; expected at most {limit}: fetch it again"
                )
            yield name, layout.decode(file.read_bytes(), str(file))

    return assemble(parts(), str(folder))


def refuse_foreign(folder: Path, name: str, expected: str, others: Callable[[set[str]], str | None]) -> None:
    """Raises DataError for a folder that holds files but no data set ``name``: it is not taken as a store.

    ``others`` names what the files are, if it knows.
    """
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return
    found = others(set(names))
    if found is None:
        found = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise DataError(
        f"{folder} holds {found}; expected {expected}, or an empty or new folder to store {name} in; "
        "give such a folder, or leave --data-dir out to use the cache"
    )
