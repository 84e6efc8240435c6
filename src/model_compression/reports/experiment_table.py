"""The table of an experiment, from records of runs: the result of each arm, beside the published one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import write_atomically
from model_compression.core.options import setting
from model_compression.core.text import escape_markdown, markdown_table
from model_compression.reports.curves import plot_curves
from model_compression.reports.method_comparison import LABELS, Comparison, Row, compare
from model_compression.reports.records import read_records, record_path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an experiment is shown: its arms in order, with their names in the table.

    ``published`` has the accuracies that were published in the year ``year``, of an arm or of the "teacher".
    """

    arms: Mapping[str, str]
    published: Mapping[str, float] = field(default_factory=dict)
    year: str = ""


_OF_2016 = {"labels": 0.6615, "logits": 0.7197, "noisy_teacher": 0.7063, "kd": 0.7096, "teacher": 0.781}
_CLASSIC_ARMS = {
    "labels": "labels only",
    "logits": "logits (Ba & Caruana 2014)",
    "noisy_teacher": "noisy teacher, α 0.5, σ 0.1 (Sau & Balasubramanian 2016)",
}
LAYOUTS = {
    "classic": Layout(
        arms={**_CLASSIC_ARMS, "kd": "KD, λ 0.3, τ 3 (Hinton et al. 2015)", "kd_tau_0.3": "KD, λ 0.3, τ 0.3"},
        published=_OF_2016,
        year="2016",
    ),
    "modern": Layout(
        arms={**_CLASSIC_ARMS, "kd": "KD, τ 4, labels 0.1 (Hinton et al. 2015)"}, published=_OF_2016, year="2016"
    ),
    "views": Layout(
        arms={
            "labels": "labels only, a fresh view each epoch",
            "views_1": "KD, 1 view",
            "views_4": "KD, 4 views in turn",
            "views_4_fp32": "the same, answers stored in float32",
            "views_16": "KD, 16 views in turn",
            "fresh": "KD, a fresh view each epoch",
        },
    ),
}


def experiment_records(folder: Path, layout: Layout) -> list[dict[str, Any]]:
    """The records in a results folder by arm and seed. Raises FileFormatError for damaged and for foreign ones."""
    records = read_records(folder)
    for record in records:
        if record["arm"] not in layout.arms:
            path = record_path(folder, record["arm"], record["config"]["seed"])
            raise FileFormatError(
                f"{path} is of another experiment (arm {record['arm']!r}); name another {setting('out')}"
            )
    return sorted(records, key=lambda record: (list(layout.arms).index(record["arm"]), record["config"]["seed"]))


def experiment_table(records: Sequence[Mapping[str, Any]], layout: Layout) -> str:
    """Markdown, a row for each arm: published figure, mean ± 95 % interval, sd, n, gain over labels only by seed."""
    found = compare(records)
    metric = found.metric
    year = [layout.year] if layout.published else []
    head = ["LeNet, trained on", *year, "now, mean ± 95 %" if year else "mean ± 95 %", "sd", "n"]
    head += [f"gain over {LABELS}", "agrees with teacher", "each seed"]
    of_arms = {row.arm: row for row in found.rows}
    rows = [_row(found, of_arms[arm], layout) for arm in layout.arms if arm in of_arms]
    if found.teacher is not None and found.teacher_result is not None:
        published = [metric.text(layout.published["teacher"], 1)] if year else []
        rows.append([f"*teacher: {escape_markdown(found.teacher)}*", *published, metric.text(found.teacher_result)])
    return markdown_table(head, rows) + "\n"


def write_report(folder: Path, title: str, layout: Layout) -> str:
    """Writes table.md and curves.png from the records in ``folder``; returns the table."""
    records = experiment_records(folder, layout)
    table = experiment_table(records, layout)
    write_atomically(folder / "table.md", f"# {title}\n\n{table}\n![curves](curves.png)\n".encode())
    curves = {arm: [record["events"] for record in records if record["arm"] == arm] for arm in layout.arms}
    plot_curves(folder / "curves.png", {arm: runs for arm, runs in curves.items() if runs}, title=title)
    return table


def _row(found: Comparison, row: Row, layout: Layout) -> list[str]:
    metric, summary, gain = found.metric, row.summary, found.gain(row.arm, LABELS)
    published = [metric.text(layout.published[row.arm]) if row.arm in layout.published else ""]
    return [
        layout.arms[row.arm],
        *(published if layout.published else []),
        f"{metric.text(summary.mean)}{metric.spread(summary.half_width)}",
        "" if summary.sd is None else metric.number(summary.sd),
        str(summary.n),
        "" if gain is None else f"{metric.number(gain.gain.mean, sign='+')}{metric.spread(gain.gain.half_width)}",
        "" if row.agreement is None else f"{row.agreement:.2%}",
        ", ".join(map(metric.text, row.values)),
    ]
