"""Real processes that are stopped by real signals, and resumed by the command that they name."""

import json
import signal
import subprocess
import sys
import time

import pytest

from model_compression.models import create_model
from model_compression.models.weights import save_weights

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "model_compression.cli.main"]
OPTIONS = [
    "--student", "lenet-caffe", "--data", "synthetic", "--augmentation", "flip_shift", "--views", "2", "--epochs", "3",
    "--batch-size", "16", "--precision", "fp32", "--device", "cpu", "--evaluate-every", "1", "--ema", "0.9",
]  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(arguments of a command, the folder of its run that was left alone)."""
    folder = tmp_path_factory.mktemp("whole")
    save_weights(folder / "teacher.safetensors", create_model("lenet-caffe", seed=9))
    arguments = ["distill", *OPTIONS, "--teacher", str(folder / "teacher.safetensors"), "--method", "noisy_teacher"]
    arguments += ["--allow-weak-teacher"]  # nobody has trained it
    subprocess.run([*PROGRAM, *arguments, "--out", str(folder / "run")], check=True, capture_output=True, timeout=300)
    return arguments, folder / "run"


def stopped(process, folder, number, after):
    """Sends the signal once ``after`` exists in the run's folder; returns (exit code, stdout, stderr)."""
    deadline = time.monotonic() + 200
    while not (folder / after).exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def started(*arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], **pipes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_the_state_and_resume_ends_as_if_nothing_had_been(tmp_path, uninterrupted, number, code):
    arguments, whole = uninterrupted
    folder = tmp_path / "run"
    found, out, err = stopped(started(*arguments, "--out", folder), folder, number, "events.jsonl")
    assert (found, out) == (code, ""), err
    assert err.splitlines()[-1].endswith(f"state saved; continue with: model-compression resume {folder}")
    assert "Traceback" not in err
    assert (folder / "state.safetensors").exists()
    assert not (folder / "student.safetensors").exists()
    done = subprocess.run(
        [*PROGRAM, "resume", folder, "--json"], capture_output=True, text=True, timeout=300, check=True
    )
    for name in ("student.safetensors", "predictions.safetensors", "events.jsonl", "config.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    metrics, expected = json.loads(done.stdout), json.loads((whole / "metrics.json").read_text())
    assert {key: value for key, value in metrics.items() if key not in ("run", "seconds")} == {
        key: value for key, value in expected.items() if key != "seconds"
    }


def test_kill_loses_no_more_than_the_steps_since_the_last_save(tmp_path, uninterrupted):
    arguments, whole = uninterrupted
    folder = tmp_path / "run"
    found, _, _ = stopped(started(*arguments, "--out", folder), folder, signal.SIGKILL, "state.safetensors")
    assert found == -signal.SIGKILL
    refused = subprocess.run(
        [*PROGRAM, *arguments, "--out", folder], capture_output=True, text=True, timeout=300, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith(f"continue that run with: model-compression resume {folder}")
    subprocess.run([*PROGRAM, "resume", folder], capture_output=True, timeout=300, check=True)
    assert (folder / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    assert (folder / "events.jsonl").read_bytes() == (whole / "events.jsonl").read_bytes()


def test_second_sigterm_during_the_save_does_not_spoil_it(tmp_path, uninterrupted):
    arguments, whole = uninterrupted
    folder = tmp_path / "run"
    process = started(*arguments, "--out", folder)
    while not (folder / "events.jsonl").exists():
        time.sleep(0.01)
    for _ in range(20):
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    out, err = process.communicate(timeout=200)
    # One more signal may end the process between its last line and its exit: a shell shows 143 for either.
    assert process.returncode in (143, -signal.SIGTERM), err
    assert (out, (folder / "state.safetensors").exists()) == ("", True), err
    subprocess.run([*PROGRAM, "resume", folder], capture_output=True, timeout=300, check=True)
    assert (folder / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


def test_folder_in_use_is_refused_while_the_other_process_runs(tmp_path, uninterrupted):
    arguments, _ = uninterrupted
    folder = tmp_path / "run"
    process = started(*arguments, "--epochs", "500", "--out", folder)
    while not (folder / "events.jsonl").exists():
        time.sleep(0.01)
    second = subprocess.run([*PROGRAM, "resume", folder], capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode == 1
    assert "is in use by another process" in second.stderr.splitlines()[-1]
    assert stopped(process, folder, signal.SIGTERM, "events.jsonl")[0] == 143
