"""compare-methods with real processes: stopped, killed and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_compression.models import create_model
from model_compression.models.weights import save_weights

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "model_compression.cli.main"]


@pytest.fixture
def comparison(tmp_path):
    """Arguments of a comparison of kd and at in ``tmp_path``, and its folder of runs."""
    save_weights(tmp_path / "teacher.safetensors", create_model("lenet-caffe", seed=9))
    options = ["--student", "lenet-caffe", "--data", "synthetic", "--epochs", "4", "--batch-size", "8"]
    options += ["--precision", "fp32", "--device", "cpu", "--teacher", tmp_path / "teacher.safetensors"]
    options += ["--allow-weak-teacher"]  # nobody has trained it
    folders = ["--out", tmp_path / "results", "--runs", tmp_path / "runs"]
    arguments = [*PROGRAM, "compare-methods", *options, *folders, "--methods", "kd,at", "--seeds", "1", "--json"]
    return [str(argument) for argument in arguments], tmp_path / "runs" / "results"


def child_of(process):
    """The process that ``process`` has started, by /proc."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()  # each thread has children of its own
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    return int(children[0])


def wait_for(path, process):
    deadline = time.monotonic() + 900
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stopped_comparison_goes_on_to_the_same_weights(comparison, tmp_path):
    arguments, runs = comparison
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(arguments, **pipes)
    wait_for(runs / "kd-seed0" / "events.jsonl", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=900)
    assert (process.returncode, out) == (143, ""), err
    assert err.splitlines()[-1].endswith(
        "stopped in kd, seed 0; what is done is saved; the same command goes on from there"
    )
    assert (runs / "kd-seed0" / "state.safetensors").exists()
    assert not (runs / "kd-seed0" / "metrics.json").exists()
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=900)
    rows = {row["arm"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == {"labels", "kd", "at"}
    assert all(100 * 2**20 < row["peak_memory_bytes"] < 8 * 2**30 for row in rows.values())
    whole = subprocess.run(
        [*arguments, "--out", str(tmp_path / "whole"), "--methods", "kd"], capture_output=True, check=True, timeout=900
    )
    assert whole.stdout
    first, second = (path / "kd-seed0" / "student.safetensors" for path in (runs, tmp_path / "runs" / "whole"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child by /proc")
def test_run_whose_process_is_killed_is_made_again_to_the_same_weights(comparison, tmp_path):
    arguments, runs = comparison
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(runs / "kd-seed0" / "events.jsonl", process)
    os.kill(child_of(process), signal.SIGKILL)
    out, err = process.communicate(timeout=900)
    content = json.loads(out)
    assert process.returncode == 0, err
    assert "kd, seed 0: its process was killed (signal 9)" in err
    assert "it is made again from its saved state" in err
    assert not content["failed"]
    assert {row["arm"] for row in content["rows"]} == {"labels", "kd", "at"}
    several = [*arguments, "--out", str(tmp_path / "several"), "--jobs", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(several, capture_output=True, check=True, timeout=900, env=environment)
    subprocess.run(
        [*several[:-1], "1", "--out", str(tmp_path / "one")],
        capture_output=True,
        check=True,
        timeout=900,
        env=environment,
    )
    for name in ("labels-seed0", "kd-seed0", "at-seed0"):
        made = [tmp_path / "runs" / out / name / "student.safetensors" for out in ("several", "one")]
        assert made[0].read_bytes() == made[1].read_bytes()


def test_a_second_process_waits_for_the_first_and_finds_its_runs(comparison):
    arguments = [*comparison[0], "--methods", "kd"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(arguments, **pipes) for _ in range(2)]
    ended = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    first, second = (json.loads(out) for out, _ in ended)
    assert first == second
    assert not first["failed"]
    assert {row["arm"] for row in first["rows"]} == {"labels", "kd"}
    assert sum("another process makes the runs of" in err for _, err in ended) == 1
