"""A plot of a comparison of methods: accuracy with its interval, and what an epoch costs, a line a method."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_compression.core.files import write_atomically
from model_compression.reports.method_comparison import LABELS, Comparison, Row

_BLUE, _GREY, _BLACK = "#0072B2", "#777777", "#000000"


def plot_comparison(path: Path, comparison: Comparison, title: str, names: Mapping[str, str]) -> None:
    """Writes the plot, best method on top, as PNG or SVG; ``names`` are what arms are called, where not by themselves.

    Ticks are seeds, bars the 95 % intervals of the means, diamonds single seeds; the dashed line is label-only's
    mean. A bar that is far longer than the differences between methods, as of two seeds, runs out of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = comparison.rows[::-1]
    timed = any(row.seconds_per_epoch is not None for row in rows)
    figure = Figure(figsize=(9.5, 1.5 + 0.27 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + timed, sharey=True, squeeze=False, width_ratios=[3, 1][: 1 + timed])[0]
    for height, row in enumerate(rows):
        _draw_accuracy(axes[0], height, row)
    labels = next((row for row in rows if row.arm == LABELS), None)
    if labels is not None:
        axes[0].axvline(100 * labels.accuracy.mean, ls="--", lw=1, color=_GREY, zorder=0)
    axes[0].set(xlabel=f"{comparison.eval_set} accuracy, %", ylim=(-0.7, len(rows) - 0.3), xlim=_limits(rows))
    axes[0].set_yticks(range(len(rows)), [f"{names.get(row.arm, row.arm)}  (n = {row.accuracy.n})" for row in rows])
    if timed:
        axes[1].barh(range(len(rows)), [row.seconds_per_epoch or 0.0 for row in rows], height=0.55, color=_GREY)
        axes[1].set(xlabel="seconds an epoch")
    for one in axes:
        one.grid(alpha=0.25, axis="x")
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(axis="y", length=0)
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=130)
    write_atomically(path, buffer.getvalue())


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Of the accuracy axis, in percent: all seeds, and intervals up to half the seeds' range beyond them."""
    accuracies = [100 * accuracy for row in rows for accuracy in row.accuracies]
    widths = [100 * (row.accuracy.half_width or 0.0) for row in rows]
    means = [100 * row.accuracy.mean for row in rows]
    low, high = min(accuracies), max(accuracies)
    span = max(high - low, 0.5)
    lowest = min(mean - width for mean, width in zip(means, widths, strict=True))
    highest = max(mean + width for mean, width in zip(means, widths, strict=True))
    margin = 0.05 * span
    return max(low - span / 2, lowest) - margin, min(high + span / 2, highest) + margin


def _draw_accuracy(axes: Any, height: int, row: Row) -> None:
    colour = _BLACK if row.arm == LABELS else _BLUE
    mean = 100 * row.accuracy.mean
    if row.accuracy.half_width is not None:
        axes.errorbar(mean, height, xerr=100 * row.accuracy.half_width, color=colour, lw=1.4, capsize=2.5)
        accuracies = [100 * accuracy for accuracy in row.accuracies]
        axes.plot(accuracies, [height] * len(accuracies), "|", ms=10, color=colour, alpha=0.6)
    axes.plot(mean, height, "o" if row.accuracy.half_width is not None else "D", ms=5, color=colour, mew=0)
