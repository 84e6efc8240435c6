"""Plots of accuracy and loss per epoch, as files; no window and no global plotting state."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_compression.core.files import write_atomically

Events = Sequence[Mapping[str, Any]]

# Okabe and Ito's colours, told apart by colour-blind readers too
_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def plot_curves(
    path: Path, curves: Mapping[str, Sequence[Events]], *, title: str, levels: Mapping[str, float] | None = None
) -> None:
    """Test accuracy and training loss against epochs, a line for each arm (one thin line a seed), as PNG or SVG.

    ``curves`` maps an arm to the epoch events of its runs. ``levels`` are accuracies drawn as dashed lines, by name.
    The losses of different arms are different quantities: their axis is logarithmic, and only shapes compare.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    for number, (arm, runs) in enumerate(curves.items()):
        for seed, events in enumerate(runs):
            style = {"color": _COLOURS[number % len(_COLOURS)], "lw": 1.6 if seed == 0 else 0.8}
            label = arm if seed == 0 else None
            epochs, values = _series(events, "test_accuracy")
            marker = "o" if len(epochs) < 12 else None
            accuracy.plot(epochs, [100 * v for v in values], label=label, marker=marker, ms=3, **style)
            epochs, values = _series(events, "train_loss")
            loss.plot(epochs, values, label=label, marker=marker, ms=3, **style)
    for name, level in (levels or {}).items():
        accuracy.axhline(100 * level, ls="--", lw=1, color="#777777")
        accuracy.annotate(
            f"{name} {level:.2%}",
            (0.99, 100 * level),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color="#555555",
        )
    accuracy.set(xlabel="epoch", ylabel="test accuracy, %", title="Test accuracy")
    loss.set(xlabel="epoch", ylabel="training loss, each arm's own", title="Training loss", yscale="log")
    for axes in (accuracy, loss):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    accuracy.legend(frameon=False, fontsize=9, loc="lower right")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=130)
    write_atomically(path, buffer.getvalue())


def _series(events: Events, key: str) -> tuple[list[int], list[float]]:
    points = [(event["epoch"], event[key]) for event in events if key in event]
    return [epoch for epoch, _ in points], [value for _, value in points]
