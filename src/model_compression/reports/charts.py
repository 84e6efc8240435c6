"""Charts of the report as SVG, with the colours and the font of the page, and with texts for its points."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_compression.core.text import percent
from model_compression.reports.answers import Calibration
from model_compression.reports.figures import label_log_ticks, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8
"""The number of colours of a page; further series start again, dashed."""
_WIDTH, _HEIGHT = 5.2, 3.3  # inches of 72 units: narrow enough that its text is read on a telephone
_MUTED, _LINE = "#020202", "#030303"  # stand-ins for colours of the page
_NARROW = 1.5  # a logarithmic axis ends at this many times of where it begins, at least
_STYLES = ("-", "--", ":")


@dataclass(frozen=True, kw_only=True)
class Line:
    """``points`` (x, y, text for the reader) of series number ``series``, from 0 on, called ``name``."""

    name: str
    series: int
    points: Sequence[tuple[float, float, str]]
    low: Sequence[float] | None = None
    """Ends of an interval around each point, with ``high``."""
    high: Sequence[float] | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """``svg`` markup, and ``lines``: name, series and points (x, y, text) in the units of the SVG, for the pointer."""

    svg: str
    lines: Sequence[dict[str, Any]]


def line_chart(
    lines: Sequence[Line], *, key: str, x: str, y: str, log: bool = False, levels: Sequence[tuple[float, str]] = ()
) -> Chart:
    """Curves over epochs; ``y`` is a label with its unit; ``levels`` (height, name) are dashed lines across."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure()
    for number, line in enumerate(lines):
        _draw(axes, number, line, lw=1.6, marker="o" if len(line.points) < 25 else None, ms=2.6)
    for height, name in levels:
        axes.axhline(height, ls=(0, (4, 3)), lw=1, color=_MUTED, zorder=1)
        axes.annotate(
            name, (1, height), xycoords=("axes fraction", "data"), xytext=(0, -3), textcoords="offset points",
            ha="right", va="top", fontsize=9, color=_MUTED,
        )  # fmt: skip
    if log:
        axes.set_yscale("log")
        label_log_ticks(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _chart(figure, axes, lines, key, x, y)


def scatter_chart(lines: Sequence[Line], *, key: str, x: str, y: str) -> Chart:
    """Points with vertical intervals, over a logarithmic axis."""
    figure, axes = _figure()
    for number, line in enumerate(lines):
        _draw(axes, number, line, ls="none", marker="o", ms=7, mec="none")
    axes.set_xscale("log")
    axes.margins(0.12)
    low, high = axes.get_xlim()
    if high < _NARROW * low:  # small differences must not look large
        centre, reach = math.sqrt(low * high), math.sqrt(_NARROW)
        axes.set_xlim(centre / reach, centre * reach)
    label_log_ticks(axes)
    return _chart(figure, axes, lines, key, x, y)


def reliability_chart(
    lines: Sequence[Line],
    *,
    key: str,
    x: str = "confidence: mean of the largest probability, %",
    y: str = "right predictions, %",
) -> Chart:
    """Frequency against probability, both in per cent, with intervals and the diagonal of perfect calibration."""
    figure, axes = _figure(height=3.9)
    axes.plot([0, 100], [0, 100], ls=(0, (4, 3)), lw=1, color=_MUTED, zorder=1)
    for number, line in enumerate(lines):
        _draw(axes, number, line, lw=1.4, marker="o", ms=4)
    axes.set(xlim=(0, 102), ylim=(0, 102))
    axes.set_aspect("equal", adjustable="box", anchor="W")
    return _chart(figure, axes, lines, key, x, y)


def value_chart(lines: Sequence[Line], *, key: str, x: str, y: str) -> Chart:
    """Points, prediction over target in one unit, and the diagonal on which they are equal."""
    figure, axes = _figure(height=3.9)
    ends = [float(value) for line in lines for point in line.points for value in point[:2]]
    room = 0.04 * (max(ends) - min(ends)) or 1.0
    low, high = min(ends) - room, max(ends) + room
    axes.plot([low, high], [low, high], ls=(0, (4, 3)), lw=1, color=_MUTED, zorder=1)
    for number, line in enumerate(lines):
        _draw(axes, number, line, ls="none", marker="o", ms=3, mec="none")
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.set_aspect("equal", adjustable="box", anchor="W")
    return _chart(figure, axes, lines, key, x, y)


def calibration_line(calibration: Calibration, name: str, series: int) -> Line:
    """The bins of a calibration for `reliability_chart`, with the 95 % intervals of their shares (Wilson)."""
    return Line(
        name=name,
        series=series,
        points=[
            (
                100 * one.confidence,
                100 * one.right.share,
                f"{percent(one.right.share, 1)} right at {percent(one.confidence, 1)}, n = {one.right.total:,}",
            )
            for one in calibration.bins
        ],
        low=[100 * one.right.interval[0] for one in calibration.bins],
        high=[100 * one.right.interval[1] for one in calibration.bins],
    )


def _draw(axes: "Axes", number: int, line: Line, **style: Any) -> None:
    """Points of a line with their intervals, in stand-ins for the page's colours."""
    across, up = [point[0] for point in line.points], [point[1] for point in line.points]
    gid, colour = f"series-{line.series}-{number}", f"#0000{line.series % SERIES + 16:02x}"
    if line.low is not None and line.high is not None:
        axes.vlines(across, line.low, line.high, color=colour, lw=1.4, gid=f"{gid}-interval")
    axes.plot(across, up, color=colour, gid=gid, **{"ls": _STYLES[line.series // SERIES % len(_STYLES)], **style})


def _figure(height: float = _HEIGHT) -> "tuple[Figure, Axes]":
    figure = new_figure(_WIDTH, height, dpi=72)
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.grid(axis="y", color=_LINE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=10, labelcolor=_MUTED, pad=5)
    return figure, axes


def _chart(figure: "Figure", axes: "Axes", lines: Sequence[Line], key: str, x: str, y: str) -> Chart:
    import matplotlib

    axes.set_xlabel(x, color=_MUTED, fontsize=10, loc="right", labelpad=6)
    axes.set_title(y, color=_MUTED, fontsize=10, loc="left", pad=10)
    figure.canvas.draw()  # which lays it out
    height = figure.bbox.height
    found = []
    for line in lines:
        places = axes.transData.transform([(point[0], point[1]) for point in line.points])
        points = [
            [round(float(across), 1), round(float(height - up), 1), point[2]]
            for (across, up), point in zip(places, line.points, strict=True)
        ]
        found.append({"name": line.name, "series": line.series, "points": points})
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(svg=_apply_theme(buffer.getvalue(), key), lines=found)


def _apply_theme(svg: str, key: str) -> str:
    """The element without its frame, with the page's colours and font, and with ids that are unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r'id="([^"]*)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r'href="#([^"]*)"', rf'href="#{key}-\1"', svg).replace("url(#", f"url(#{key}-")
    svg = re.sub(r"#0000([0-9a-f]{2})", lambda found: f"var(--series-{int(found[1], 16) - 15})", svg)
    for stand_in, name in ((_MUTED, "muted"), (_LINE, "line")):
        svg = svg.replace(stand_in, f"var(--{name})")
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    return svg.replace("xlink:href", "href").strip()
