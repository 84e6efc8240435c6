import json
from pathlib import Path
from typing import Any

import pytest

from model_compression.core.errors import FileFormatError
from model_compression.reports.experiment_table import LAYOUTS, experiment_records, experiment_table, write_report

CLASSIC = LAYOUTS["classic"]


def record(arm: str, seed: int, accuracy: float) -> dict[str, Any]:
    teacher = None if arm == "labels" else {"name": "nin-cifar10"}
    metrics: dict[str, Any] = {"test_accuracy": accuracy, "seed": seed}
    if teacher:
        metrics |= {"teacher_test_accuracy": 0.89, "teacher_agreement": 0.75}
    events = [{"epoch": e, "train_loss": 2.0 / e, "test_accuracy": accuracy - 0.1 / e} for e in (1, 2, 3)]
    return {"arm": arm, "config": {"seed": seed, "teacher": teacher}, "metrics": metrics, "events": events}


def test_experiment_table_pairs_the_gain_by_seed() -> None:
    records = [
        record("labels", 0, 0.60),
        record("labels", 1, 0.62),
        record("kd", 0, 0.65),
        record("kd", 1, 0.63),
        record("kd", 2, 0.99),  # no label-only run of this seed: counts in the mean, not in the gain
    ]
    row = next(line for line in experiment_table(records, CLASSIC).splitlines() if "λ 0.3, τ 3 " in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "70.96%"
    assert cells[2].startswith("75.67%")
    assert cells[4] == "3"
    assert cells[5] == "+3.00 ± 25.41"  # (5 + 1) / 2 points, and 12.706 times the deviation of the mean
    assert cells[6] == "75.00%"
    assert cells[7] == "65.00%, 63.00%, 99.00%"


def test_experiment_table_leaves_out_arms_that_were_not_run() -> None:
    table = experiment_table([record("labels", 0, 0.6)], CLASSIC)
    assert "noisy" not in table
    assert "teacher:" not in table


def test_read_records_names_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "kd-seed0.json").write_text('{"arm": "kd"')
    with pytest.raises(FileFormatError, match=r"kd-seed0\.json is damaged"):
        experiment_records(tmp_path, CLASSIC)


def test_write_report_makes_table_and_plot(tmp_path: Path) -> None:
    for one in (record("labels", 0, 0.6), record("kd", 0, 0.65)):
        (tmp_path / f"{one['arm']}-seed0.json").write_text(json.dumps(one))
    table = write_report(tmp_path, "A title", CLASSIC)
    assert (tmp_path / "table.md").read_text().startswith("# A title\n\n| LeNet")
    assert table in (tmp_path / "table.md").read_text()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_experiment_table_without_published_figures_has_no_column_for_them() -> None:
    records = [record("labels", 0, 0.80), record("views_4", 0, 0.82)]
    lines = experiment_table(records, LAYOUTS["views"]).splitlines()
    assert lines[0].startswith("| LeNet, trained on | mean ± 95 % | sd | n | gain over labels |")
    assert lines[3].startswith("| KD, 4 views in turn | 82.00% |  | 1 | +2.00 |")
    assert lines[4].startswith("| *teacher: nin-cifar10* | 89.00% |")
    assert {line.count("|") for line in lines} == {8}


def test_records_of_another_experiment_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "kd-seed0.json").write_text(json.dumps(record("kd", 0, 0.65)))
    with pytest.raises(FileFormatError, match=r"is of another experiment \(arm 'kd'\); name another out"):
        experiment_records(tmp_path, LAYOUTS["views"])
