"""The upper part of a network's picture: its layers as slabs in rows, with arrows between and labels below."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from model_compression.models import canvas
from model_compression.models.summary import Layer, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 11.0  # between lines of a label
BAND = 4.0  # width of a normalisation's or an activation's part of a slab
RED_GREEN_BLUE = ("#e39a94", "#a8d09e", "#96b6e2")
WORD, DIGIT = 4.1, 4.8  # mean width of a letter in a label's words, and in its shape


@dataclass(frozen=True)
class Stage:
    """A slab: the layer that it shows, and those after it that are drawn as its edge or as a word below it."""

    layer: Layer
    extras: tuple[Layer, ...] = ()

    @property
    def vector(self) -> bool:
        """True for (D,) and for maps of one pixel, which are drawn as columns."""
        return math.prod(self.layer.shape[1:]) == 1

    @property
    def group(self) -> str:
        """The block that it is in, empty at the top level."""
        return self.layer.name.rpartition(".")[0]

    @property
    def height(self) -> float:
        """Proportional to the maps' height, or to the logarithm of a vector's length."""
        return 10.0 * math.log2(self.layer.shape[0] + 1) if self.vector else 3.4 * self.layer.shape[1]

    @property
    def depth(self) -> float:
        """How far the back is to the right of the front, and above it: proportional to the maps' width."""
        return 4.0 if self.vector else 0.8 * self.layer.shape[2]

    @property
    def front(self) -> float:
        """Proportional to the root of the number of maps; one width for all vectors."""
        if self.layer.kind == "input":
            return 13.0
        bands = sum(extra.kind in ("normalization", "activation") for extra in self.extras)
        return max(9.0 if self.vector else 2.0 + 1.4 * math.sqrt(self.layer.shape[0]), BAND * (bands + 1))

    @property
    def width(self) -> float:
        """From the left end of the front to the right end of the back."""
        return self.front + self.depth

    @property
    def words(self) -> list[str]:
        """What is below its name and shape: what it does, then what is done to its output."""
        return [text for text in (self.layer.short, *(extra.short for extra in self.extras)) if text]

    @property
    def slot(self) -> float:
        """The width that it takes, with its label and the arrow to the next."""
        label = max(WORD * len(words) for words in (self.layer.name.rpartition(".")[2], *self.words))
        shape = DIGIT * len(canvas.shape_text(self.layer.shape))
        return max(self.width + 14.0, max(label, shape) + 7.0)


def stages_of(summary: Summary) -> list[Stage]:
    """The input, and every layer that is a slab, with what follows it up to the next slab."""
    shown = Layer(name="input", kind="input", text="", short="", shape=summary.input_shape, parameters=0, macs=0)
    stages = [Stage(shown)]
    for layer in summary.layers:
        if layer.kind in canvas.COLOURS:
            stages.append(Stage(layer))
        else:
            stages[-1] = Stage(stages[-1].layer, (*stages[-1].extras, layer))
    return stages


def rows_of(stages: Sequence[Stage], room: float = canvas.ROOM) -> list[list[Stage]]:
    """As few rows as fit into ``room``, of about equal width."""
    rows = _filled(stages, room)
    limit = sum(stage.slot for stage in stages) / len(rows)
    while limit < room:
        even = _filled(stages, limit)
        if len(even) == len(rows):
            return even
        limit += 5.0
    return rows


def _filled(stages: Sequence[Stage], room: float) -> list[list[Stage]]:
    rows: list[list[Stage]] = []
    used = math.inf
    for stage in stages:
        if used + stage.slot > room:
            rows.append([])
            used = 0.0
        rows[-1].append(stage)
        used += stage.slot
    return rows


def row_height(row: Sequence[Stage]) -> float:
    """Of slabs, labels and, where there are blocks, their headings."""
    return _heading_height(row) + _slab_height(row) + LINE * (2 + max(len(stage.words) for stage in row)) + 14.0


def _slab_height(row: Sequence[Stage]) -> float:
    return max(stage.height + stage.depth for stage in row)


def _heading_height(row: Sequence[Stage]) -> float:
    return 20.0 if any(stage.group for stage in row) else 0.0


def draw_row(axes: "Axes", row: Sequence[Stage], top: float, *, continued: bool) -> None:
    """Slabs along one axis; ``continued`` adds an arrow into the first, from the row above."""
    spare = canvas.ROOM - sum(stage.slot for stage in row)
    gap = min(46.0, spare / len(row))
    left = canvas.MARGIN + (spare - gap * len(row)) / 2
    bottom = top + _heading_height(row) + _slab_height(row)
    axis = bottom - _slab_height(row) / 2
    centres = []
    for stage in row:
        centres.append(left + (stage.slot + gap) / 2)
        left += stage.slot + gap
    placed = list(zip(row, centres, strict=True))
    _draw_blocks(axes, placed, gap, top, row_height(row) + 2)
    for number, (stage, centre) in enumerate(placed):
        _draw_slab(axes, stage, centre, axis, zorder=3 + number)
        _draw_label(axes, stage, centre, bottom + LINE + 4)
    for number, ((stage, centre), (other, next_centre)) in enumerate(pairwise(placed)):
        side = centre + stage.front / 2  # the middle of its right face
        canvas.arrow(axes, side, next_centre - other.width / 2, axis, zorder=3.5 + number)
    if continued:
        end = centres[0] - row[0].width / 2
        canvas.arrow(axes, end - 24, end, axis, zorder=3)


def _draw_blocks(axes: "Axes", placed: Sequence[tuple[Stage, float]], gap: float, top: float, height: float) -> None:
    for group in dict.fromkeys(stage.group for stage, _ in placed if stage.group):
        members = [(stage, centre) for stage, centre in placed if stage.group == group]
        (first, start), (last, end) = members[0], members[-1]
        reach = gap / 2 - 2.5  # blocks beside each other stay 5 apart
        left, right = start - first.slot / 2 - reach, end + last.slot / 2 + reach
        canvas.box(axes, left, top, right - left, height, 6, canvas.PANEL, canvas.RULE)
        canvas.text(axes, left + 7, top + 13, group, 8, canvas.SOFT, fontweight="bold")


def _draw_slab(axes: "Axes", stage: Stage, centre: float, axis: float, zorder: float) -> None:
    x, bottom = centre - stage.width / 2, axis + (stage.height + stage.depth) / 2
    if stage.layer.kind == "input":
        for number, colour in enumerate(RED_GREEN_BLUE):
            _draw_bands(axes, stage, [(1.6, colour)], x + 5.5 * number, bottom, zorder)
        return
    base = canvas.COLOURS[stage.layer.kind]
    colours = {"normalization": canvas.NORMALIZATION, "activation": activation_shade(base)}
    bands = [(BAND, colours[extra.kind]) for extra in stage.extras if extra.kind in colours]
    _draw_bands(axes, stage, [(stage.front - BAND * len(bands), base), *bands], x, bottom, zorder)


def activation_shade(base: str) -> str:
    """The colour of an activation on a slab of colour ``base``."""
    return canvas.shade(base, 0.8)


def _draw_bands(
    axes: "Axes", stage: Stage, bands: Sequence[tuple[float, str]], x: float, bottom: float, zorder: float
) -> None:
    """Front and top of every (width, colour), and the right side in the last one's colour."""
    depth, top = stage.depth, bottom - stage.height
    for width, colour in bands:
        canvas.polygon(axes, [(x, top), (x + width, top), (x + width, bottom), (x, bottom)], colour, zorder)
        lid = [(x, top), (x + depth, top - depth), (x + width + depth, top - depth), (x + width, top)]
        canvas.polygon(axes, lid, canvas.shade(colour, 1.35), zorder)
        x += width
    side = [(x, top), (x + depth, top - depth), (x + depth, bottom - depth), (x, bottom)]
    canvas.polygon(axes, side, canvas.shade(bands[-1][1], 0.93), zorder)


def _draw_label(axes: "Axes", stage: Stage, centre: float, y: float) -> None:
    canvas.text(axes, centre, y, stage.layer.name.rpartition(".")[2], 8, fontweight="bold", ha="center")
    canvas.text(axes, centre, y + LINE, canvas.shape_text(stage.layer.shape), 7.5, ha="center")
    for number, words in enumerate(stage.words, start=2):
        canvas.text(axes, centre, y + LINE * number, words, 7, canvas.SOFT, ha="center")
