"""Which image files lie below a folder, and what is left out there and why."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model_compression.core.errors import DataError
from model_compression.data.image_files import common_suffixes, is_image

_HIDDEN = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})  # and names that begin with a dot
NAMED = 3  # files that a note names


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is what a system or an editor keeps for itself, and never data."""
    return name.startswith(".") or name in _HIDDEN


class FoundFile(NamedTuple):
    """A file that was looked for: its path, its size, and when it was last written."""

    path: str
    size_bytes: int
    time_ns: int


@dataclass(frozen=True)
class Found:
    """What lies below a folder: the ``files`` looked for, sorted, and what is ``left_out``, by the reason.

    ``folders`` are the folders that were read, with the time at which each was last written. ``is_settled``: whether
    all that was found depends on these times alone; a link that leads nowhere may come to lead somewhere.
    """

    files: list[FoundFile]
    left_out: Mapping[str, tuple[Path, ...]]
    folders: list[tuple[str, int]]
    is_settled: bool


def find_images(folder: Path) -> Found:
    """The image files in ``folder``; see `find_files`."""
    return find_files(folder, is_image, f"images that can be read ({common_suffixes()})")


def find_files(folder: Path, is_wanted: Callable[[str], bool], called: str) -> Found:
    """The files in ``folder`` and the folders in it whose names are wanted, links followed, without hidden ones.

    ``called`` is what they are, for messages.

    Raises DataError where there are none, or ``folder`` itself cannot be opened.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DataError(f"{folder} cannot be opened: {error.strerror}; change its permissions, or delete it") from None
    files, left_out = [], defaultdict(list)
    folders: list[tuple[str, int]] = []
    around = frozenset(_key(parent.stat()) for parent in folder.resolve().parents)
    for path, reason, found in _walk(str(folder), around, folders, is_wanted):
        if found is None:
            left_out[reason].append(Path(path))
        else:
            files.append(FoundFile(path, found.st_size, found.st_mtime_ns))
    if not files:
        others = f"{_list_files(left_out, folder)}, and " if left_out else ""
        raise DataError(f"{folder} holds {others}no {called}; fill it, or delete it")
    files.sort(key=lambda file: file.path.replace(os.sep, "\0"))  # as paths are sorted, part by part
    sorted_out = {reason: tuple(sorted(paths)) for reason, paths in sorted(left_out.items())}
    is_settled = all(reason.startswith((".", _NO_SUFFIX, _LOOP)) for reason in left_out)
    return Found(files, sorted_out, folders, is_settled)


_NO_SUFFIX, _LOOP = "without an ending", "leads back to a folder around it"


def _walk(
    folder: str, above: frozenset[tuple[int, int]], folders: list[tuple[str, int]], is_wanted: Callable[[str], bool]
) -> Iterator[tuple[str, str, os.stat_result | None]]:
    """(path, why it is left out, what is known of it) below ``folder``; ``above`` are the folders around it."""
    try:
        known = Path(folder).stat()
        here = _key(known)
        entries = list(os.scandir(folder))
    except OSError as error:
        yield folder, f"cannot be opened ({error.strerror})", None
        return
    if here in above:
        yield folder, _LOOP, None
        return
    folders.append((folder, known.st_mtime_ns))
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, above | {here}, folders, is_wanted)
        elif not entry.is_file():
            yield entry.path, "broken link" if entry.is_symlink() else "no regular file", None
        elif is_wanted(entry.name):
            try:
                found = entry.stat()
            except OSError as error:  # deleted just now
                yield entry.path, f"cannot be opened ({error.strerror})", None
            else:
                yield entry.path, "", found
        else:
            yield entry.path, Path(entry.name).suffix.lower() or _NO_SUFFIX, None


def _key(found: os.stat_result) -> tuple[int, int]:
    """What a folder is known by, under whichever name."""
    return found.st_dev, found.st_ino


def left_out_note(root: Path, found: list[Found], called: str = "images that can be read") -> list[str]:
    """A line on what was left out below ``root``, if anything was; ``called`` is what was looked for."""
    left_out: dict[str, list[Path]] = defaultdict(list)
    for one in found:
        for reason, paths in one.left_out.items():
            left_out[reason] += paths
    return [f"{root}: left out, as they are no {called}: {_list_files(left_out, root)}"] if left_out else []


def _list_files(left_out: Mapping[str, Any], root: Path) -> str:
    return list_counted(
        {
            reason: (len(paths), [path.relative_to(root).as_posix() for path in paths[:NAMED]])
            for reason, paths in left_out.items()
        }
    )


def list_counted(left_out: Mapping[str, tuple[int, Sequence[str]]]) -> str:
    """How many there are for each reason, with the names of the first, of which at least `NAMED` are given."""
    parts = []
    for reason, (count, names) in sorted(left_out.items()):
        named = ", ".join(names[:NAMED])
        parts.append(f"{count:,} {reason} ({named}{', …' if count > NAMED else ''})")
    return "; ".join(parts)
