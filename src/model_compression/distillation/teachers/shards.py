"""Files of stored answers: rows in shards, which any number of processes fill block by block and map into memory.

A shard is a safetensors file of fixed size. Its header holds the SHA-256 of each block of rows, zeros for one that is
not there; rows and digest of a block are written in place. A block counts once its digest is that of its rows.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model_compression.core.errors import FileFormatError
from model_compression.core.files import write_atomically, writing_failed
from model_compression.distillation.teachers.fingerprint import FORMAT
from model_compression.distillation.teachers.row_formats import RowFormat, row_bytes
from model_compression.distillation.teachers.row_reader import RowReader

BLOCK = 500  # samples that the teacher answers at once: another number rounds otherwise
SHARD = 512  # blocks of a file

_ROWS = "model_compression.stored_rows/1"
_DIGESTS = "sha256"
_BLANK = "0" * 64
_LARGEST_HEADER = 1 << 24  # bytes
_NAMES = {torch.uint8: "U8", torch.float16: "F16", torch.float32: "F32"}

FormatOf = Callable[[Sequence[int]], RowFormat]
"""Gives the format of answers of a shape."""
Making = Callable[[], AbstractContextManager[None]]
"""Held while a file is made, so that no other process makes the same."""
State = Literal["missing", "damaged", "good"]


@dataclass(frozen=True)
class _Layout:
    """Where things lie in a shard of ``count`` rows: its header, still without digests, and positions in bytes."""

    form: RowFormat
    header: bytes
    digests_at: int
    count: int

    @property
    def size_bytes(self) -> int:
        return len(self.header) + self.count * row_bytes(self.form)

    @property
    def digests_end(self) -> int:
        return self.digests_at + len(_BLANK) * math.ceil(self.count / BLOCK)

    def digest_at(self, block: int) -> int:
        return self.digests_at + block % SHARD * len(_BLANK)

    def rows_at(self, block: int) -> tuple[int, int]:
        """(position, length)."""
        first = block % SHARD * BLOCK
        size = row_bytes(self.form)
        return len(self.header) + first * size, min(BLOCK, self.count - first) * size


class StoredRows:
    """The ``count`` rows of one ``field`` and view, in files whose names begin with ``stem``, or in one of before."""

    def __init__(self, stem: Path, field: str, count: int, format_of: FormatOf):
        self.field, self.count = field, count
        self.num_blocks = math.ceil(count / BLOCK)
        self.stored: set[int] = set()
        """The blocks that this process has written or found good."""
        self._stem, self._format_of = stem, format_of
        self._layouts: dict[int, _Layout] = {}  # by number of the shard

    @property
    def num_stored(self) -> int:
        """How many rows are in `stored`."""
        return min(self.count, len(self.stored) * BLOCK)

    def path(self, block: int) -> Path:
        """The file of a block; an earlier version had one for all."""
        whole = whole_path(self._stem)
        return whole if whole.exists() else shard_path(self._stem, block // SHARD)

    def ids(self, block: int) -> range:
        """The rows of a block."""
        return range(block * BLOCK, min((block + 1) * BLOCK, self.count))

    def missing(self) -> list[int]:
        """Numbers of the blocks that are not there or damaged, from 0; one that was found good is not read again."""
        if len(self.stored) < self.num_blocks and whole_path(self._stem).exists():
            with suppress(FileFormatError):
                self._whole()
                self.stored.update(range(self.num_blocks))
        for block in range(self.num_blocks):
            if block not in self.stored and self.state(block) == "good":
                self.stored.add(block)
        return [block for block in range(self.num_blocks) if block not in self.stored]

    def state(self, block: int) -> State:
        """What the file holds of a block now."""
        if whole_path(self._stem).exists():
            return "good" if block in self.stored else "damaged"
        layout = self._layout(block)
        if layout is None:
            return "damaged" if self.path(block).exists() else "missing"
        try:
            with self.path(block).open("rb") as file:
                digest = _read(file, layout.digest_at(block), len(_BLANK))
                if digest == _BLANK.encode():
                    return "missing"
                return "good" if _sha256(_read(file, *layout.rows_at(block))) == digest else "damaged"
        except FileNotFoundError:  # cleared by another process
            return "missing"
        except OSError:  # the disk cannot read it
            return "damaged"

    def damage(self, block: int) -> str:
        """For people: which answers are damaged, of a block that is."""
        path, ids = self.path(block), self.ids(block)
        if path == whole_path(self._stem) or self._layout(block) is None:
            return f"{path} is damaged"
        return f"{path} is damaged: the answers to samples {ids[0]:,} to {ids[-1]:,} have another digest"

    def write(self, block: int, answers: Tensor, making: Making) -> None:
        """Stores the ``answers`` (n, …) of a block. Raises ModelCompressionError when they do not fit the format."""
        layout = self._expected(block, self._format_of(answers.shape[1:]))
        rows, path = layout.form.encode(answers).numpy().tobytes(), shard_path(self._stem, block // SHARD)
        try:
            whole_path(self._stem).unlink(missing_ok=True)  # it is damaged
            if self._layout(block) != layout:
                with making():
                    if self._layout(block) != layout:
                        write_atomically(path, layout.header, size_bytes=layout.size_bytes)
            with path.open("r+b") as file:
                for place, content in ((layout.rows_at(block)[0], rows), (layout.digest_at(block), _sha256(rows))):
                    file.seek(place)
                    file.write(content)
        except OSError as error:
            raise writing_failed(path, error) from error
        self.stored.add(block)

    def reader(self) -> RowReader:
        """What reads the rows, all of which are there, mapped into memory. Raises FileFormatError."""
        if whole_path(self._stem).exists():
            tensor = self._whole()
            return RowReader(self._format_of(tensor.shape[1:]), [tensor.numpy()])
        shards: list[np.ndarray[Any, Any]] = []
        forms: set[RowFormat] = set()
        for block in range(0, self.num_blocks, SHARD):
            layout, path = self._layout(block), self.path(block)
            if layout is None or not forms <= {layout.form}:
                raise FileFormatError(f"{path} is damaged, or not there")
            kind, shape = torch.empty(0, dtype=layout.form.dtype).numpy().dtype, layout.form.row_shape
            mapped = np.memmap(path, kind, "r", offset=len(layout.header), shape=(layout.count, *shape))
            shards.append(mapped.view(np.ndarray))
            forms.add(layout.form)
        return RowReader(forms.pop(), shards)

    def _whole(self) -> Tensor:
        path = whole_path(self._stem)
        tensor = _read_whole(path, self.field)
        if len(tensor) != self.count:
            raise FileFormatError(f"{path} holds {len(tensor):,} answers to {self.count:,} samples")
        return tensor

    def _layout(self, block: int) -> _Layout | None:
        """That of the file of a block; None where it is not there, or another."""
        number, path = block // SHARD, self.path(block)
        if number in self._layouts and path.exists():
            return self._layouts[number]
        header = _read_header(path)
        if header is None:
            return None
        try:
            layout = self._expected(block, self._format_of(header.answer))
        except (TypeError, ValueError):  # of a shape that is none
            return None
        ours = (layout.header[: layout.digests_at], layout.header[layout.digests_end :])
        same = (header.raw[: layout.digests_at], header.raw[layout.digests_end :]) == ours
        if not same or path.stat().st_size != layout.size_bytes:
            return None
        self._layouts[number] = layout
        return layout

    def _expected(self, block: int, form: RowFormat) -> _Layout:
        count = min(SHARD * BLOCK, self.count - block // SHARD * SHARD * BLOCK)
        facts = json.dumps({"rows": self.count, "block": BLOCK, "answer": list(form.shape)})
        end = count * row_bytes(form)
        tensor = {"dtype": _NAMES[form.dtype], "shape": [count, *form.row_shape], "data_offsets": [0, end]}
        metadata = {_ROWS: facts, _DIGESTS: _BLANK * math.ceil(count / BLOCK)}
        text = json.dumps({"__metadata__": metadata, self.field: tensor}).encode()
        text += b" " * (-len(text) % 8)
        header = len(text).to_bytes(8, "little") + text
        return _Layout(form, header, header.index(_BLANK.encode()), count)


class _Header(NamedTuple):
    """That of a shard: all its bytes, the rows of the whole view, the shape of an answer, and the digests."""

    raw: bytes
    rows: int
    answer: list[int]
    digests: str


def _read_header(path: Path) -> _Header | None:
    """The header of a shard, None where there is none."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _LARGEST_HEADER))
        metadata = json.loads(text)["__metadata__"]
        facts, raw = json.loads(metadata[_ROWS]), length.to_bytes(8, "little") + text
        return _Header(raw, int(facts["rows"]), [int(size) for size in facts["answer"]], str(metadata[_DIGESTS]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def is_filled(stem: Path) -> bool:
    """Whether all blocks are there of the files whose names begin with ``stem``; they are not read."""
    filled, count = count_blocks(stem)
    return 0 < count == filled


def count_blocks(stem: Path) -> tuple[int, int]:
    """(blocks that are there, all blocks) of the files whose names begin with ``stem``; (0, 0) where nothing is known.

    An earlier version's file counts as one block. Rows are not read.
    """
    if whole_path(stem).exists():
        return 1, 1
    paths = stem.parent.glob(f"{stem.name}-shard-*.safetensors")
    headers = [header for header in map(_read_header, paths) if header is not None]
    if not headers:
        return 0, 0
    width = len(_BLANK)
    filled = sum(
        header.digests[place : place + width] != _BLANK
        for header in headers
        for place in range(0, len(header.digests), width)
    )
    return filled, math.ceil(headers[0].rows / BLOCK)


def whole_path(stem: Path) -> Path:
    """The file of earlier versions, which held the view in one piece."""
    return stem.with_name(f"{stem.name}.safetensors")


def shard_path(stem: Path, number: int) -> Path:
    """The file of a shard."""
    return stem.with_name(f"{stem.name}-shard-{number}.safetensors")


def _read_whole(path: Path, field: str) -> Tensor:
    """What an earlier version stored of a view, mapped into memory. Raises FileFormatError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header, answers = file.metadata() or {}, file.get_tensor(field)
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    if header.get(FORMAT) != _sha256(answers.numpy().tobytes()).decode():
        raise FileFormatError(f"{path} is damaged: its digest is another")
    assert isinstance(answers, Tensor)
    return answers


def _read(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
