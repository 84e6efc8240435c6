"""What one tar archive of images and labels holds, as WebDataset writes it; nothing is extracted."""

import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError
from model_compression.data.image_files import ARRAYS, image_suffixes
from model_compression.data.index import Names
from model_compression.data.listing import NAMED, is_hidden

LABEL_FIELDS = ("label", "labels", "class", "cls", "target", "category")

_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # the key ends at the first dot of the name, as WebDataset has it
_MAX_LABEL_BYTES, _MAX_IMAGE_BYTES = 2**20, 2**30
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"(\xb5": "unzstd"}

Label = int | str
LeftOut = dict[str, tuple[int, list[str]]]
"""By reason how many members are not used, and the names of the first."""


@dataclass(frozen=True, eq=False)
class Archive:
    """The images of a tar archive: their names, where their bytes are there, and their labels.

    ``codes`` are places in ``values``, the labels that there are, or −1 for an image without one.
    """

    names: Names
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    values: Sequence[Label]
    left_out: LeftOut


@dataclass
class _Sample:
    """What an archive holds under one key."""

    images: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, offset and size."""
    labels: dict[str, Label] = field(default_factory=dict)
    """By the ending of the file that says it."""


def read_archive(path: Path) -> Archive:
    """What ``path`` holds. Raises DataError where it is damaged, cut off or compressed."""
    names, rows, places = [], [], dict[Label, int]()
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for key, sample in _samples(path, left_out).items():
        if not sample.images:
            left_out["label without an image"].append(f"{path.name}/{key}")
            continue
        (name, offset, size), *more = sample.images
        left_out["second image of a key"] += [f"{path.name}/{other}" for other, _, _ in more]
        label = sample.labels.get("cls", sample.labels.get("json"))
        names.append(os.fsencode(name))
        rows.append((offset, size, -1 if label is None else places.setdefault(label, len(places))))
    offsets, sizes, codes = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    counted = {reason: (len(found), found[:NAMED]) for reason, found in left_out.items() if found}
    return Archive(Names.of(names), offsets, sizes, codes, list(places), counted)


def _samples(path: Path, left_out: dict[str, list[str]]) -> dict[str, _Sample]:
    """What the archive holds, by key in order of appearance; ``left_out`` takes the names of the rest by reason."""
    samples: defaultdict[str, _Sample] = defaultdict(_Sample)
    suffixes = image_suffixes() - {ARRAYS}
    with open(path, "rb") as file:
        for member in _members(path, file):
            parts = set(member.name.split("/")) - {".", ".."}
            if member.isdir() or any(map(is_hidden, parts)):
                continue
            matched = _SAMPLE.fullmatch(member.name)
            ending = matched[2].lower() if matched else ""
            suffix = "." + ending.rpartition(".")[2]
            reason = _refusal(member)
            if reason or matched is None:
                left_out[reason or "without an ending"].append(f"{path.name}/{member.name}")
            elif suffix in suffixes:
                samples[matched[1]].images.append((member.name, member.offset_data, member.size))
            elif ending in ("cls", "json"):
                file.seek(member.offset_data)
                label = _label(file.read(min(member.size, _MAX_LABEL_BYTES)), ending)
                if label is None:
                    left_out[f".{ending} without a label"].append(f"{path.name}/{member.name}")
                elif ending in samples[matched[1]].labels:
                    left_out["second label of a key"].append(f"{path.name}/{member.name}")
                else:
                    samples[matched[1]].labels[ending] = label
            else:
                left_out[suffix].append(f"{path.name}/{member.name}")
    return samples


def _members(path: Path, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The members of an archive. Raises DataError where it is no archive, or does not end as one does."""
    count = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if archive.offset <= member.offset:
                    raise tarfile.ReadError("a size is negative")
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps all
                count += 1
                yield member
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if end.strip(b"\0") or len(end) < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it has no end" if not end else "what follows is no member")
            while rest := file.read(2**20):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("more follows behind its end, as of archives that were put together by cat")
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        file.seek(0)
        tool = _COMPRESSED.get(file.read(2))
        if tool is not None and not count:
            raise DataError(f"{path} is compressed, so that no image can be found in it; run {tool} first") from None
        raise DataError(
            f"{path} is damaged or cut off after {count:,} members: {error}; copy it again, or leave it out"
        ) from None


def _refusal(member: tarfile.TarInfo) -> str:
    """Why a member is not read, "" where it is."""
    if member.issym() or member.islnk():
        return "link"
    if not member.isreg() or member.issparse():
        return "no regular file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "with a name outside of the archive"
    return "larger than 1 GiB" if member.size > _MAX_IMAGE_BYTES else ""


def _label(content: bytes, ending: str) -> Label | None:
    """The label in a file .cls or .json: a class number, or a name."""
    try:
        value: Any = content.decode().strip()
        if ending == "json":
            fields = json.loads(value)
            value = next((fields[name] for name in LABEL_FIELDS if name in fields), None)
        elif re.fullmatch(r"[+-]?\d{1,18}", value):
            value = int(value)
    except (ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, int | str) and not isinstance(value, bool) and value != "" else None
