"""Reads chosen members of a tar archive from strangers: by name, into memory, within bounds; nothing is extracted."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from model_compression.core.errors import FileFormatError

MAX_MEMBERS = 100
SLACK_BYTES = 1 << 20  # for headers, padding, and what else an archive holds: read-me files, names of classes


class _Bounded(io.RawIOBase):
    """A seekable stream that refuses to go past ``limit`` bytes, or to read more than ``at_once`` in one call.

    tarfile believes the sizes in headers, also those of long names, and would read terabytes of decompressed zeros.
    """

    def __init__(self, stream: IO[bytes], limit: int, at_once: int, source: str):
        self._stream, self._limit, self._at_once, self._source = stream, limit, at_once, source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > self._limit:
            raise self._too_large()
        return self._stream.seek(offset)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._at_once or self._stream.tell() + size > self._limit:
            raise self._too_large()
        return self._stream.read(size)

    def _too_large(self) -> FileFormatError:
        return FileFormatError(
            f"{self._source} claims more bytes than an official archive holds ({self._limit} at most, "
            f"{self._at_once} at once), which is refused; fetch it again"
        )


def read_members(path: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the members in ``limits`` {member name: largest size in bytes}, in archive order.

    Plain or gzip-compressed tar. Other members are passed over, whatever their names, links and types are. Memory is
    bounded by the sum of the limits. Raises FileFormatError for a corrupt or truncated archive, a member that is larger
    than its limit or is no regular file, and for absurd archives. A member that is not there is not yielded.
    """
    bound = sum(limits.values()) + SLACK_BYTES
    at_once = max(limits.values()) + SLACK_BYTES
    try:
        with open(path, "rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if compressed else raw as stream:
                yield from _walk(_Bounded(stream, bound, at_once, str(path)), path, limits)  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
        raise FileFormatError(
            f"{path} cannot be read: {error or type(error).__name__}; it is truncated or no tar archive: fetch it again"
        ) from error


def _walk(stream: _Bounded, path: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, member in enumerate(archive):
            if count >= MAX_MEMBERS:
                raise FileFormatError(f"{path} has over {MAX_MEMBERS} members; expected an official archive")
            name = member.name.removeprefix("./")
            if name in limits:
                yield name, _content(archive, member, path, limits[name])


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, limit: int) -> bytes:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise FileFormatError(f"{path}: {member.name} is no regular file (type {member.type!r}), which is refused")
    if member.size > limit:
        raise FileFormatError(f"{path}: {member.name} claims {member.size} bytes; expected at most {limit}")
    opened = archive.extractfile(member)
    assert opened is not None  # a regular member always opens
    with opened as file:
        content = file.read()
    if len(content) != member.size:
        raise FileFormatError(f"{path} is truncated within {member.name}; fetch it again")
    return content
