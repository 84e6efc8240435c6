"""The picture of a network: its layers as slabs in rows, and a list of their operations, shapes and costs."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model_compression.core.text import short_count
from model_compression.models import drawing_shapes as shapes
from model_compression.models.drawing_shapes import COLOURS, FAINT, MARGIN, RULE, SOFT, WIDTH, shape_text, text
from model_compression.models.layer_row import Slab, build_slabs, draw_row, row_height, split_into_rows
from model_compression.models.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER, ROW_GAP, LINE, BAR = 66.0, 20.0, 16.5, 74.0
OUTPUT, PARAMETERS, MACS = 452.0, 590.0, 742.0  # where columns of the list are: left end, then two right ends

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    # The second is as wide as the first, the others are narrower: words keep their places where the first is missing.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
    "text.parse_math": False,  # a $ in the name of a file is a $
    "svg.fonttype": "none",  # text stays text: a small file, and one can search it
    "svg.hashsalt": "model-compression",  # the same network gives the same bytes
}
NOTES = (
    "Slabs: height and depth are the size of the maps, width is the root of their number. "
    "Columns: vectors, height is the logarithm of their length.",
    "MACs: multiply-accumulates of convolutions and inner products for one image.",
)


def draw(summary: Summary, title: str) -> bytes:
    """The picture as SVG; the same summary and title give the same bytes.

    Args:
        summary: the layers, as `summarize` lists them.
        title: the heading.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    slabs = build_slabs(summary)
    rows = split_into_rows(slabs)
    top = HEADER + sum(row_height(row) + ROW_GAP for row in rows)
    height = top + LINE * (len(slabs) + 2.6) + 24
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc would change the picture
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH / 72, height / 72), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        axes.set_axis_off()
        _draw_header(axes, summary, title, slabs)
        _draw_list(axes, summary, slabs, top + 8)
        top = HEADER
        for number, row in enumerate(rows):
            draw_row(axes, row, top, continued=number > 0)
            top += row_height(row) + ROW_GAP
        file = io.BytesIO()
        facts = {"Date": None, "Creator": None, "Title": f"{title}: the layers of the network"}
        figure.savefig(file, format="svg", dpi=144, metadata=facts)
    return file.getvalue()


def _draw_header(axes: "Axes", summary: Summary, title: str, slabs: Sequence[Slab]) -> None:
    text(axes, MARGIN, 33, title, 17, fontweight="bold")
    totals = f"{summary.parameters:,} parameters  ·  {short_count(summary.macs)} MACs"
    logits = math.prod(summary.layers[-1].shape)
    text(axes, MARGIN, 50, f"{totals}  ·  {shape_text(summary.input_shape)} in, {logits} logits out", 9, SOFT)
    x = WIDTH - MARGIN
    for word, colour in reversed(_legend(slabs)):
        text(axes, x, 33, word, 7.5, SOFT, ha="right")
        x -= 4.15 * len(word) + 10
        shapes.polygon(axes, [(x, 26.5), (x + 7, 26.5), (x + 7, 33.5), (x, 33.5)], colour)
        x -= 12


def _legend(slabs: Sequence[Slab]) -> list[tuple[str, str]]:
    """(word, colour) of the kinds of layers that the network has."""
    kinds = {slab.layer.kind for slab in slabs}
    extras = {extra.kind for slab in slabs for extra in slab.extras}
    words = {"linear": "inner product", "other": "other layer"}
    entries = [(words.get(kind, kind), colour) for kind, colour in COLOURS.items() if kind in kinds]
    if "normalization" in extras:
        entries.append(("normalization", shapes.NORMALIZATION))
    if "activation" in extras:
        active = next(s for s in slabs if any(extra.kind == "activation" for extra in s.extras))
        entries.append(("activation", shapes.activation_shade(COLOURS[active.layer.kind])))
    return entries


def _draw_list(axes: "Axes", summary: Summary, slabs: Sequence[Slab], top: float) -> None:
    """A line for each slab, the totals, and notes on the lengths."""
    columns = _name_columns(slabs)
    for x, word in zip((*columns, OUTPUT), ("layer", "with", "operation", "output"), strict=True):
        text(axes, x, top, word, 7.5, FAINT, fontweight="bold")
    text(axes, PARAMETERS, top, "parameters", 7.5, FAINT, fontweight="bold", ha="right")
    text(axes, MACS, top, "MACs", 7.5, FAINT, fontweight="bold", ha="right")
    shapes.line(axes, MARGIN, WIDTH - MARGIN, top + 6)
    y = top + LINE + 3
    for slab in slabs[1:]:
        _draw_line(axes, slab, columns, y)
        layers = (slab.layer, *slab.extras)
        colour = COLOURS[slab.layer.kind]
        _draw_part(axes, PARAMETERS, y, sum(layer.parameters for layer in layers), summary.parameters, colour)
        _draw_part(axes, MACS, y, sum(layer.macs for layer in layers), summary.macs, colour)
        y += LINE
    shapes.line(axes, MARGIN, WIDTH - MARGIN, y - LINE + 6)
    text(axes, MARGIN, y + 1, "total", 8, fontweight="bold")
    text(axes, PARAMETERS, y + 1, f"{summary.parameters:,}", 7.5, fontweight="bold", ha="right")
    text(axes, MACS, y + 1, short_count(summary.macs), 7.5, fontweight="bold", ha="right")
    for number, note in enumerate(NOTES):
        text(axes, MARGIN, y + 24 + 10 * number, note, 6.8, FAINT)


def _name_columns(slabs: Sequence[Slab]) -> tuple[float, float, float]:
    """The left ends of the first three columns, by the longest names."""
    names = MARGIN + 5.3 * max(len(slab.layer.name) for slab in slabs) + 14
    return MARGIN, names, names + 4.1 * max(len(_extra_names(slab)) for slab in slabs) + 14


def _extra_names(slab: Slab) -> str:
    return ", ".join(extra.name.removeprefix(f"{slab.block}.") for extra in slab.extras)


def _draw_line(axes: "Axes", slab: Slab, columns: Sequence[float], y: float) -> None:
    text(axes, columns[0], y, slab.layer.name, 8, fontweight="bold")
    text(axes, columns[1], y, _extra_names(slab), 7.5, SOFT)
    text(axes, columns[2], y, "  ·  ".join([slab.layer.text, *(extra.text for extra in slab.extras)]), 7.5, SOFT)
    text(axes, OUTPUT, y, shape_text(slab.layer.shape), 7.5)


def _draw_part(axes: "Axes", right: float, y: float, count: int, total: int, colour: str) -> None:
    """The number, and a bar that is full for the whole network's."""
    if count == 0:
        text(axes, right, y, "–", 7.5, FAINT, ha="right")
        return
    exact = right == PARAMETERS
    text(axes, right, y, f"{count:,}" if exact else short_count(count), 7.5, ha="right")
    left, length = right + 8, max(1.0, BAR * count / total)
    for end, fill in ((BAR, RULE), (length, colour)):
        shapes.polygon(axes, [(left, y - 6), (left + end, y - 6), (left + end, y), (left, y)], fill, edge=fill)
