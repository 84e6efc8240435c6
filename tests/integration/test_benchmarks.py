"""The benchmarks run, and count what they say they count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert min(content["ways"]["bare"]["rates"]) > max(content["ways"]["live"]["rates"]) > 0
    assert "| live | " in (tmp_path / "results/benchmarks/trial.md").read_text()
