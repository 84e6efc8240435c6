"""The picture of a network: its layers as slabs in a row, and a list of what each of them holds and costs.

Lengths are in points, y points down, and the figure is one bare axes, so that every text has a place of its own.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from model_compression.models.summary import Layer, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, MARGIN, HEADER = 830.0, 26.0, 64.0
LABEL_LINE, LIST_LINE, ROW_GAP, BAND = 11.0, 16.5, 20.0, 4.0

INK, SOFT, FAINT, RULE, PANEL = "#1f2933", "#55616e", "#8793a0", "#d8dde3", "#f3f5f7"
COLOURS = {"convolution": "#7fa8d9", "pool": "#f0b27a", "linear": "#8fc3a3", "other": "#c3b1d9"}
NORMALIZATION = "#e6ebf0"
RED_GREEN_BLUE = ("#e39a94", "#a8d09e", "#96b6e2")

STYLE = {
    "font.family": "sans-serif",
    # The second is as wide as the first, the others are narrower: labels keep their places where the first is missing.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
    "svg.fonttype": "none",  # text stays text: a small file, and one can search it
    "svg.hashsalt": "model-compression",  # the same network gives the same bytes
}


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
        """How far the back is to the right of the front, and above it."""
        return 4.0 if self.vector else 0.8 * self.layer.shape[2]

    @property
    def front(self) -> float:
        """Proportional to the root of the number of channels; one width for all vectors."""
        return 9.0 if self.vector else 2.0 + 1.4 * math.sqrt(self.layer.shape[0])

    @property
    def words(self) -> list[str]:
        """What is below its name and shape: what it does, then what is done to its output."""
        return [text for text in (self.layer.short, *(extra.short for extra in self.extras)) if text]

    @property
    def slot(self) -> float:
        """The width that it takes, with its label and the arrow to the next."""
        label = [self.layer.name.rpartition(".")[2], shape_text(self.layer.shape), *self.words]
        return max(self.front + self.depth + 14.0, max(4.2 * len(line) for line in label) + 5.0)


def draw(summary: Summary, title: str, *, file_format: str = "svg") -> bytes:
    """The picture as bytes; the same summary and title give the same ones.

    Args:
        summary: of `summarize`.
        title: the heading.
        file_format: "svg", or what else matplotlib writes, as "png".
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = stages_of(summary)
    rows = rows_of(stages)
    heights = [_row_height(row) for row in rows]
    height = HEADER + sum(heights) + ROW_GAP * len(rows) + LIST_LINE * (len(stages) + 3.2)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # what a user has in matplotlibrc would change the picture
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH / 72, height / 72), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        axes.set_axis_off()
        _draw_header(axes, summary, title, stages)
        top = HEADER
        for row, row_height in zip(rows, heights, strict=True):
            _draw_row(axes, row, top, continued=row is not rows[0])
            top += row_height + ROW_GAP
        _draw_list(axes, summary, stages, top)
        file = io.BytesIO()
        svg = {"Date": None, "Creator": None, "Title": f"{title}: the layers of the network"}
        figure.savefig(file, format=file_format, dpi=144, metadata=svg if file_format == "svg" else None)
    return file.getvalue()


def stages_of(summary: Summary) -> list[Stage]:
    """The input, and every layer that is a slab, with what follows it up to the next slab."""
    shown = Layer(
        name="input", kind="input", text="", short="", shape=summary.input_shape, parameters=0, macs=0
    )
    stages = [Stage(shown)]
    for layer in summary.layers:
        if layer.kind in COLOURS:
            stages.append(Stage(layer))
        else:
            stages[-1] = Stage(stages[-1].layer, (*stages[-1].extras, layer))
    return stages


def rows_of(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Rows of about equal width that fit the page; a new one rather starts after a pool."""
    room = WIDTH - 2 * MARGIN
    count = math.ceil(sum(stage.slot for stage in stages) / room)
    while True:
        rows = _filled(stages, room, sum(stage.slot for stage in stages) / count)
        if rows is not None:
            return rows
        count += 1


def _filled(stages: Sequence[Stage], room: float, share: float) -> list[list[Stage]] | None:
    """Rows that end at a pool near ``share``, or where they are full; None where this leaves one too wide."""
    rows: list[list[Stage]] = [[]]
    used = 0.0
    for stage in stages:
        after_pool = bool(rows[-1]) and rows[-1][-1].layer.kind == "pool"
        if rows[-1] and (used + stage.slot > room or (after_pool and used > 0.8 * share)):
            rows.append([])
            used = 0.0
        rows[-1].append(stage)
        used += stage.slot
    return rows


def shape_text(shape: Sequence[int]) -> str:
    """(192, 32, 32) → 192×32×32, (1024,) → 1,024."""
    return f"{shape[0]:,}" if len(shape) == 1 else "×".join(map(str, shape))


def count_text(count: int) -> str:
    """Four digits and a unit: 27530240 → 27.53 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)


def _text(axes: "Axes", x: float, y: float, text: str, size: float = 7.5, colour: str = INK, **more: Any) -> None:
    axes.text(x, y, text, fontsize=size, color=colour, verticalalignment="baseline", **more)


def _draw_header(axes: "Axes", summary: Summary, title: str, stages: Sequence[Stage]) -> None:
    _text(axes, MARGIN, 32, title, 17, fontweight="bold")
    totals = f"{summary.parameters:,} parameters  ·  {count_text(summary.macs)} MACs"
    classes = math.prod(summary.layers[-1].shape)
    through = f"{shape_text(summary.input_shape)} pixels to {classes} logits"
    _text(axes, MARGIN, 49, f"{totals}  ·  {through}", 9, SOFT)
    kinds = [kind for kind in COLOURS if any(stage.layer.kind == kind for stage in stages)]
    entries = [({"linear": "inner product"}.get(kind, kind), COLOURS[kind]) for kind in kinds]
    extras = {extra.kind for stage in stages for extra in stage.extras}
    if "normalization" in extras:
        entries.append(("normalization", NORMALIZATION))
    if "activation" in extras:
        entries.append(("activation: dark edge", _shade(COLOURS["convolution"], 0.62)))
    x = WIDTH - MARGIN
    for word, colour in reversed(entries):
        _text(axes, x, 32, word, 7.5, SOFT, ha="right")
        x -= 4.25 * len(word) + 11
        _polygon(axes, [(x, 26), (x + 7, 26), (x + 7, 33), (x, 33)], colour)
        x -= 12


def _row_height(row: Sequence[Stage]) -> float:
    return _slab_height(row) + _group_room(row) + LABEL_LINE * (2 + max(len(stage.words) for stage in row)) + 14


def _slab_height(row: Sequence[Stage]) -> float:
    return max(stage.height + stage.depth for stage in row)


def _group_room(row: Sequence[Stage]) -> float:
    return 18.0 if any(stage.group for stage in row) else 0.0


def _draw_row(axes: "Axes", row: Sequence[Stage], top: float, continued: bool) -> None:
    """Slabs along one axis, arrows between them, labels on common lines below."""
    spare = WIDTH - 2 * MARGIN - sum(stage.slot for stage in row)
    gap = min(30.0, spare / len(row))
    left = MARGIN + (spare - gap * len(row)) / 2
    slabs = top + _group_room(row) + _slab_height(row)
    axis = slabs - _slab_height(row) / 2
    centres = []
    for stage in row:
        centres.append(left + (stage.slot + gap) / 2)
        left += stage.slot + gap
    bottom = top + _row_height(row) + 2
    _draw_groups(axes, row, centres, gap, top, bottom)
    for number, (stage, centre) in enumerate(zip(row, centres, strict=True)):
        _draw_slab(axes, stage, centre, axis, zorder=3 + number)
        _draw_label(axes, stage, centre, slabs + LABEL_LINE + 4)
    for number, ((one, x), (other, next_x)) in enumerate(pairwise(zip(row, centres, strict=True))):
        start = x + (one.front + one.depth) / 2 - one.depth / 2
        _draw_arrow(axes, start, next_x - (other.front + other.depth) / 2, axis, zorder=3.5 + number)
    if continued:
        end = centres[0] - (row[0].front + row[0].depth) / 2
        _draw_arrow(axes, end - 22, end, axis, zorder=3)


def _draw_groups(
    axes: "Axes", row: Sequence[Stage], centres: Sequence[float], gap: float, top: float, bottom: float
) -> None:
    from matplotlib.patches import FancyBboxPatch

    for group in dict.fromkeys(stage.group for stage in row if stage.group):
        members = [(stage, x) for stage, x in zip(row, centres, strict=True) if stage.group == group]
        x0, x1 = members[0][1] - members[0][0].slot / 2, members[-1][1] + members[-1][0].slot / 2
        axes.add_patch(
            FancyBboxPatch(
                (x0 - gap / 4, top),
                x1 - x0 + gap / 2,
                bottom - top,
                boxstyle="round,pad=0,rounding_size=6",
                facecolor=PANEL,
                edgecolor=RULE,
                linewidth=0.7,
                zorder=1,
            )
        )
        _text(axes, x0 - gap / 4 + 7, top + 13, group, 8, SOFT, fontweight="bold")


def _draw_slab(axes: "Axes", stage: Stage, centre: float, axis: float, zorder: float) -> None:
    """Front, top and right side; the front is cut into bands for normalisation and activation."""
    depth, x = stage.depth, centre - (stage.front + stage.depth) / 2
    bottom = axis + (stage.height + depth) / 2
    top, base = bottom - stage.height, COLOURS.get(stage.layer.kind, FAINT)
    bands = _bands(stage, base)
    for width, colour in bands:
        _polygon(axes, [(x, top), (x + width, top), (x + width, bottom), (x, bottom)], colour, zorder)
        lid = [(x, top), (x + depth, top - depth), (x + width + depth, top - depth), (x + width, top)]
        _polygon(axes, lid, _shade(colour, 1.16), zorder)
        x += width
    side = [(x, top), (x + depth, top - depth), (x + depth, bottom - depth), (x, bottom)]
    _polygon(axes, side, _shade(bands[-1][1], 0.86), zorder)


def _bands(stage: Stage, base: str) -> list[tuple[float, str]]:
    """(width, colour) from left to right; bands are taken from the front where it is wide enough, else added."""
    if stage.layer.kind == "input":
        return [(stage.front / 3, colour) for colour in RED_GREEN_BLUE]
    colours = {"normalization": NORMALIZATION, "activation": _shade(base, 0.62)}
    extras = [(BAND, colours[extra.kind]) for extra in stage.extras if extra.kind in colours]
    return [(max(stage.front - BAND * len(extras), BAND), base), *extras]


def _draw_label(axes: "Axes", stage: Stage, centre: float, y: float) -> None:
    _text(axes, centre, y, stage.layer.name.rpartition(".")[2], 8, fontweight="bold", ha="center")
    _text(axes, centre, y + LABEL_LINE, shape_text(stage.layer.shape), 7.5, ha="center")
    for line, words in enumerate(stage.words, start=2):
        _text(axes, centre, y + LABEL_LINE * line, words, 7, SOFT, ha="center")


def _draw_arrow(axes: "Axes", start: float, end: float, y: float, zorder: float) -> None:
    axes.plot([start, end - 4.5], [y, y], color=SOFT, linewidth=0.9, zorder=zorder, solid_capstyle="round")
    _polygon(axes, [(end - 5, y - 2.4), (end - 0.5, y), (end - 5, y + 2.4)], SOFT, zorder, edge=SOFT)


def _polygon(
    axes: "Axes", points: Sequence[tuple[float, float]], colour: str, zorder: float = 2, edge: str | None = None
) -> None:
    from matplotlib.patches import Polygon

    outline = edge or _shade(colour, 0.55)
    axes.add_patch(
        Polygon(points, facecolor=colour, edgecolor=outline, linewidth=0.5, joinstyle="round", zorder=zorder)
    )


def _shade(colour: str, factor: float) -> str:
    """Darker below 1, lighter above."""
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{min(255, round(channel * factor)):02x}" for channel in channels)


def _draw_list(axes: "Axes", summary: Summary, stages: Sequence[Stage], top: float) -> None:
    """One line a slab: name, what it does, shape, and bars for its parts of the parameters and of the MACs."""
    columns = (MARGIN, 200.0, 430.0, 500.0, 660.0)
    for x, words in zip(columns, ("layer", "operation", "output", "parameters", "MACs"), strict=True):
        _text(axes, x, top, words, 7.5, FAINT, fontweight="bold")
    _rule(axes, top + 6)
    y = top + 6 + LIST_LINE * 0.8
    for stage in stages[1:]:
        _draw_list_line(axes, summary, stage, columns, y)
        y += LIST_LINE
    _rule(axes, y - LIST_LINE * 0.55)


def _draw_list_line(
    axes: "Axes", summary: Summary, stage: Stage, columns: Sequence[float], y: float
) -> None:
    layer = stage.layer
    _text(axes, columns[0], y, layer.name, 8, fontweight="bold")
    operation = "  ·  ".join([layer.text, *(extra.text for extra in stage.extras)])
    _text(axes, columns[1], y, operation, 7.5, SOFT)
    _text(axes, columns[2], y, shape_text(layer.shape), 7.5)
    parameters = layer.parameters + sum(extra.parameters for extra in stage.extras)


def _rule(axes: "Axes", y: float) -> None:
    axes.plot([MARGIN, WIDTH - MARGIN], [y, y], color=RULE, linewidth=0.8)
