"""search with real processes: killed, continued, and made by two processes at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "model_compression.cli.main", "search", "--json", "--student", "lenet-caffe"]
PROGRAM += ["--data", "synthetic", "--validation", "100", "--epochs", "3", "--batch-size", "8", "--precision", "fp32"]
PROGRAM += ["--device", "cpu", "--trials", "3", "--final-seeds", "0", "--tune", "lr=1e-4:1e-3:log"]


def start(folder, out):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([*PROGRAM, "--out", str(folder / out), "--runs", str(folder / "runs")], **pipes)


def trials_of(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return json.loads(out)["trials"]


def test_search_that_is_killed_goes_on_to_the_same_trials(tmp_path):
    """Killed in its second trial, whose worker saves its state when it finds no one there any more."""
    process = start(tmp_path, "killed")
    events = tmp_path / "runs" / "killed" / "trial-001" / "events.jsonl"
    deadline = time.monotonic() + 600
    while not events.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    found = trials_of(start(tmp_path, "killed"))
    whole = trials_of(start(tmp_path, "whole"))
    assert found == whole
    assert [trial["number"] for trial in whole] == [0, 1, 2]
    for trial in ("trial-000", "trial-001", "trial-002"):
        weights = [tmp_path / "runs" / out / trial / "student.safetensors" for out in ("killed", "whole")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_calls_at_once_share_the_trials(tmp_path):
    both = [start(tmp_path, "shared") for _ in range(2)]
    found = [trials_of(process) for process in both]
    assert found[0] == found[1]
    assert [trial["number"] for trial in found[0]] == [0, 1, 2]
    assert sorted(path.name for path in (tmp_path / "runs" / "shared").iterdir()) == [
        "trial-000", "trial-001", "trial-002"
    ]  # fmt: skip
