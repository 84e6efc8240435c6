"""The classic experiment's table: what was published in 2016 beside what was measured now, from records of runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_compression.errors import FileFormatError
from model_compression.report.curves import plot_curves
from model_compression.report.statistics import Summary, summarise

# arm → (what the table calls it, accuracy published in 2016)
ARMS: dict[str, tuple[str, float | None]] = {
    "labels": ("labels alone", 0.6615),
    "logits": ("logits (Ba & Caruana 2014)", 0.7197),
    "noisy_teacher": ("noisy teacher, α 0.5, σ 0.1 (Sau & Balasubramanian 2016)", 0.7063),
    "kd": ("KD, λ 0.3, τ 3 (Hinton et al. 2015)", 0.7096),
    "kd_tau_0.3": ("KD, λ 0.3, τ 0.3", None),
}
HISTORIC_TEACHER = 0.781


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records in a results folder, a JSON file each, by arm and seed. Raises FileFormatError for a damaged one."""
    records = []
    for path in sorted(folder.glob("*-seed*.json")):
        try:
            records.append(json.loads(path.read_text()))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path} is damaged ({error}); delete it and its run is made again") from None
    return sorted(records, key=lambda record: (list(ARMS).index(record["arm"]), record["config"]["seed"]))


def classic_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each arm with the historic figure, mean ± 95 % interval, sd, n, and gain over labels."""
    lines = [
        "| LeNet, trained on | 2016 | now, mean ± 95 % | sd | n | gain over labels | agrees with teacher | each seed |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    labels = _by_seed(records, "labels")
    for arm, (title, historic) in ARMS.items():
        found = _by_seed(records, arm)
        if found:
            lines.append(_row(arm, title, historic, found, labels))
    teachers = [r["metrics"]["teacher_test_accuracy"] for r in records if "teacher_test_accuracy" in r["metrics"]]
    if teachers:
        lines.append(f"| *teacher: {_teacher(records)}* | {HISTORIC_TEACHER:.1%} | {teachers[0]:.2%} | | | | | |")
    return "\n".join(lines) + "\n"


def write_report(folder: Path, title: str) -> str:
    """Writes table.md and curves.png from the records in ``folder``; returns the table."""
    from model_compression.files import write_atomically

    records = read_records(folder)
    table = classic_table(records)
    write_atomically(folder / "table.md", f"# {title}\n\n{table}\n![curves](curves.png)\n".encode())
    curves = {arm: [r["events"] for r in records if r["arm"] == arm] for arm in ARMS}
    plot_curves(folder / "curves.png", {arm: runs for arm, runs in curves.items() if runs}, title=title)
    return table


def _row(arm: str, title: str, historic: float | None, found: Mapping[int, Any], labels: Mapping[int, Any]) -> str:
    values = [metrics["test_accuracy"] for metrics in found.values()]
    summary = summarise(values)
    paired = [found[seed]["test_accuracy"] - labels[seed]["test_accuracy"] for seed in found if seed in labels]
    gain = "" if arm == "labels" or not paired else f"{100 * summarise(paired).mean:+.2f}"
    agrees = [metrics["teacher_agreement"] for metrics in found.values() if "teacher_agreement" in metrics]
    cells = [
        title,
        "" if historic is None else f"{historic:.2%}",
        _mean(summary),
        "" if summary.sd is None else f"{100 * summary.sd:.2f}",
        str(summary.n),
        gain,
        f"{summarise(agrees).mean:.2%}" if agrees else "",
        ", ".join(f"{value:.2%}" for value in values),
    ]
    return "| " + " | ".join(cells) + " |"


def _mean(summary: Summary) -> str:
    text = f"{summary.mean:.2%}"
    return text if summary.half_width is None else f"{text} ± {100 * summary.half_width:.2f}"


def _by_seed(records: Sequence[Mapping[str, Any]], arm: str) -> dict[int, Any]:
    return {r["config"]["seed"]: r["metrics"] for r in records if r["arm"] == arm}


def _teacher(records: Sequence[Mapping[str, Any]]) -> str:
    return next(str(r["config"]["teacher"]["name"]) for r in records if r["config"]["teacher"])
