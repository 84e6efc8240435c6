"""The stages of a compression: a table, and a plot of accuracy against size and latency, Pareto fronts marked."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import read_json, write_atomically
from model_compression.core.manifest import check_manifest
from model_compression.core.text import count, escape_markdown, markdown_table

FILE = "stages.json"
DISTURBED = " (disturbed)"
NOTE = "disturbed: other work on the machine slowed it down; measure again when idle"
_BLUE, _GREY = "#0072B2", "#777777"
_BESIDE = ((-11, 9), (11, 9), (-11, -9), (11, -9), (-13, 0))  # where numbers stand: points may lie upon each other
_ONE_ORDER = 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a network came to: ``accuracy`` and its 95 % ``interval``, 0 to 1, and what it costs in ``runtime``.

    ``size_bytes`` of the file, ``median_ms`` and ``p95_ms`` for one image; ``disturbed`` by other work on the machine.
    """

    name: str
    runtime: str
    size_bytes: int
    parameters: int
    macs: int
    accuracy: float
    interval: tuple[float, float]
    median_ms: float
    p95_ms: float
    disturbed: bool = False

    @property
    def mark(self) -> str:
        """What stands behind a latency that was disturbed."""
        return DISTURBED if self.disturbed else ""


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What `compress` left in the folder ``path``: stages, timed with ``threads``; what of the budget is ``broken``."""

    path: Path
    stages: Sequence[Stage]
    threads: int
    broken: Sequence[str]


def read_compression(folder: Path) -> Compression | None:
    """What stages.json in ``folder`` says, None without one. Raises FileFormatError for a damaged one."""
    path = folder / FILE
    if not path.is_file():
        return None
    names = [field.name for field in fields(Stage) if field.name != "disturbed"]  # which older files do not have
    try:
        check_manifest(folder)
        values = read_json(path)
        stages = [
            Stage(**{name: one[name] for name in names}, disturbed=bool(one.get("disturbed")))
            for one in values["stages"]
        ]
        numbers = [
            n for s in stages for n in (s.size_bytes, s.parameters, s.macs, s.accuracy, *s.interval, s.median_ms)
        ]
        if not stages or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a figure is missing")
        found = Compression(path=folder, stages=stages, threads=int(values["threads"]), broken=list(values["broken"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{path} is not what `model-compression compress` writes: {error}") from None
    return found


def front(stages: Sequence[Stage], cost: str) -> list[bool]:
    """Which stages no other one beats: none is as accurate and as cheap, and better in one. ``cost`` is a field."""
    figures = [(stage.accuracy, getattr(stage, cost)) for stage in stages]
    return [
        not any(
            accuracy >= own and price <= own_price and (accuracy, price) != (own, own_price)
            for accuracy, price in figures
        )
        for own, own_price in figures
    ]


def to_plain(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Plain values, with whether each stage is on the front of size and of latency."""
    fronts = zip(front(stages, "size_bytes"), front(stages, "median_ms"), strict=True)
    return [
        {**asdict(stage), "on_size_front": size, "on_latency_front": latency}
        for stage, (size, latency) in zip(stages, fronts, strict=True)
    ]


def markdown(stages: Sequence[Stage], threads: int) -> str:
    """The table; a star is on the Pareto front of accuracy and that cost."""
    head = ["stage", "runtime", "bytes", "parameters", "MACs", "test accuracy", "95 % interval"]
    head += [f"ms, batch 1, {count(threads, 'thread')}", "95th percentile"]
    rows = []
    for stage, values in zip(stages, to_plain(stages), strict=True):
        low, high = stage.interval
        size, latency = (" *" if values[key] else "" for key in ("on_size_front", "on_latency_front"))
        row = [escape_markdown(stage.name), escape_markdown(stage.runtime), f"{stage.size_bytes:,}{size}"]
        row += [f"{stage.parameters:,}", f"{stage.macs:,}", f"{stage.accuracy:.2%}", f"{low:.2%} to {high:.2%}"]
        rows.append([*row, f"{stage.median_ms:.3f}{latency}{stage.mark}", f"{stage.p95_ms:.3f}"])
    note = f"\n{NOTE}\n" if any(stage.disturbed for stage in stages) else ""
    return markdown_table(head, rows, left=2) + "\n" + note


def plot(path: Path, stages: Sequence[Stage], title: str) -> None:
    """Writes accuracy against size and against latency as PNG or SVG; filled points are on the front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    sides = figure.subplots(1, 2, sharey=True)
    for axes, cost, label in zip(
        sides,
        ("size_bytes", "median_ms"),
        ("file, kB", "latency of one image, ms (median, 95th percentile)"),
        strict=True,
    ):
        _draw(axes, stages, cost)
        axes.set(xlabel=label)
        axes.margins(x=0.15, y=0.15)
        _plain_numbers(axes, [getattr(stage, cost) for stage in stages])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    sides[0].set_ylabel("test accuracy, % (95 % interval)")
    names = [f"{number} {stage.name}, {stage.runtime}" for number, stage in enumerate(stages, start=1)]
    figure.text(0.5, -0.02, "     ".join(names), ha="center", va="top", fontsize=9)
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=130, bbox_inches="tight")
    write_atomically(path, buffer.getvalue())


def _draw(axes: Any, stages: Sequence[Stage], cost: str) -> None:
    scale = 1e-3 if cost == "size_bytes" else 1.0
    best = front(stages, cost)
    for number, (stage, is_best) in enumerate(zip(stages, best, strict=True)):
        price, accuracy = scale * getattr(stage, cost), 100 * stage.accuracy
        low, high = (100 * bound for bound in stage.interval)
        late = [[0.0], [stage.p95_ms - price]] if cost == "median_ms" else None
        axes.errorbar(
            price, accuracy, yerr=[[accuracy - low], [high - accuracy]], xerr=late, fmt="o", ms=7, lw=1, capsize=2,
            zorder=3 if is_best else 2, color=_BLUE if is_best else _GREY, mfc=_BLUE if is_best else "white",
        )  # fmt: skip
        label = f"{number + 1}{stage.mark if cost == 'median_ms' else ''}"
        axes.annotate(
            label, (price, accuracy), fontsize=9, ha="center", va="center", textcoords="offset points",
            xytext=_BESIDE[number % len(_BESIDE)],
        )  # fmt: skip
    points = sorted(
        (scale * getattr(stage, cost), 100 * stage.accuracy) for stage, one in zip(stages, best, strict=True) if one
    )
    axes.plot(*zip(*points, strict=True), ls="--", lw=1, color=_BLUE, zorder=0)


def _plain_numbers(axes: Any, prices: Sequence[float]) -> None:
    """A scale whose ticks a person reads: 20, 50, 100, and evenly spaced where all costs are of one order."""
    if max(prices) < _ONE_ORDER * min(prices):
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
