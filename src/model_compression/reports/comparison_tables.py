"""Writes a comparison of methods: tables for a terminal and in Markdown, and the same as plain values."""

import dataclasses
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_compression.core.console import table
from model_compression.core.files import write_atomically
from model_compression.core.metric import Metric, recorded
from model_compression.core.text import escape_markdown, markdown_table
from model_compression.reports.comparison_notes import notes, recipe_line
from model_compression.reports.comparison_plot import plot_comparison
from model_compression.reports.method_comparison import BASELINES, LABELS, Comparison, Gain, Row, compare
from model_compression.reports.records import read_records

_WIDTH = 80
_NAMES = {LABELS: "label-only"}

Cells = list[list[str]]


def write_comparison(folder: Path, title: str) -> tuple[str, dict[str, Any]]:
    """Writes table.md, comparison.json and comparison.png from the records in ``folder``.

    Returns the tables for a terminal of 80 columns, and what comparison.json holds.
    """
    records = read_records(folder)
    comparison = compare(records)
    recipe = next((recipe_line(record) for record in records if record["arm"] == LABELS and "metrics" in record), "")
    content = {"title": title, "recipe": recipe, **to_values(comparison), "notes": notes(comparison)}
    write_atomically(folder / "comparison.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(folder / "table.md", markdown(comparison, title, recipe).encode())
    if comparison.rows:
        plot_comparison(folder / "comparison.png", comparison, title, _NAMES)
    return text(comparison, title, recipe), content


def to_values(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values; the key of a value of the primary metric is its name."""
    metric, values = comparison.metric, dataclasses.asdict(comparison)
    del values["metric"]
    values |= recorded(metric)
    values[f"teacher_{metric.name}"] = values.pop("teacher_result")
    for row in values["rows"]:
        row[metric.plural], row[metric.name] = row.pop("values"), row.pop("summary")
    return values


def text(comparison: Comparison, title: str, recipe: str) -> str:
    """Tables and notes within 80 columns, but for names that are longer."""
    parts = [title, textwrap.fill(recipe, _WIDTH)]
    parts += [_terminal_table(cells) for cells in _tables(comparison)]
    parts += ["\n".join(map(_wrap, _without_result(comparison)))]
    parts += ["\n".join(map(_wrap, notes(comparison)))]
    return "\n\n".join(part for part in parts if part)


def markdown(comparison: Comparison, title: str, recipe: str) -> str:
    """The same as a page of Markdown, with the plot."""
    parts = [f"# {escape_markdown(title)}", escape_markdown(recipe)]
    for cells in _tables(comparison):
        cells = [[escape_markdown(cell) for cell in row] for row in cells]
        parts.append(markdown_table(cells[0], cells[1:]))
    for lines in (_without_result(comparison), notes(comparison)):
        parts.append("\n".join(f"- {escape_markdown(line)}" for line in lines))
    if comparison.rows:
        parts.append("![results and cost of each method](comparison.png)")
    return "\n\n".join(part for part in parts if part) + "\n"


def _tables(comparison: Comparison) -> list[Cells]:
    if not comparison.rows:
        return []
    return [_figures(comparison), *([_gains(comparison)] if comparison.gains else [])]


def _figures(comparison: Comparison) -> Cells:
    """A row for each method, in the order of the comparison; a column that no row has is left out."""
    metric = comparison.metric
    columns: dict[str, Callable[[Row], str]] = {
        "method": lambda row: _name(row.arm),
        "n": lambda row: str(row.summary.n),
        metric.axis: lambda row: f"{metric.number(row.summary.mean)}{metric.spread(row.summary.half_width)}",
        "agrees": lambda row: "" if row.agreement is None else f"{row.agreement:.2%}",
        "ECE": lambda row: "" if row.ece is None else f"{row.ece:.3f}",
        "NLL": lambda row: "" if row.nll is None else f"{row.nll:.3f}",
        "s/epoch": lambda row: "" if row.seconds_per_epoch is None else f"{row.seconds_per_epoch:.1f}",
        "MiB": lambda row: _mebibytes(row.peak_memory_bytes),
        "GPU MiB": lambda row: _mebibytes(row.peak_gpu_memory_bytes),
    }
    cells = [[title, *map(show, comparison.rows)] for title, show in columns.items()]
    cells = [column for column in cells if any(column[1:])]
    if comparison.teacher_result is not None:
        teacher = {"method": "teacher", metric.axis: metric.number(comparison.teacher_result)}
        cells = [[*column, teacher.get(column[0], "")] for column in cells]
    return [list(row) for row in zip(*cells, strict=True)]


def _gains(comparison: Comparison) -> Cells:
    """The gain over each baseline that was run, with the corrected p where there is one."""
    metric = comparison.metric
    baselines = [base for base in BASELINES if any(gain.baseline == base for gain in comparison.gains)]
    tested = comparison.num_tests > 0
    head = [f"gain, {metric.gain_unit}".removesuffix(", ")]
    for baseline in baselines:
        head += [f"over {_name(baseline)}", *(["p"] if tested else [])]
    rows = []
    for row in comparison.rows:
        found = [comparison.gain(row.arm, baseline) for baseline in baselines]
        if any(found):
            cells = (_gain_cells(metric, gain)[: 1 + tested] for gain in found)
            rows.append([_name(row.arm), *(cell for pair in cells for cell in pair)])
    return [head, *rows]


def _gain_cells(metric: Metric, gain: Gain | None) -> list[str]:
    if gain is None:
        return ["", ""]
    p = gain.corrected_p
    shown = "" if p is None else f"{p:.4f}" if p >= 0.0001 else "<0.0001"
    value = f"{metric.number(gain.gain.mean, sign='+')}{metric.spread(gain.gain.half_width)}"
    return [value, shown + ("*" if gain.significant else "")]


def _without_result(comparison: Comparison) -> list[str]:
    reasons = {"not run": comparison.not_run, "failed": comparison.failed}
    return [f"{_name(name)}: {what}: {reason}" for what, found in reasons.items() for name, reason in found.items()]


def _name(arm: str) -> str:
    return _NAMES.get(arm, arm)


def _mebibytes(size_bytes: float | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 2**20:,.0f}"


def _terminal_table(cells: Cells) -> str:
    """The table for a terminal: in a column where some numbers have a ± behind them, all numbers are aligned."""
    columns = []
    for title, *values in zip(*cells, strict=True):
        room = max(len(value) - len(value.partition(" ± ")[0]) for value in values)
        columns.append([title, *(value if " ± " in value else f"{value}{' ' * room}" for value in values)])
    head, *rows = zip(*columns, strict=True)
    return table(rows, head)


def _wrap(line: str) -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent="  ")
