"""Colours, texts and polygons of the picture of a network, on one bare axes in points, with y downwards."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, MARGIN = 850.0, 26.0
ROOM = WIDTH - 2 * MARGIN

INK, SOFT, FAINT, RULE, PANEL = "#1f2933", "#55616e", "#8793a0", "#d8dde3", "#f3f5f7"
COLOURS = {"convolution": "#7fa8d9", "pool": "#f0b27a", "linear": "#8fc3a3", "other": "#c3b1d9"}
NORMALIZATION = "#e6ebf0"


def shape_text(shape: Sequence[int]) -> str:
    """(192, 32, 32) → 192×32×32, (1024,) → 1,024."""
    return f"{shape[0]:,}" if len(shape) == 1 else "×".join(map(str, shape))


def text(axes: "Axes", x: float, y: float, words: str, size: float = 7.5, colour: str = INK, **more: Any) -> None:
    """Words at (x, y), the left end of their baseline unless ``ha`` is given."""
    axes.text(x, y, words, fontsize=size, color=colour, verticalalignment="baseline", **more)


def polygon(
    axes: "Axes", points: Sequence[tuple[float, float]], colour: str, zorder: float = 2, edge: str | None = None
) -> None:
    """A filled polygon with a thin outline, by default a darker shade of it."""
    from matplotlib.patches import Polygon

    outline = edge or shade(colour, 0.55)
    axes.add_patch(
        Polygon(points, facecolor=colour, edgecolor=outline, linewidth=0.5, joinstyle="round", zorder=zorder)
    )


def box(axes: "Axes", x: float, y: float, width: float, height: float, radius: float, colour: str, edge: str) -> None:
    """A rectangle with round corners, behind everything else."""
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor=edge, linewidth=0.7, zorder=1)
    )


def line(axes: "Axes", start: float, end: float, y: float, colour: str = RULE, zorder: float = 2) -> None:
    """A thin horizontal line."""
    axes.plot([start, end], [y, y], color=colour, linewidth=0.9, zorder=zorder, solid_capstyle="round")


def arrow(axes: "Axes", start: float, end: float, y: float, zorder: float) -> None:
    """A horizontal arrow to the right."""
    line(axes, start, end - 4.5, y, SOFT, zorder)
    polygon(axes, [(end - 5, y - 2.4), (end - 0.5, y), (end - 5, y + 2.4)], SOFT, zorder, edge=SOFT)


def shade(colour: str, factor: float) -> str:
    """Darker below 1; above it lighter, towards white."""
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    if factor > 1:
        channels = [round(255 - (255 - channel) * (2 - factor)) for channel in channels]
        factor = 1
    return "#" + "".join(f"{round(channel * factor):02x}" for channel in channels)


def activation_shade(base: str) -> str:
    """The colour of an activation on a slab of colour ``base``."""
    return shade(base, 0.8)
