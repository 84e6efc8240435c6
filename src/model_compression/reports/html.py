"""The report as one HTML page that needs nothing else: no network, no other file."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from model_compression._version import __version__
from model_compression.core.console import harmless
from model_compression.core.metric import Metric
from model_compression.core.text import NO_BREAK, count, percent, percent_interval, size
from model_compression.reports.charts import SERIES, Chart, Line, line_chart, scatter_chart
from model_compression.reports.compression_stages import DISTURBED, Compression
from model_compression.reports.compression_stages import to_plain as plain_stages
from model_compression.reports.contents import Detail, Report
from model_compression.reports.groups import Group
from model_compression.reports.page_parts import gain_text, p_text, result_rows, tiles
from model_compression.reports.words import command, environment_in_words, recipe_in_words


def to_html(report: Report) -> str:
    """The whole page. All text from files is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("model_compression.reports", "page"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else harmless(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": percent,
        "percent_interval": percent_interval,
        "size": size,
        "p": p_text,
    }
    filters |= {"gain": partial(gain_text, metric=report.metric), "text": report.text, "interval": report.interval_text}
    environment.filters |= filters
    own = files("model_compression.reports") / "page"
    style, script = (Markup((own / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    several = len(report.groups) > 1

    def load(template: str) -> Any:
        return environment.get_template(template) if template.endswith(".j2") else environment.from_string(template)

    page = environment.get_template("report.html.j2").render(
        report=report,
        metric=report.metric,
        section=report.section,
        version=__version__,
        style=style,
        script=script,
        svg=Markup,
        num_series=SERIES,
        tiles=tiles(report),
        compared=result_rows(report) if several else None,
        differing=_difference_table(report.groups) if several else None,
        unfinished=[run for run in report.runs if run.metrics is None],
        curves=_curves(report),
        costs=_cost_charts(report),
        compressions=[
            (found, _stage_charts(found, number), plain_stages(found.stages, found.metric))
            for number, found in enumerate(report.compressions)
        ],
        measured=any(group.latency for group in report.groups),
        details=[
            {**_detail(report, detail), "template": load(detail.found.template)}
            for detail in ([report.shipped] if report.shipped else report.details)
        ],
        recipes=[(group, recipe_in_words(group.recipe), command(group)) for group in report.groups],
        environments=_environments(report),
    )
    return page.lstrip()


def _curves(report: Report) -> list[tuple[str, Chart, str]]:
    """(title, chart, note) of the primary metric and the loss."""
    metric, sets = report.metric, list(dict.fromkeys(group.eval_set for group in report.groups))
    levels = {group.teacher_result for group in report.groups} - {None}
    dashed = [(metric.factor * level, f"teacher {report.text(level)}") for level in levels if level is not None]
    charts = []
    lines = _lines(report.groups, lambda group: metric.key(group.eval_set), metric.factor, report.text)
    if lines:
        y = f"{' or '.join(sets)} {metric.axis}"
        chart = line_chart(lines, key="result", x="epoch", y=y, levels=dashed if len(dashed) == 1 else [])
        charts.append((metric.title, chart, "Of the weights at the end of each epoch."))
    lines = _lines(report.groups, lambda group: "train_loss", 1, "{:.4f}".format, log=True)
    if lines:
        chart = line_chart(lines, key="loss", x="epoch", y="training loss, logarithmic", log=True)
        note = "The losses of methods differ: compare the shapes only." if len(report.groups) > 1 else ""
        charts.append(("Loss", chart, note))
    return charts


def _lines(
    groups: Sequence[Group], key: Callable[[Group], str], factor: float, text: Callable[[float], str], log: bool = False
) -> list[Line]:
    """A line for each run with such events."""
    lines = []
    for series, group in enumerate(groups):
        for run in group.runs:
            values = [(event["epoch"], event.get(key(group))) for event in run.events]
            points = [
                (epoch, factor * value, f"epoch {epoch}: {text(value)}")
                for epoch, value in values
                if isinstance(value, int | float) and math.isfinite(value) and (value > 0 or not log)
            ]
            if points:
                seed = f", seed {run.seed}" if len(group.runs) > 1 else ""
                lines.append(Line(name=f"{group.name}{seed}", series=series, points=points))
    return lines


def _cost_charts(report: Report) -> list[tuple[str, Chart]]:
    """(title, chart) of the result against size and latency, each where the recipes differ in it."""
    by_axis: dict[str, tuple[str, list[Line]]] = {"weights file, MB, logarithmic": ("Size", [])}
    for series, group, summary in report.results:
        costs = []
        if group.size_bytes:
            costs.append(("Size", "weights file, MB, logarithmic", group.size_bytes / 1e6, size(group.size_bytes)))
        for entry in group.latency:
            if entry["batch"] == 1:
                mark = DISTURBED if entry.get("disturbed") else ""
                text = f"{entry['median_ms']:.3g} ms (95 % below {entry['p95_ms']:.3g} ms){mark}"
                x = f"{entry['runtime']}, batch 1, median ms, {count(entry['threads'], 'thread')}"
                costs.append((f"Latency in {entry['runtime']}", x, entry["median_ms"], text))
        for title, x, across, text in costs:
            line = _point(report.metric, group.name, series, across, text, summary.mean, report.interval_of(group))
            by_axis.setdefault(x, (title, []))[1].append(line)
    charts = []
    for number, (x, (title, lines)) in enumerate(by_axis.items()):
        places = [line.points[0][0] for line in lines]
        if lines and max(places) > 1.02 * min(places):  # files of one network differ in their headers
            chart = scatter_chart(lines, key=f"cost-{number}", x=x, y=report.metric.axis)
            charts.append((title, chart))
    return charts


def _stage_charts(found: Compression, number: int) -> list[tuple[str, Chart]]:
    """(title, chart) of the result of each stage against size and latency."""
    metric, sizes, times = found.metric, [], []
    for series, stage in enumerate(found.stages):
        of_stage = partial(_point, metric, f"{stage.name}, {stage.runtime}", series)
        kilobytes, time = stage.size_bytes / 1e3, f"{stage.median_ms:.3g} ms{stage.mark}"
        sizes.append(of_stage(kilobytes, f"{kilobytes:,.0f} kB", stage.result, stage.interval))
        times.append(of_stage(stage.median_ms, time, stage.result, stage.interval))
    y, threads = f"test {metric.axis}", count(found.threads, "thread")
    return [
        ("Size", scatter_chart(sizes, key=f"size-{number}", x="file, kB, logarithmic", y=y)),
        (
            "Latency",
            scatter_chart(times, key=f"latency-{number}", x=f"one image, median ms, {threads}, logarithmic", y=y),
        ),
    ]


def _point(
    metric: Metric, name: str, series: int, across: float, text: str, result: float,
    interval: tuple[float, float] | None,
) -> Line:  # fmt: skip
    """A result with its interval, at the cost ``across``."""
    low, high = (None, None) if interval is None else ([metric.factor * end] for end in interval)
    points = [(across, metric.factor * result, f"{text}, {metric.text(result, space=NO_BREAK)}")]
    return Line(name=name, series=series, points=points, low=low, high=high)


def _detail(report: Report, detail: Detail) -> dict[str, Any]:
    """The values for the template of one run's predictions."""
    series = next(number for number, group in enumerate(report.groups) if group.name == detail.group)
    values = detail.found.page_values(series)
    return {"group": detail.group, "run": detail.run, "detail": detail.found, "series": series, **values}


def _difference_table(groups: Sequence[Group]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """What differs between the groups in words: columns, and a row for each."""
    words = [dict(recipe_in_words(group.recipe)) for group in groups]
    columns = list(dict.fromkeys(key for own in words for key in own))
    columns = [key for key in columns if len({own.get(key) for own in words}) > 1]
    rows = [(group.name, [own.get(key, "–") for key in columns]) for group, own in zip(groups, words, strict=True)]
    return columns, rows


def _environments(report: Report) -> list[tuple[list[tuple[str, str]], list[str]]]:
    """Environments in words, each once, with the runs that have it."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in report.runs:
        found.setdefault(tuple(environment_in_words(run.environment)), []).append(str(run.path))
    return [(list(words), paths) for words, paths in found.items()]
