"""The benchmarks run, and count what they say they count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import architecture, digests
from benchmarks.precision import table as precision_table
from benchmarks.small_students import table

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_speed_benchmark_measures_each_way_and_writes_the_table(tmp_path):
    options = ["--seconds", "0.5", "--rounds", "2", "--ways", "live", "bare", "peak", "--batch-size", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", *options, "--name", "trial"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results/benchmarks/trial.json").read_text())
    assert content["training_flop_an_image"] == 157_655_040  # REFERENCE: 7.88 TFLOP for 50,000
    assert {way: len(result["rates"]) for way, result in content["ways"].items()} == {"live": 2, "bare": 2, "peak": 2}
    assert min(min(result["rates"]) for result in content["ways"].values()) > 0
    assert "| live | " in (tmp_path / "results/benchmarks/trial.md").read_text()


def test_table_of_small_students_has_means_over_seeds_and_costs_against_the_first_stage():
    def result(first, second, milliseconds):
        stages = [("distilled", "PyTorch", first, 1000, 3.0), ("int8", "ONNX Runtime", second, 90, milliseconds)]
        names = ("name", "runtime", "accuracy", "size_bytes", "median_ms")
        where = {"date": "2026-01-01", "cores": 2, "processor": "P", "python": "3.11", "versions": {}}
        return {
            "surroundings": where,
            "threads": 2,
            "teacher_accuracy": 0.9,
            "stages": [dict(zip(names, values, strict=True)) for values in stages],
        }

    text = table({"lenet": [result(0.80, 0.79, 1.0), result(0.82, 0.82, 0.5)]})
    row = next(line for line in text.splitlines() if line.startswith("| int8 "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["90", "9.0%"]
    assert cells[4:6] == ["80.50% ± 19.06", "2.12"]  # 12.706 · 0.0212 / √2
    assert cells[6:] == ["79.00%, 82.00%", "-0.50", "0.750", "4.0"]
    assert "lenet, n = 2" in text


@pytest.mark.slow
def test_digests_are_those_of_the_record_until_a_result_changes(tmp_path, monkeypatch, capsys):
    options = ["--data", "synthetic", "--epochs", "1", "--student", "resnet8", "--precision", "fp32", "--out"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digests, "RUNS", {"labels": ["train", *options, "labels"]})
    monkeypatch.setattr(sys, "argv", ["digests", "--record"])
    assert digests.main() == 0
    monkeypatch.setattr(sys, "argv", ["digests"])
    assert digests.main() == 0
    assert "3 of 3 digests are those of" in capsys.readouterr().out
    monkeypatch.setattr(digests, "RUNS", {"labels": ["train", "--seed", "1", *options, "labels"]})
    assert digests.main() == 1
    assert "labels/student.safetensors: " in capsys.readouterr().out


def test_table_of_precisions_says_how_near_to_the_best_auto_comes():
    def row(taken, fp32, bf16):
        shape = {"network": "n", "side": 32, "batch": 8, "auto": taken, "auto_seconds": 1.26}
        return {**shape, "seconds": {"fp32": fp32, "bf16": bf16}}

    text = precision_table([row("fp32", 0.0102, 0.01), row("bf16", 0.02, 0.01)], "bf16", "here", torch.device("cpu"))
    rows = [line for line in text.splitlines() if line.startswith("| `n`")]
    assert rows == [
        "| `n` | 32 | 8 | 10.2 | 10.0 | fp32 | 1.02 | 1.00 | 1.3 |",
        "| `n` | 32 | 8 | 20.0 | 10.0 | bf16 | 1.00 | 1.00 | 1.3 |",
    ]
    assert "Within 3% of the best: 2 of 2." in text
    assert "Within 3% of the best: 0 of 1." in precision_table(
        [row("bf16", 0.01, 0.02)], "bf16", "", torch.device("cpu")
    )


def test_picture_of_the_parts_shows_those_that_there_are():
    drawn = " ".join(architecture.OUT.read_text(encoding="utf-8").split())
    for row in architecture.layers(architecture.parts()):
        for name in row:
            assert f">{name}</text>" in drawn
            assert architecture.description(name).split()[-1] in drawn
