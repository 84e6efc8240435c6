"""The table of an experiment, from records of runs: the result of each arm, beside the published one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.metric import ACCURACY
from model_compression.core.options import setting
from model_compression.core.text import escape_markdown, markdown_table
from model_compression.reports.curves import plot_curves
from model_compression.reports.records import read_records, record_path
from model_compression.reports.statistics import summarise


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an experiment is shown: its arms in order, with their names in the table; gains are over ``baseline``.

    ``published`` has the accuracies that were published in the year ``year``, of an arm or of the "teacher".
    """

    heading: str
    arms: Mapping[str, str]
    baseline: str
    published: Mapping[str, float]
    year: str = ""


_OF_2016 = {"labels": 0.6615, "logits": 0.7197, "noisy_teacher": 0.7063, "kd": 0.7096, "teacher": 0.781}
_CLASSIC_ARMS = {
    "labels": "labels only",
    "logits": "logits (Ba & Caruana 2014)",
    "noisy_teacher": "noisy teacher, α 0.5, σ 0.1 (Sau & Balasubramanian 2016)",
}
LAYOUTS = {
    "classic": Layout(
        heading="LeNet, trained on",
        arms={
            **_CLASSIC_ARMS,
            "kd": "KD, λ 0.3, τ 3 (Hinton et al. 2015)",
            "kd_tau_0.3": "KD, λ 0.3, τ 0.3",
        },
        baseline="labels",
        published=_OF_2016,
        year="2016",
    ),
    "modern": Layout(
        heading="LeNet, trained on",
        arms={
            **_CLASSIC_ARMS,
            "kd": "KD, τ 4, labels 0.1 (Hinton et al. 2015)",
        },
        baseline="labels",
        published=_OF_2016,
        year="2016",
    ),
    "views": Layout(
        heading="LeNet, trained on",
        arms={
            "labels": "labels only, a fresh view each epoch",
            "views_1": "KD, 1 view",
            "views_4": "KD, 4 views in turn",
            "views_4_fp32": "the same, answers stored in float32",
            "views_16": "KD, 16 views in turn",
            "fresh": "KD, a fresh view each epoch",
        },
        baseline="labels",
        published={},
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
    """Markdown, a row for each arm: published figure, mean ± 95 % interval, sd, n, gain over the baseline by seed."""
    year = [layout.year] if layout.published else []
    head = [layout.heading, *year, "now, mean ± 95 %" if year else "mean ± 95 %", "sd", "n"]
    head += [f"gain over {layout.baseline}", "agrees with teacher", "each seed"]
    rows = []
    baseline = _by_seed(records, layout.baseline)
    for arm in layout.arms:
        found = _by_seed(records, arm)
        if found:
            rows.append(_row(arm, layout, found, baseline))
    answered = [record for record in records if "teacher_test_accuracy" in record["metrics"]]
    if answered:
        metrics, name = answered[0]["metrics"], answered[0]["config"]["teacher"]["name"]
        published = [ACCURACY.text(layout.published["teacher"], 1)] if layout.published else []
        rows.append(
            [f"*teacher: {escape_markdown(name)}*", *published, ACCURACY.text(metrics["teacher_test_accuracy"])]
        )
    return markdown_table(head, rows) + "\n"


def write_report(folder: Path, title: str, layout: Layout) -> str:
    """Writes table.md and curves.png from the records in ``folder``; returns the table."""
    from model_compression.core.files import write_atomically

    records = experiment_records(folder, layout)
    table = experiment_table(records, layout)
    write_atomically(folder / "table.md", f"# {title}\n\n{table}\n![curves](curves.png)\n".encode())
    curves = {arm: [r["events"] for r in records if r["arm"] == arm] for arm in layout.arms}
    plot_curves(folder / "curves.png", {arm: runs for arm, runs in curves.items() if runs}, title=title)
    return table


def _row(arm: str, layout: Layout, found: Mapping[int, Any], baseline: Mapping[int, Any]) -> list[str]:
    metric, key = ACCURACY, ACCURACY.key("test")
    values = [metrics[key] for metrics in found.values()]
    summary = summarise(values)
    pairs = [(found[seed][key], baseline[seed][key]) for seed in found if seed in baseline]
    agrees = [metrics["teacher_agreement"] for metrics in found.values() if "teacher_agreement" in metrics]
    published = [metric.text(layout.published[arm]) if arm in layout.published else ""] if layout.published else []
    gain = ""
    if arm != layout.baseline and pairs:
        paired = summarise([metric.gain(*pair) for pair in pairs])
        gain = f"{metric.number(paired.mean, sign='+')}{metric.spread(paired.half_width)}"
    return [
        layout.arms[arm],
        *published,
        f"{metric.text(summary.mean)}{metric.spread(summary.half_width)}",
        "" if summary.sd is None else metric.number(summary.sd),
        str(summary.n),
        gain,
        f"{summarise(agrees).mean:.2%}" if agrees else "",
        ", ".join(map(metric.text, values)),
    ]


def _by_seed(records: Sequence[Mapping[str, Any]], arm: str) -> dict[int, Any]:
    return {r["config"]["seed"]: r["metrics"] for r in records if r["arm"] == arm}
