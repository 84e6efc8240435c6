"""How an answer is stored: a row of fixed length, with all its numbers or with the K largest logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model_compression.core.config import CacheDtype
from model_compression.core.errors import ModelCompressionError
from model_compression.core.options import setting


class RowFormat(Protocol):
    """One way to store answers of a ``shape`` as rows of ``row_shape`` and ``dtype``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one answer, as (K,)."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers of a row."""

    def encode(self, answers: Tensor) -> Tensor:
        """Rows (n, …) of ``answers`` (n, …) in float32. Raises ModelCompressionError when they do not fit."""

    def decode(self, rows: Tensor) -> Tensor:
        """Answers (n, …) in float32 that ``rows`` (n, …) stand for."""

    def compare(self, rows: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """What ``rows`` store, and the same numbers of ``answers``, which equal them but for rounding."""


@dataclass(frozen=True)
class Dense:
    """All numbers of an answer, as ``dtype``."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def row_shape(self) -> tuple[int, ...]:
        """That of an answer."""
        return self.shape

    def encode(self, answers: Tensor) -> Tensor:
        """The numbers, rounded. Raises ModelCompressionError for finite ones beyond ``dtype``."""
        return _rounded(answers, self.dtype)

    def decode(self, rows: Tensor) -> Tensor:
        """The numbers in float32."""
        return rows.float()

    def compare(self, rows: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """All numbers of both."""
        return rows.float(), answers


@dataclass(frozen=True)
class TopK:
    """The K (``kept``) largest of C (``classes``) logits as ``number``, their classes, and the mass of all others.

    A row holds K logits in order of their classes, r = log Σ exp(z) over the other classes, and the K classes in
    ⌈log₂ C⌉ bits each. Of equal logits the lower class is kept. Each class that is not kept is read as
    r − log(C − K): the softmax of what is read gives the kept classes their stored probabilities, and spreads the rest
    evenly. A temperature is applied to what is read. For T > 1 the classes that are not kept then weigh at least as
    much together as in the whole answer, and the same if they are equal.
    """

    classes: int
    kept: int
    number: torch.dtype
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """(C,)."""
        return (self.classes,)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The bytes of a row."""
        return (self._number_bytes + math.ceil(self.kept * self._index_bits / 8),)

    @property
    def _number_bytes(self) -> int:
        return (self.kept + 1) * self.number.itemsize

    @property
    def _index_bits(self) -> int:
        return max(1, (self.classes - 1).bit_length())

    def encode(self, answers: Tensor) -> Tensor:
        """Rows of logits (n, C). Raises ModelCompressionError for NaN, and for kept logits beyond ``number``."""
        if bool(answers.isnan().any()):
            raise ModelCompressionError(
                "the teacher answers with NaN, of which no logit is the largest; use another "
                f"{setting('teacher_precision')}, or look at the teacher with `model-compression doctor`"
            )
        values, indices = answers.topk(self.kept, dim=1)
        least = values[:, -1:]
        tied = answers == least
        if int(tied.sum()) > int((values == least).sum()):  # with a class that is not kept
            above = answers > least
            room = self.kept - above.sum(dim=1, keepdim=True)
            indices = (above | (tied & (tied.cumsum(dim=1) <= room))).nonzero()[:, 1].view_as(indices)
        indices = indices.sort(dim=1).values
        rest = answers.scatter(1, indices, -math.inf).logsumexp(dim=1, keepdim=True)
        numbers = _rounded(torch.cat([answers.gather(1, indices), rest], dim=1), self.number)
        return torch.cat([numbers.view(torch.uint8), _packed(indices, self._index_bits)], dim=1)

    def decode(self, rows: Tensor) -> Tensor:
        """Logits (n, C)."""
        numbers, indices = self._parts(rows)
        share = numbers[:, -1:] - math.log(self.classes - self.kept)
        return share.repeat(1, self.classes).scatter_(1, indices, numbers[:, :-1])

    def compare(self, rows: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """The kept logits and r, of both for the classes that are kept in ``rows``."""
        numbers, indices = self._parts(rows)
        rest = answers.scatter(1, indices, -math.inf).logsumexp(dim=1, keepdim=True)
        return numbers, torch.cat([answers.gather(1, indices), rest], dim=1)

    def _parts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers (n, K + 1) in float32, and the kept classes (n, K)."""
        numbers = rows[:, : self._number_bytes].clone(memory_format=torch.contiguous_format).view(self.number).float()
        indices = _unpacked(rows[:, self._number_bytes :], self.kept, self._index_bits)
        return numbers, indices.clamp_(max=self.classes - 1)  # whatever somebody wrote into a file


@dataclass(frozen=True)
class PixelTopK:
    """`TopK` of each pixel of maps (C, H, W): a row holds those of all pixels, line by line."""

    shape: tuple[int, int, int]
    pixel: TopK
    dtype = torch.uint8

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The bytes of a row."""
        return (self._pixels * self.pixel.row_shape[0],)

    @property
    def _pixels(self) -> int:
        return self.shape[1] * self.shape[2]

    def encode(self, answers: Tensor) -> Tensor:
        """Rows of logits (n, C, H, W). Raises as `TopK.encode`."""
        return self.pixel.encode(self._flat(answers)).view(len(answers), -1)

    def decode(self, rows: Tensor) -> Tensor:
        """Logits (n, C, H, W)."""
        flat = self.pixel.decode(self._of_pixels(rows))
        return flat.view(len(rows), *self.shape[1:], -1).movedim(-1, 1)

    def compare(self, rows: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Those of all pixels, (n, …)."""
        found, expected = self.pixel.compare(self._of_pixels(rows), self._flat(answers))
        return found.view(len(rows), -1), expected.view(len(rows), -1)

    def _flat(self, answers: Tensor) -> Tensor:
        return answers.movedim(1, -1).reshape(-1, self.shape[0])

    def _of_pixels(self, rows: Tensor) -> Tensor:
        return rows.reshape(len(rows) * self._pixels, -1)


def row_format(shape: Sequence[int], dtype: CacheDtype, kept: int = 0) -> RowFormat:
    """The format of answers of ``shape``: dense, or with the ``kept`` largest of (C,) logits, or of each pixel's of
    (C, H, W).

    Raises ValueError for a shape that cannot be.
    """
    if min(shape, default=0) < 0 or (kept and (len(shape) not in (1, 3) or kept >= shape[0])):
        raise ValueError(f"no row holds answers of shape {tuple(shape)}, {kept or 'all'} numbers of each")
    if kept:
        pixel = TopK(shape[0], kept, stored_dtype(dtype))
        return pixel if len(shape) == 1 else PixelTopK((shape[0], shape[1], shape[2]), pixel)
    return Dense(tuple(shape), stored_dtype(dtype))


def row_bytes(form: RowFormat) -> int:
    """Bytes of a row."""
    return math.prod(form.row_shape) * form.dtype.itemsize


def stored_dtype(dtype: CacheDtype) -> torch.dtype:
    """The type in which numbers are stored."""
    return {"fp16": torch.float16, "fp32": torch.float32}[dtype]


def _rounded(answers: Tensor, dtype: torch.dtype) -> Tensor:
    stored = answers.to(dtype)
    if bool(answers.isfinite().all()) and not bool(stored.isfinite().all()):
        raise ModelCompressionError(
            f"the teacher's answers reach {float(answers.abs().max()):.3g}, and half precision ends at 65,504; "
            f"store them with {setting('teacher_cache_dtype', 'fp32')}"
        )
    return stored.contiguous()


def _packed(indices: Tensor, bits: int) -> Tensor:
    """Numbers (n, K) of ``bits`` bits each as bytes (n, ⌈K · bits / 8⌉), the lowest bit first."""
    found = (indices[:, :, None] >> torch.arange(bits, device=indices.device)) & 1
    found = torch.nn.functional.pad(found.flatten(1), (0, -indices.shape[1] * bits % 8))
    places = torch.arange(8, device=indices.device)
    return (found.view(len(indices), -1, 8) << places).sum(dim=2).to(torch.uint8)


def _unpacked(packed: Tensor, count: int, bits: int) -> Tensor:
    """What `_packed` was given: (n, ``count``) int64."""
    found = (packed[:, :, None] >> torch.arange(8, device=packed.device, dtype=torch.uint8)) & 1
    found = found.flatten(1)[:, : count * bits].reshape(len(packed), count, bits).long()
    return (found << torch.arange(bits, device=packed.device)).sum(dim=2)
