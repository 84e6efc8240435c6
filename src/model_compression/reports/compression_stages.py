"""The stages of a compression: a table, and a plot of the result against size and latency with Pareto fronts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import read_json
from model_compression.core.manifest import check_manifest
from model_compression.core.metric import DEFAULT_METRIC, Metric, primary_metric
from model_compression.core.text import count, escape_markdown, markdown_table
from model_compression.reports.figures import BLUE, GREY, label_log_ticks, new_figure, save_figure, style_axes

FILE = "stages.json"
DISTURBED = " (disturbed)"
NOTE = "disturbed: other work on the machine slowed it down; measure again when idle"
_BESIDE = ((-11, 9), (11, 9), (-11, -9), (11, -9), (-13, 0))  # where numbers stand: points may lie upon each other
_ONE_ORDER = 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A network after a stage: ``result`` on the test images and the cost in ``runtime``.

    ``interval`` is the 95 % interval of the result; None for a metric without one.
    ``size_bytes`` of the file, ``median_ms`` and ``p95_ms`` for one image; ``disturbed`` by other work on the machine.
    """

    name: str
    runtime: str
    size_bytes: int
    parameters: int
    macs: int
    result: float
    interval: tuple[float, float] | None
    median_ms: float
    p95_ms: float
    disturbed: bool = False

    @property
    def mark(self) -> str:
        """Stands behind a disturbed latency."""
        return DISTURBED if self.disturbed else ""


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What `compress` left in ``path``: stages, timed with ``threads``, and the ``broken`` limits of the budget."""

    path: Path
    metric: Metric
    stages: Sequence[Stage]
    threads: int
    broken: Sequence[str]


def read_compression(folder: Path) -> Compression | None:
    """The content of stages.json in ``folder``, None without one. Raises FileFormatError for a damaged one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        check_manifest(folder)
        values = read_json(path)
        metric = primary_metric(values)
        stages = [_stage(one, metric) for one in values["stages"]]
        if not stages:
            raise ValueError("it has no stage")
        found = Compression(
            path=folder, metric=metric, stages=stages, threads=int(values["threads"]), broken=list(values["broken"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path} is not what `model-compression compress` writes: {error}") from None
    return found


def _stage(values: Mapping[str, Any], metric: Metric) -> Stage:
    """Raises KeyError, TypeError or ValueError where a value is missing."""
    names = [field.name for field in fields(Stage) if field.name not in ("result", "disturbed")]
    disturbed = bool(values.get("disturbed"))  # which older files do not have
    stage = Stage(**{name: values[name] for name in names}, result=values[metric.name], disturbed=disturbed)
    bounds = stage.interval or ()
    numbers = (stage.size_bytes, stage.parameters, stage.macs, stage.result, *bounds, stage.median_ms)
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("a figure is missing")
    if bounds and bounds[0] == bounds[1]:  # so older files write that there is none
        stage = replace(stage, interval=None)
    return stage


def front(stages: Sequence[Stage], cost: str, metric: Metric = DEFAULT_METRIC) -> list[bool]:
    """Whether each stage is on the Pareto front: no other is as good and as cheap, and better in one of the two.

    ``cost`` is a field of `Stage`.
    """
    figures = [(metric.order(stage.result), getattr(stage, cost)) for stage in stages]
    return [not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in figures) for own in figures]


def to_plain(stages: Sequence[Stage], metric: Metric = DEFAULT_METRIC) -> list[dict[str, Any]]:
    """Plain values, with whether each stage is on the front of size and of latency."""
    fronts = zip(front(stages, "size_bytes", metric), front(stages, "median_ms", metric), strict=True)
    values = [asdict(stage) for stage in stages]
    return [
        {metric.name: one.pop("result"), **one, "on_size_front": size, "on_latency_front": latency}
        for one, (size, latency) in zip(values, fronts, strict=True)
    ]


def markdown(stages: Sequence[Stage], threads: int, metric: Metric = DEFAULT_METRIC) -> str:
    """The table; a star is on the Pareto front of the result and that cost."""
    head = ["stage", "runtime", "bytes", "parameters", "MACs", f"test {metric.label}", "95 % interval"]
    head += [f"ms, batch 1, {count(threads, 'thread')}", "95th percentile"]
    rows = [
        [
            escape_markdown(stage.name),
            escape_markdown(stage.runtime),
            f"{stage.size_bytes:,}{' *' if values['on_size_front'] else ''}",
            f"{stage.parameters:,}",
            f"{stage.macs:,}",
            metric.text(stage.result),
            metric.interval(stage.interval, metric.digits) if stage.interval else "–",
            f"{stage.median_ms:.3f}{' *' if values['on_latency_front'] else ''}{stage.mark}",
            f"{stage.p95_ms:.3f}",
        ]
        for stage, values in zip(stages, to_plain(stages, metric), strict=True)
    ]
    note = f"\n{NOTE}\n" if any(stage.disturbed for stage in stages) else ""
    return f"{markdown_table(head, rows, left=2)}\n{note}"


def plot(path: Path, stages: Sequence[Stage], title: str, metric: Metric = DEFAULT_METRIC) -> None:
    """Writes the result against size and against latency as PNG or SVG; filled points are on the front."""
    figure = new_figure(10, 4.8)
    sides = figure.subplots(1, 2, sharey=True)
    labels = ("file, kB", "latency of one image, ms (median, 95th percentile)")
    for axes, cost, scale, label in zip(sides, ("size_bytes", "median_ms"), (1e-3, 1.0), labels, strict=True):
        costs = [scale * getattr(stage, cost) for stage in stages]
        _draw(axes, stages, costs, front(stages, cost, metric), metric, is_latency=cost == "median_ms")
        axes.set(xlabel=label)
        axes.margins(x=0.15, y=0.15)
        if max(costs) >= _ONE_ORDER * min(costs):  # else evenly spaced ticks
            axes.set_xscale("log")
            label_log_ticks(axes)
        style_axes(axes)
    interval = " (95 % interval)" if any(stage.interval for stage in stages) else ""
    sides[0].set_ylabel(f"test {metric.axis}{interval}")
    names = [f"{number} {stage.name}, {stage.runtime}" for number, stage in enumerate(stages, start=1)]
    figure.text(0.5, -0.02, "     ".join(names), ha="center", va="top", fontsize=9)
    figure.suptitle(title, fontsize=11)
    save_figure(path, figure, bbox_inches="tight")


def _draw(
    axes: Any, stages: Sequence[Stage], costs: Sequence[float], best: Sequence[bool], metric: Metric, is_latency: bool
) -> None:
    results = [metric.factor * stage.result for stage in stages]
    for number, (stage, cost, result, is_best) in enumerate(zip(stages, costs, results, best, strict=True)):
        spread = None
        if stage.interval:
            spread = [[result - metric.factor * stage.interval[0]], [metric.factor * stage.interval[1] - result]]
        late = [[0.0], [stage.p95_ms - cost]] if is_latency else None
        axes.errorbar(
            cost, result, yerr=spread, xerr=late, fmt="o", ms=7, lw=1, capsize=2,
            zorder=3 if is_best else 2, color=BLUE if is_best else GREY, mfc=BLUE if is_best else "white",
        )  # fmt: skip
        axes.annotate(
            f"{number + 1}{stage.mark if is_latency else ''}", (cost, result), fontsize=9, ha="center", va="center",
            textcoords="offset points", xytext=_BESIDE[number % len(_BESIDE)],
        )  # fmt: skip
    points = sorted(point for *point, is_best in zip(costs, results, best, strict=True) if is_best)
    axes.plot(*zip(*points, strict=True), ls="--", lw=1, color=BLUE, zorder=0)
