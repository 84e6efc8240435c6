"""An experiment's table, from records of runs: what each arm reached, beside what was published if anything was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.text import escape_markdown, markdown_table
from model_compression.reports.curves import plot_curves
from model_compression.reports.records import read_records, record_path
from model_compression.reports.statistics import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an experiment is shown: its arms in order, with what the table calls them; gains are over ``baseline``.

    ``published`` has accuracies that were published, of an arm or of the "teacher", in the year ``year``.
    """

    heading: str
    arms: Mapping[str, str]
    baseline: str
    published: Mapping[str, float]
    year: str = ""


_OF_2016 = {"labels": 0.6615, "logits": 0.7197, "noisy_teacher": 0.7063, "kd": 0.7096, "teacher": 0.781}
_CLASSIC_ARMS = {
    "labels": "labels alone",
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
            "labels": "labels alone, a fresh view each epoch",
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
    """The records in a results folder by arm and seed. Raises FileFormatError for damaged ones and for strangers."""
    records = read_records(folder)
    for record in records:
        if record["arm"] not in layout.arms:
            path = record_path(folder, record["arm"], record["config"]["seed"])
            raise FileFormatError(f"{path} is of another experiment (arm {record['arm']!r}); name another --out")
    return sorted(records, key=lambda record: (list(layout.arms).index(record["arm"]), record["config"]["seed"]))


def experiment_table(records: Sequence[Mapping[str, Any]], layout: Layout) -> str:
    """Markdown, a row an arm: published figure, mean ± 95 % interval, sd, n, gain over the baseline of its seed."""
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
        published = [f"{layout.published['teacher']:.1%}"] if layout.published else []
        rows.append([f"*teacher: {escape_markdown(name)}*", *published, f"{metrics['teacher_test_accuracy']:.2%}"])
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
    values = [metrics["test_accuracy"] for metrics in found.values()]
    summary = summarise(values)
    paired = [found[seed]["test_accuracy"] - baseline[seed]["test_accuracy"] for seed in found if seed in baseline]
    agrees = [metrics["teacher_agreement"] for metrics in found.values() if "teacher_agreement" in metrics]
    published = [f"{layout.published[arm]:.2%}" if arm in layout.published else ""] if layout.published else []
    return [
        layout.arms[arm],
        *published,
        f"{summary.mean:.2%}{summary.spread}",
        "" if summary.sd is None else f"{100 * summary.sd:.2f}",
        str(summary.n),
        "" if arm == layout.baseline or not paired else _gain(summarise(paired)),
        f"{summarise(agrees).mean:.2%}" if agrees else "",
        ", ".join(f"{value:.2%}" for value in values),
    ]


def _gain(paired: Summary) -> str:
    """In points, with the interval of the mean of the differences of the same seeds."""
    return f"{100 * paired.mean:+.2f}{paired.spread}"


def _by_seed(records: Sequence[Mapping[str, Any]], arm: str) -> dict[int, Any]:
    return {r["config"]["seed"]: r["metrics"] for r in records if r["arm"] == arm}
