"""Plots a result and the training loss of each epoch into a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_compression.core.metric import DEFAULT_METRIC
from model_compression.reports.figures import GREY, new_figure, save_figure, style_axes

Events = Sequence[Mapping[str, Any]]

# Okabe and Ito's colours, told apart by colour-blind readers too
_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def plot_curves(
    path: Path, curves: Mapping[str, Sequence[Events]], *, title: str, levels: Mapping[str, float] | None = None
) -> None:
    """Test accuracy and training loss against epochs, a line for each arm (a thin one for each seed), as PNG or SVG.

    ``curves`` maps an arm to the epoch events of its runs. ``levels`` are accuracies drawn as dashed lines, by name.
    The losses of different arms are different quantities: their axis is logarithmic, and only shapes compare.
    """
    metric = DEFAULT_METRIC
    figure = new_figure(10, 4.2)
    result, loss = figure.subplots(1, 2)
    for number, (arm, runs) in enumerate(curves.items()):
        for seed, events in enumerate(runs):
            for axes, key, factor in ((result, metric.key("test"), metric.factor), (loss, "train_loss", 1.0)):
                points = [(event["epoch"], factor * event[key]) for event in events if key in event]
                axes.plot(
                    [epoch for epoch, _ in points], [value for _, value in points],
                    label=arm if seed == 0 else None, color=_COLOURS[number % len(_COLOURS)],
                    lw=1.6 if seed == 0 else 0.8, marker="o" if len(points) < 12 else None, ms=3,
                )  # fmt: skip
    for name, level in (levels or {}).items():
        result.axhline(metric.factor * level, ls="--", lw=1, color=GREY)
        result.annotate(
            f"{name} {metric.text(level)}", (0.99, metric.factor * level), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=8, color="#555555",
        )  # fmt: skip
    result.set(xlabel="epoch", ylabel=f"test {metric.axis}", title=f"Test {metric.label}")
    loss.set(xlabel="epoch", ylabel="training loss, each arm's own", title="Training loss", yscale="log")
    for axes in (result, loss):
        style_axes(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    result.legend(frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(title)
    save_figure(path, figure)
