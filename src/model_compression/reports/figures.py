"""Figures of matplotlib for files, without a window and without global state."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY, BLACK = "#0072B2", "#777777", "#000000"


def new_figure(width: float, height: float, **options: Any) -> "Figure":
    """An empty figure, ``width`` × ``height`` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: "Axes", grid: str = "both") -> None:
    """A pale grid along the axes ``grid``, "x", "y" or "both", and no frame above and to the right."""
    axes.grid(alpha=0.25, axis=grid)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def label_log_ticks(axes: "Axes", which: str = "x") -> None:
    """Plain numbers on a logarithmic axis: at powers of ten, and at 2 and 5 times them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10f}".rstrip("0").rstrip(".")))
    axis.set_minor_formatter(NullFormatter())


def save_figure(path: Path, figure: "Figure", **options: Any) -> None:
    """Writes the figure as PNG or SVG, by the ending of ``path``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=130, **options)
    write_atomically(path, buffer.getvalue())
