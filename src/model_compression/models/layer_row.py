"""The upper part of the picture of a network: its layers as slabs in rows, with arrows between and labels below."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from model_compression.models import drawing_shapes as shapes
from model_compression.models.summary import Layer, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 11.0  # between lines of a label
BAND = 4.0  # width of a normalisation's or an activation's part of a slab
RED_GREEN_BLUE = ("#e39a94", "#a8d09e", "#96b6e2")
WORD, DIGIT = 4.1, 4.8  # mean width of a letter in a label's words, and in its shape


@dataclass(frozen=True)
class Slab:
    """The layer that it shows, and the layers after it that are drawn as its edge or named below it."""

    layer: Layer
    extras: tuple[Layer, ...] = ()

    @property
    def is_vector(self) -> bool:
        """True for (D,) and for maps of one pixel, which are drawn as columns."""
        return math.prod(self.layer.shape[1:]) == 1

    @property
    def block(self) -> str:
        """The name of the block that the layer is in, empty at the top level."""
        return self.layer.name.rpartition(".")[0]

    @property
    def height(self) -> float:
        """Proportional to the height of the maps, or to the logarithm of a vector's length."""
        return 10.0 * math.log2(self.layer.shape[0] + 1) if self.is_vector else 3.4 * self.layer.shape[1]

    @property
    def depth(self) -> float:
        """How far the back is to the right of the front, and above it: proportional to the width of the maps."""
        return 4.0 if self.is_vector else 0.8 * self.layer.shape[2]

    @property
    def front(self) -> float:
        """Proportional to the root of the number of maps; one width for all vectors."""
        if self.layer.kind == "input":
            return 13.0
        bands = sum(extra.kind in ("normalization", "activation") for extra in self.extras)
        return max(9.0 if self.is_vector else 2.0 + 1.4 * math.sqrt(self.layer.shape[0]), BAND * (bands + 1))

    @property
    def width(self) -> float:
        """From the left end of the front to the right end of the back."""
        return self.front + self.depth

    @property
    def words(self) -> list[str]:
        """The operations below name and shape: that of the layer, then those on its output."""
        return [text for text in (self.layer.short, *(extra.short for extra in self.extras)) if text]

    @property
    def slot(self) -> float:
        """The width with the label and the arrow to the next slab."""
        label = max(WORD * len(words) for words in (self.layer.name.rpartition(".")[2], *self.words))
        return max(self.width + 14.0, max(label, DIGIT * len(shapes.shape_text(self.layer.shape))) + 7.0)


def build_slabs(summary: Summary) -> list[Slab]:
    """The input, and a slab for each layer that has one, with the layers up to the next slab."""
    image = Layer(name="input", kind="input", text="", short="", shape=summary.input_shape, parameters=0, macs=0)
    slabs = [Slab(image)]
    for layer in summary.layers:
        if layer.kind in shapes.COLOURS:
            slabs.append(Slab(layer))
        else:
            slabs[-1] = Slab(slabs[-1].layer, (*slabs[-1].extras, layer))
    return slabs


def split_into_rows(slabs: Sequence[Slab]) -> list[list[Slab]]:
    """As few rows as fit the page, of about equal width."""
    rows = _fill_rows(slabs, shapes.ROOM)
    limit = sum(slab.slot for slab in slabs) / len(rows)
    while limit < shapes.ROOM:
        even = _fill_rows(slabs, limit)
        if len(even) == len(rows):
            return even
        limit += 5.0
    return rows


def _fill_rows(slabs: Sequence[Slab], room: float) -> list[list[Slab]]:
    rows: list[list[Slab]] = []
    used = math.inf
    for slab in slabs:
        if used + slab.slot > room:
            rows.append([])
            used = 0.0
        rows[-1].append(slab)
        used += slab.slot
    return rows


def row_height(row: Sequence[Slab]) -> float:
    """The height of slabs, labels and, where there are blocks, their headings."""
    return _slabs_bottom(row) + LINE * (2 + max(len(slab.words) for slab in row)) + 14.0


def _slabs_bottom(row: Sequence[Slab]) -> float:
    heading = 20.0 if any(slab.block for slab in row) else 0.0
    return heading + _slabs_height(row)


def _slabs_height(row: Sequence[Slab]) -> float:
    return max(slab.height + slab.depth for slab in row)


def draw_row(axes: "Axes", row: Sequence[Slab], top: float, *, continued: bool) -> None:
    """Slabs along one axis; ``continued`` adds an arrow into the first, from the row above."""
    spare = shapes.ROOM - sum(slab.slot for slab in row)
    gap = min(46.0, spare / len(row))
    left = shapes.MARGIN + (spare - gap * len(row)) / 2
    bottom = top + _slabs_bottom(row)
    axis = bottom - _slabs_height(row) / 2
    centres = []
    for slab in row:
        centres.append(left + (slab.slot + gap) / 2)
        left += slab.slot + gap
    _draw_blocks(axes, row, centres, gap, top)
    for number, (slab, centre) in enumerate(zip(row, centres, strict=True)):
        _draw_slab(axes, slab, centre, axis, zorder=3 + number)
        _draw_label(axes, slab, centre, bottom + LINE + 4)
    for number, ((slab, centre), (other, next_centre)) in enumerate(pairwise(zip(row, centres, strict=True))):
        side = centre + slab.front / 2  # the middle of its right face
        shapes.arrow(axes, side, next_centre - other.width / 2, axis, zorder=3.5 + number)
    if continued:
        end = centres[0] - row[0].width / 2
        shapes.arrow(axes, end - 24, end, axis, zorder=3)


def _draw_blocks(axes: "Axes", row: Sequence[Slab], centres: Sequence[float], gap: float, top: float) -> None:
    for block in dict.fromkeys(slab.block for slab in row if slab.block):
        members = [(slab, centre) for slab, centre in zip(row, centres, strict=True) if slab.block == block]
        (first, start), (last, end) = members[0], members[-1]
        reach = gap / 2 - 2.5  # blocks beside each other stay 5 apart
        left, right = start - first.slot / 2 - reach, end + last.slot / 2 + reach
        shapes.box(axes, left, top, right - left, row_height(row) + 2, 6, shapes.PANEL, shapes.RULE)
        shapes.text(axes, left + 7, top + 13, block, 8, shapes.SOFT, fontweight="bold")


def _draw_slab(axes: "Axes", slab: Slab, centre: float, axis: float, zorder: float) -> None:
    x, bottom = centre - slab.width / 2, axis + (slab.height + slab.depth) / 2
    if slab.layer.kind == "input":
        for number, colour in enumerate(RED_GREEN_BLUE):
            _draw_bands(axes, slab, [(1.6, colour)], x + 5.5 * number, bottom, zorder)
        return
    base = shapes.COLOURS[slab.layer.kind]
    colours = {"normalization": shapes.NORMALIZATION, "activation": shapes.activation_shade(base)}
    bands = [(BAND, colours[extra.kind]) for extra in slab.extras if extra.kind in colours]
    _draw_bands(axes, slab, [(slab.front - BAND * len(bands), base), *bands], x, bottom, zorder)


def _draw_bands(
    axes: "Axes", slab: Slab, bands: Sequence[tuple[float, str]], x: float, bottom: float, zorder: float
) -> None:
    """Front and top of every (width, colour), and the right side in the last one's colour."""
    depth, top = slab.depth, bottom - slab.height
    for width, colour in bands:
        shapes.polygon(axes, [(x, top), (x + width, top), (x + width, bottom), (x, bottom)], colour, zorder)
        lid = [(x, top), (x + depth, top - depth), (x + width + depth, top - depth), (x + width, top)]
        shapes.polygon(axes, lid, shapes.shade(colour, 1.35), zorder)
        x += width
    side = [(x, top), (x + depth, top - depth), (x + depth, bottom - depth), (x, bottom)]
    shapes.polygon(axes, side, shapes.shade(bands[-1][1], 0.93), zorder)


def _draw_label(axes: "Axes", slab: Slab, centre: float, y: float) -> None:
    shapes.text(axes, centre, y, slab.layer.name.rpartition(".")[2], 8, fontweight="bold", ha="center")
    shapes.text(axes, centre, y + LINE, shapes.shape_text(slab.layer.shape), 7.5, ha="center")
    for number, words in enumerate(slab.words, start=2):
        shapes.text(axes, centre, y + LINE * number, words, 7, shapes.SOFT, ha="center")
