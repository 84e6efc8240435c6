"""Headline figures, rows of intervals on a common scale, and pictures: what the parts of a page are made of."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_compression.core.metric import Metric
from model_compression.core.text import NO_BREAK

_PICTURE_SIDE = 96  # pixels
_ROOM = 0.4  # at both ends of a scale at least, in shown units


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline figure: its name, its value, and what it rests on."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """An estimate on a scale: ``middle``, ``interval``, single ``points``, and a second estimate ``other`` beside it.

    ``text`` has the figures, ``note`` what they rest on.
    """

    name: str
    series: int
    text: str
    note: str
    middle: float
    interval: tuple[float, float] | None
    points: Sequence[float] = ()
    other: float | None = None


class Rows:
    """Rows on one scale with about ``count`` round ticks, and a little room at both ends."""

    def __init__(self, rows: Sequence[Row], metric: Metric, count: int):
        self.rows, self._factor = rows, metric.factor
        values = [value for row in rows for value in (*(row.interval or ()), *row.points)]
        values += [row.middle for row in rows] + [row.other for row in rows if row.other is not None]
        low, high = (self._factor * end for end in (min(values, default=0.0), max(values, default=1.0)))
        room = max(0.03 * (high - low), _ROOM)
        bounds = metric.bounded((low - room) / self._factor, (high + room) / self._factor)
        self._low, self._high = (self._factor * end for end in bounds)
        step = _round_step((self._high - self._low) / count)
        first, last = math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        ticks = [number * step / self._factor for number in range(first, last + 1)]
        self.ticks = [(self.place(tick), metric.text(tick, digits, space=NO_BREAK)) for tick in ticks]

    def place(self, value: float) -> float:
        """Where a value is, in per cent of the width."""
        return round(100 * (self._factor * value - self._low) / (self._high - self._low), 2)


def _round_step(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most) + 1e-9)
    return next(factor * power for factor in (5, 2, 1) if factor * power <= most * (1 + 1e-6))


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """An image (C, H, W) as a PNG data URI, at most 96 pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) < 3 else pixels[:3].transpose(1, 2, 0))
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
