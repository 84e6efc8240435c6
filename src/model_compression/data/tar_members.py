"""Reads chosen members of a tar archive from strangers: by name, into memory, within bounds; nothing is extracted."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from model_compression.core.errors import FileFormatError

MAX_MEMBERS = 100
SLACK_BYTES = 1 << 20  # for headers, padding, and what else an archive holds: read-me files, names of classes


def read_members(path: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the members in ``limits`` {member name: largest size in bytes}, in archive order.

    Plain or gzip-compressed tar, held decompressed: as many bytes as the limits add up to and 1 MiB, no more. Other
    members are passed over, whatever their names, links and types are. Raises FileFormatError for a corrupt or
    truncated archive, a member that is larger than its limit or is no regular file, and for absurd archives. A member
    that is not there is not yielded.
    """
    bound = sum(limits.values()) + SLACK_BYTES
    try:
        with open(path, "rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if is_compressed else file as stream:
                payload = stream.read(bound + 1)
        if len(payload) > bound:
            raise FileFormatError(f"{path} holds more bytes than an official archive ({bound} at most): fetch it again")
        # Sizes in headers may claim terabytes: what is read of them is what there is.
        with tarfile.open(fileobj=io.BytesIO(payload), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise FileFormatError(f"{path} has over {MAX_MEMBERS} members; expected an official archive")
                name = member.name.removeprefix("./")
                if name in limits:
                    yield name, _content(archive, member, path, limits[name])
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
        raise FileFormatError(
            f"{path} cannot be read: {error or type(error).__name__}; it is truncated or no tar archive: fetch it again"
        ) from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, limit: int) -> bytes:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise FileFormatError(f"{path}: {member.name} is no regular file (type {member.type!r}), which is refused")
    if member.size > limit:
        raise FileFormatError(f"{path}: {member.name} claims {member.size} bytes; expected at most {limit}")
    opened = archive.extractfile(member)
    assert opened is not None  # a regular member always opens
    return opened.read()
