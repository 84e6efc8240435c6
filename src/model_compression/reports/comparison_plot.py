"""Plots a comparison of methods: a line for each, with its result, interval and seconds per epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_compression.core.metric import Metric
from model_compression.reports.figures import BLACK, BLUE, GREY, new_figure, save_figure, style_axes
from model_compression.reports.method_comparison import LABELS, Comparison, Row


def plot_comparison(path: Path, comparison: Comparison, title: str, names: Mapping[str, str]) -> None:
    """Writes the plot, best method on top, as PNG or SVG; ``names`` maps an arm to its label.

    Ticks are seeds, bars the 95 % intervals of the means, diamonds single seeds; the dashed line is label-only's
    mean. A bar that is far longer than the differences between methods, as of two seeds, runs out of the picture.
    """
    rows, metric = comparison.rows[::-1], comparison.metric
    timed = any(row.seconds_per_epoch is not None for row in rows)
    figure = new_figure(9.5, 1.5 + 0.27 * len(rows))
    axes = figure.subplots(1, 1 + timed, sharey=True, squeeze=False, width_ratios=[3, 1][: 1 + timed])[0]
    for height, row in enumerate(rows):
        _draw_values(axes[0], height, row, metric.factor)
    labels = next((row for row in rows if row.arm == LABELS), None)
    if labels is not None:
        axes[0].axvline(metric.factor * labels.summary.mean, ls="--", lw=1, color=GREY, zorder=0)
    axes[0].set(xlabel=f"{comparison.eval_set} {metric.axis}", ylim=(-0.7, len(rows) - 0.3), xlim=_limits(rows, metric))
    axes[0].set_yticks(range(len(rows)), [f"{names.get(row.arm, row.arm)}  (n = {row.summary.n})" for row in rows])
    if timed:
        axes[1].barh(range(len(rows)), [row.seconds_per_epoch or 0.0 for row in rows], height=0.55, color=GREY)
        axes[1].set(xlabel="seconds an epoch")
    for one in axes:
        style_axes(one, "x")
        one.tick_params(axis="y", length=0)
    figure.suptitle(title, fontsize=11)
    save_figure(path, figure)


def _limits(rows: Sequence[Row], metric: Metric) -> tuple[float, float]:
    """Of the axis, in shown units: all seeds, and intervals up to half the seeds' range beyond them."""
    values = [metric.factor * value for row in rows for value in row.values]
    means = [metric.factor * row.summary.mean for row in rows]
    widths = [metric.factor * (row.summary.half_width or 0.0) for row in rows]
    low, high = min(values), max(values)
    span = max(high - low, 0.5)
    lowest = min(mean - width for mean, width in zip(means, widths, strict=True))
    highest = max(mean + width for mean, width in zip(means, widths, strict=True))
    margin = 0.05 * span
    return max(low - span / 2, lowest) - margin, min(high + span / 2, highest) + margin


def _draw_values(axes: Any, height: int, row: Row, factor: float) -> None:
    colour = BLACK if row.arm == LABELS else BLUE
    mean, half_width = factor * row.summary.mean, row.summary.half_width
    if half_width is not None:
        axes.errorbar(mean, height, xerr=factor * half_width, color=colour, lw=1.4, capsize=2.5)
        values = [factor * value for value in row.values]
        axes.plot(values, [height] * len(values), "|", ms=10, color=colour, alpha=0.6)
    axes.plot(mean, height, "D" if half_width is None else "o", ms=5, color=colour, mew=0)
