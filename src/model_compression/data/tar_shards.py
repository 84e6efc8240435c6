"""Images in tar archives, found once and read at random: by an index of which each archive has its part."""

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError
from model_compression.data.index import Arrays, Names, is_settled, now_ns, read_index, write_index
from model_compression.data.listing import NAMED, list_counted
from model_compression.data.tar_archive import Archive, Label, LeftOut, read_archive

_KIND = "shards"
_WORTH_KEEPING = 1000  # images: fewer are found anew in moments
_ARRAYS = ("shards", "offsets", "sizes", "codes")

Report = Callable[[str], None]
State = list[int]
"""Size and times of an archive: that of its content can be set back, that of its entry cannot."""


@dataclass(frozen=True, eq=False)
class Shards:
    """Images in tar archives ``paths``: the archive of each, where its bytes are there, its name and its label.

    ``states`` are those of the archives when they were read. ``codes`` are places in ``values``, the labels that there
    are, or −1 for an image without one. ``left_out`` says what is not used, if anything.
    """

    paths: tuple[Path, ...]
    states: tuple[State, ...]
    names: Names
    shards: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    values: tuple[Label, ...]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, number: int) -> str:
        """The archive and the name in it."""
        return f"{self.paths[self.shards[number]].name}/{self.names.text_of(number)}"

    def identity(self, number: int) -> bytes:
        """The name of the archive without its folder, the name in it, and the size in bytes."""
        shard = os.fsencode(self.paths[self.shards[number]].name)
        return b"%b/%b\0%d" % (shard, self.names[number], self.sizes[number])

    def content(self, number: int) -> bytes:
        """The encoded image. Raises DataError where the archive has changed since it was read, or is not there."""
        shard, size = int(self.shards[number]), int(self.sizes[number])
        path = self.paths[shard]
        try:
            with open(path, "rb") as file:
                file.seek(int(self.offsets[number]))
                content = file.read(size)
                found = os.fstat(file.fileno())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        bytes_before, time_before, _ = self.states[shard]
        if (found.st_size, found.st_mtime_ns) != (bytes_before, time_before):
            how = f"it has {found.st_size:,} bytes instead of {bytes_before:,}"
            if found.st_size == bytes_before:
                how = f"it was written again, at {_clock(found.st_mtime_ns)}"
            raise DataError(
                f"{path} has changed since its images were found, as seen at {self.names.text_of(number)}: {how}; put "
                "the former file back and resume, or begin a new run with the new one"
            )
        return content


def list_shards(paths: Sequence[Path], report: Report) -> Shards:
    """The images of the archives ``paths``, in their order, and in each archive in its own.

    The members of an archive are found once: the index in the user's cache holds for it as long as it has its size and
    times. Raises DataError for an archive that is damaged, cut off or compressed, or cannot be opened.
    """
    try:
        return _list_shards(paths, report)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror or error}") from None


def _list_shards(paths: Sequence[Path], report: Report) -> Shards:
    own, states = [str(path.absolute()) for path in paths], [_state(path) for path in paths]
    header, arrays = read_index(_KIND, own[0]) or ({"paths": [], "states": []}, {})
    if (header["paths"], header["states"]) == (own, states):
        names = Names(arrays["text"], arrays["starts"])
        kept = {name: arrays[name] for name in _ARRAYS}
        left_out = _left_out(header["left_out"])
        return Shards(tuple(paths), tuple(states), names, **kept, values=tuple(header["values"]), left_out=left_out)
    started = now_ns()
    before = zip(header["paths"], header["states"], strict=True)
    places = {(path, *state): place for place, (path, state) in enumerate(before)}
    found = [places.get((path, *state)) for path, state in zip(own, states, strict=True)]
    archives = [
        read_archive(path) if place is None else _part(header, arrays, place)
        for path, place in zip(paths, found, strict=True)
    ]
    shards = _joined(paths, states, archives)
    if len(shards) >= _WORTH_KEEPING and None in found:
        kept = {"text": shards.names.text, "starts": shards.names.starts}
        kept |= {name: getattr(shards, name) for name in _ARRAYS}
        # What was written just now may be written again within a tick of its clock: it is read at the next start.
        settled = [state if is_settled([state[1]], started) else [] for state in states]
        told = {"paths": own, "states": settled, "values": list(shards.values)}
        write_index(_KIND, own[0], told | {"left_out": [one.left_out for one in archives]}, kept, report)
    return shards


def _state(path: Path) -> State:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no regular file; expected a tar archive")
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _clock(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))


def _part(header: dict[str, Any], arrays: Arrays, shard: int) -> Archive:
    """What the index holds of an archive."""
    start, stop = np.searchsorted(arrays["shards"], [shard, shard + 1])
    starts = arrays["starts"][start : stop + 1]
    names = Names(arrays["text"][starts[0] : starts[-1]], starts - starts[0])
    offsets, sizes, codes = (arrays[name][start:stop] for name in ("offsets", "sizes", "codes"))
    return Archive(names, offsets, sizes, codes, header["values"], header["left_out"][shard])


def _joined(paths: Sequence[Path], states: Sequence[State], archives: Sequence[Archive]) -> Shards:
    """The archives one after the other, with one list of labels, in the order in which they appear."""
    places: dict[Label, int] = {}
    codes = []
    for one in archives:
        _, first = np.unique(one.codes, return_index=True)
        place = {-1: -1}
        for code in one.codes[np.sort(first)].tolist():
            if code >= 0:
                place[code] = places.setdefault(one.values[code], len(places))
        codes.append(np.array([place[code] for code in one.codes.tolist()], dtype=np.int64))
    counts = [len(one.names) for one in archives]
    return Shards(
        paths=tuple(paths),
        states=tuple(states),
        names=Names.joined([one.names for one in archives]),
        shards=np.repeat(np.arange(len(archives), dtype=np.int32), counts),
        offsets=np.concatenate([one.offsets for one in archives]),
        sizes=np.concatenate([one.sizes for one in archives]),
        codes=np.concatenate(codes),
        values=tuple(places),
        left_out=_left_out(one.left_out for one in archives),
    )


def _left_out(parts: Iterable[LeftOut]) -> str:
    """What is not used of all archives, as a line."""
    whole: LeftOut = {}
    for part in parts:
        for reason, (count, names) in part.items():
            before, named = whole.get(reason, (0, []))
            whole[reason] = (before + count, [*named, *names][:NAMED])
    return list_counted(whole)
