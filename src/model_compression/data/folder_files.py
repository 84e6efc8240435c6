"""The image files of a folder, by number: found by reading all folders, or known from an index that still holds."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.data.image_files import ARRAYS
from model_compression.data.index import WORTH_KEEPING, Arrays, Names, is_settled, now_ns, read_index, write_index
from model_compression.data.listing import Found, find_images, left_out_note

_KIND = "folder"
_AT_ONCE = 10_000  # files that are compared with the index
Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Files:
    """Image files below ``root``: their names there, sizes in bytes, and how many lie in each class folder.

    ``notes`` say what was left out, ``num_arrays`` of the files end in .npy. ``shape`` is what all were found to have
    in common, once that was looked at: channels, height and width. ``key`` is that of the index, if there is one.
    """

    root: Path
    names: Names
    sizes: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    counts: tuple[int, ...]
    notes: tuple[str, ...] = ()
    num_arrays: int = 0
    folders: tuple[tuple[str, int], ...] = ()
    shape: tuple[int, ...] = ()
    key: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Path:
        return self.root / self.names.text_of(number)

    def __iter__(self) -> Iterator[Path]:
        return (self[number] for number in range(len(self)))

    def identity(self, number: int) -> bytes:
        """Path below the root, and size in bytes."""
        return self.names[number] + b"\0%d" % self.sizes[number]

    def with_shape(self, shape: tuple[int, ...], report: Report) -> "Files":
        """With what all files have in common, which the index keeps."""
        known = replace(self, shape=shape)
        if self.key:
            _keep(known, report)
        return known


def list_files(root: Path, names: Sequence[str], report: Report) -> Files:
    """The image files below the folders ``names`` of ``root``, each in its order; "" is the root itself.

    A folder of `WORTH_KEEPING` files has an index in the user's cache. It holds as long as every folder has the time
    and every file the size and the time that it had; else all is read anew. Raises DataError as `find_images` does.
    """
    key = "\0".join((str(root), str(root.absolute()), *names))
    known = _known(root, key)
    if known is not None:
        return known
    started = now_ns()
    found = [find_images(root / name) for name in names]
    files = _files(root, found)
    times = [time for _, time in files.folders]
    if len(files) < WORTH_KEEPING or not all(one.is_settled for one in found):
        return files
    if not (is_settled(files.times, started) and is_settled(times, started)):
        return files
    files = replace(files, key=key)
    _keep(files, report)
    return files


def _files(root: Path, found: list[Found]) -> Files:
    below = len(str(root / "x")) - 1
    listed = [file for one in found for file in one.files]
    return Files(
        root=root,
        names=Names.of(os.fsencode(file.path[below:].replace(os.sep, "/")) for file in listed),
        sizes=np.array([file.size_bytes for file in listed], dtype=np.int64),
        times=np.array([file.time_ns for file in listed], dtype=np.int64),
        counts=tuple(len(one.files) for one in found),
        notes=tuple(left_out_note(root, found)),
        num_arrays=sum(file.path.lower().endswith(ARRAYS) for file in listed),
        folders=tuple(folder for one in found for folder in one.folders),
    )


_LISTS = ("counts", "notes", "shape")


def _keep(files: Files, report: Report) -> None:
    header: dict[str, Any] = {name: list(getattr(files, name)) for name in _LISTS}
    header |= {
        "num_arrays": files.num_arrays,
        "folders": [[os.fsencode(name).hex(), time] for name, time in files.folders],
    }
    arrays: Arrays = {
        "text": files.names.text,
        "starts": files.names.starts,
        "sizes": files.sizes,
        "times": files.times,
    }
    write_index(_KIND, files.key, header, arrays, report)


def _known(root: Path, key: str) -> Files | None:
    """The files of the index, if there is one and nothing has changed since."""
    found = read_index(_KIND, key)
    if found is None:
        return None
    header, arrays = found
    folders = tuple((os.fsdecode(bytes.fromhex(name)), time) for name, time in header["folders"])
    files = Files(
        root=root,
        names=Names(arrays["text"], arrays["starts"]),
        sizes=arrays["sizes"],
        times=arrays["times"],
        num_arrays=header["num_arrays"],
        folders=folders,
        key=key,
        **{name: tuple(header[name]) for name in _LISTS},
    )
    return files if _holds(files) else None


def _holds(files: Files) -> bool:
    """Whether every folder has its time, and every file its size and time."""
    start, starts = os.fsencode(files.root / "x")[:-1], files.names.starts
    try:
        if any(Path(folder).stat().st_mtime_ns != time for folder, time in files.folders):
            return False
        for first in range(0, len(files), _AT_ONCE):
            ends = starts[first : first + _AT_ONCE + 1].tolist()
            text = files.names.text[ends[0] : ends[-1]].tobytes()
            seen = [
                os.stat(start + text[low - ends[0] : high - ends[0]])  # noqa: PTH116  # paths would take longer
                for low, high in pairwise(ends)
            ]
            part = slice(first, first + len(seen))
            if [one.st_size for one in seen] != files.sizes[part].tolist():
                return False
            if [one.st_mtime_ns for one in seen] != files.times[part].tolist():
                return False
    except OSError:
        return False
    return True
