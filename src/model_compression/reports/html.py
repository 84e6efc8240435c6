"""The report as one HTML page that needs nothing else: no network, no other file."""

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from model_compression._version import __version__
from model_compression.core.console import harmless
from model_compression.core.text import count, size
from model_compression.reports.answers import Calibration
from model_compression.reports.charts import SERIES, Chart, Line, line_chart, reliability_chart, scatter_chart
from model_compression.reports.compression_stages import DISTURBED, Compression, Stage
from model_compression.reports.compression_stages import to_plain as plain_stages
from model_compression.reports.contents import Cost, Detail, Report
from model_compression.reports.groups import Group
from model_compression.reports.page_parts import (
    class_rows,
    compared,
    gain_text,
    interval_text,
    p_text,
    percent,
    picture,
    tiles,
)
from model_compression.reports.words import command, environment_in_words, recipe_in_words

_MANY_CLASSES = 20
_SHOWN_CONFUSIONS = 15


def to_html(report: Report) -> str:
    """The page, whole. All that comes from files is escaped."""
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
    environment.filters |= {"percent": percent, "interval": interval_text, "size": size, "gain": gain_text, "p": p_text}
    own = files("model_compression.reports") / "page"
    style, script = (Markup((own / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    several = len(report.groups) > 1
    page = environment.get_template("report.html.j2").render(
        report=report,
        version=__version__,
        style=style,
        script=script,
        svg=Markup,
        num_series=SERIES,
        tiles=tiles(report),
        compared=compared(report) if several else None,
        differing=_differing(report.groups) if several else None,
        unfinished=[run for run in report.runs if run.metrics is None],
        curves=_curves(report),
        costs=_cost_charts(report.costs),
        compressions=[(found, *_compression(found, number)) for number, found in enumerate(report.compressions)],
        measured=any(cost.latency for cost in report.costs),
        details=[_detail(report, detail) for detail in ([report.shipped] if report.shipped else report.details)],
        recipes=[(group, recipe_in_words(group.recipe), command(group)) for group in report.groups],
        environments=_environments(report),
    )
    return page.lstrip()


def _curves(report: Report) -> list[tuple[str, Chart, str]]:
    """(title, chart, note) of accuracy and loss."""
    of_sets = dict.fromkeys(group.eval_set for group in report.groups)
    levels = {detail.teacher_accuracy.share for detail in report.details if detail.teacher_accuracy}
    dashed = [(100 * level, f"teacher {percent(level)}") for level in levels] if len(levels) == 1 else []
    charts = []
    lines = _lines(report.groups, None, 100, "{:.2f} %")
    if lines:
        y = f"{' or '.join(of_sets)} accuracy, %"
        chart = line_chart(lines, key="accuracy", x="epoch", y=y, levels=dashed)
        charts.append(("Accuracy", chart, "Of the weights at the end of each epoch."))
    lines = _lines(report.groups, "train_loss", 1, "{:.4f}")
    if lines:
        chart = line_chart(lines, key="loss", x="epoch", y="training loss, logarithmic", log=True)
        note = "Each method has a loss of its own: only the shapes compare." if len(report.groups) > 1 else ""
        charts.append(("Loss", chart, note))
    return charts


def _lines(groups: Sequence[Group], key: str | None, factor: float, form: str) -> list[Line]:
    """A line for each run that has such events."""
    lines = []
    for series, group in enumerate(groups):
        for run in group.runs:
            name = key or f"{run.eval_set}_accuracy"
            points = [
                (event["epoch"], factor * event[name], f"epoch {event['epoch']}: {form.format(factor * event[name])}")
                for event in run.events
                if _is_drawn(event.get(name), log=key is not None)
            ]
            if points:
                seed = f", seed {run.seed}" if len(group.runs) > 1 else ""
                lines.append(Line(name=f"{group.name}{seed}", series=series, points=points))
    return lines


def _is_drawn(value: Any, log: bool) -> bool:
    """Whether a value of an event has a place on an axis."""
    return isinstance(value, int | float) and math.isfinite(value) and (value > 0 or not log)


def _cost_charts(costs: Sequence[Cost]) -> list[tuple[str, Chart]]:
    """Accuracy against size and latency, each where that sets ways apart."""
    charts = []
    points = [(cost, cost.size_bytes / 1e6, size(cost.size_bytes)) for cost in costs if cost.size_bytes]
    if _differ(points):
        charts.append(("Size", _cost_chart(points, "size", "weights file, MB, logarithmic")))
    timed: dict[tuple[str, int], list[tuple[Cost, float, str]]] = {}
    for cost in costs:
        for entry in cost.latency:
            if entry["batch"] == 1:
                mark = DISTURBED if entry.get("disturbed") else ""
                text = f"{entry['median_ms']:.3g} ms (95 % below {entry['p95_ms']:.3g} ms){mark}"
                place = timed.setdefault((entry["runtime"], entry["threads"]), [])
                place.append((cost, entry["median_ms"], text))
    for number, ((runtime, threads), found) in enumerate(timed.items()):
        if _differ(found):
            x = f"{runtime}, batch 1, median ms, {threads} thread{'' if threads == 1 else 's'}"
            charts.append((f"Latency in {runtime}", _cost_chart(found, f"latency-{number}", x)))
    return charts


def _compression(found: Compression, number: int) -> tuple[list[tuple[str, Chart]], list[dict[str, Any]]]:
    """Charts of what its stages cost, with their titles; and the stages, with whether they are on a Pareto front."""

    def chart(cost: str, factor: float, form: str, x: str) -> Chart:
        return scatter_chart(
            [_stage(*one, cost, factor, form) for one in enumerate(found.stages)],
            key=f"{cost}-{number}",
            x=x,
            y="test accuracy, %",
        )

    by_size = chart("size_bytes", 1e-3, "{:,.0f} kB", "file, kB, logarithmic")
    by_time = chart("median_ms", 1, "{:.3g} ms", f"one image, median ms, {count(found.threads, 'thread')}, logarithmic")
    return [("Size", by_size), ("Latency", by_time)], plain_stages(found.stages)


def _stage(series: int, stage: Stage, cost: str, factor: float, form: str) -> Line:
    across = factor * getattr(stage, cost)
    low, high = (100 * end for end in stage.interval)
    mark = stage.mark if cost == "median_ms" else ""
    text = f"{form.format(across)}{mark}, {percent(stage.accuracy)}"
    points = [(across, 100 * stage.accuracy, text)]
    return Line(name=f"{stage.name}, {stage.runtime}", series=series, points=points, low=[low], high=[high])


def _differ(points: Sequence[tuple[Cost, float, str]]) -> bool:
    """Whether places lie at least 2 % apart: files of one network differ by what their headers say."""
    places = [across for _, across, _ in points]
    return bool(places) and max(places) > 1.02 * min(places)


def _cost_chart(points: Sequence[tuple[Cost, float, str]], key: str, x: str) -> Chart:
    lines = [
        Line(
            name=cost.group,
            series=cost.series,
            points=[(across, 100 * cost.accuracy, f"{text}, {percent(cost.accuracy)}")],
            low=None if cost.interval is None else [100 * cost.interval[0]],
            high=None if cost.interval is None else [100 * cost.interval[1]],
        )
        for cost, across, text in points
    ]
    return scatter_chart(lines, key=key, x=x, y="accuracy, %")


def _detail(report: Report, detail: Detail) -> dict[str, Any]:
    """What the template shows of one run's answers."""
    series = next(number for number, group in enumerate(report.groups) if group.name == detail.group)
    lines = [_reliability(detail.calibration, "student", series)]
    if detail.teacher_calibration:
        lines.insert(0, _reliability(detail.teacher_calibration, "teacher", SERIES - 1))
    pictures = [(mistake, picture(detail.predictions.thumbnail(mistake.number))) for mistake in detail.mistakes]
    names = [detail.predictions.name_of(number) for number in range(len(detail.confusion))]
    return {
        "detail": detail,
        "series": series,
        "classes": class_rows(detail, series),
        "names": names,
        "matrix": detail.confusion if len(names) <= _MANY_CLASSES else None,
        "confusions": _largest_confusions(detail, names),
        "reliability": reliability_chart(lines, key=f"reliability-{series}"),
        "pictures": pictures,
    }


def _reliability(calibration: Calibration, name: str, series: int) -> Line:
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


def _largest_confusions(detail: Detail, names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(class, what it is taken for, how many images, share of the class), the most first."""
    matrix = detail.confusion
    wrong = [
        (names[row], names[column], int(matrix[row, column]), matrix[row, column] / matrix[row].sum())
        for row in range(len(names))
        for column in range(len(names))
        if row != column and matrix[row, column]
    ]
    return sorted(wrong, key=lambda entry: -entry[2])[:_SHOWN_CONFUSIONS]


def _differing(groups: Sequence[Group]) -> tuple[list[str], list[tuple[str, list[str]]]]:
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
