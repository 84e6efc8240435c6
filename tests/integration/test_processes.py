"""Training on several processes, with gloo: equal to one process, and sound when one of them fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes.cases import configurations
from safetensors.torch import load_file

HERE = Path(__file__).parent / "processes"
QUICK = ["labels", "stored", "method rkd", "frozen first", "masks"]
# Weights, losses and answers of runs are equal to rounding, and dist divides by deviations of nearly equal answers:
# plain PyTorch without oneDNN already gives gradients that differ by 3e-4.
TOLERANCE = {"method dist": 1e-3}
RUN = ["train", "--student", "resnet8", "--sync-batchnorm", "--data", "synthetic", "--batch-size", "250"]
RUN += ["--optimizer", "sgd", "--lr", "1e-4", "--precision", "fp32", "--device", "cpu"]


def torchrun(count, script, *arguments, **settings):
    """Starts ``script`` in ``count`` processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOGLEVEL": "CRITICAL", **settings}
    command = [*launcher, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    """Its exit code and what it printed on stderr, but for what torch's launcher says."""
    _, said = process.communicate(timeout=240)
    lines = [line for line in said.splitlines() if "model-compression " in line or "out of memory" in line]
    return process.returncode, lines


def succeed(process):
    """Waits for ``process``, which must end without an error; else shows what it printed."""
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


def compare(names, one, several):
    """Compares what cases.py has left in two folders."""
    for name in names:
        alone, shared = (load_file(folder / f"{name}.safetensors") for folder in (one, several))
        assert alone.keys() == shared.keys()
        for key, expected in alone.items():
            tolerance = TOLERANCE.get(name, 2e-5)
            said = f"{name}, {key}: {float((shared[key] - expected).abs().max())} apart"
            torch.testing.assert_close(shared[key], expected, atol=tolerance, rtol=tolerance, msg=said)


def cases(tmp_path, names, *counts):
    """Compares the cases in one process with those in ``counts`` of processes."""
    folders = {count: tmp_path / str(count) for count in (1, *counts)}
    for count, folder in folders.items():
        folder.mkdir()
        succeed(torchrun(count, "cases.py", folder, *names))
    for count in counts:
        compare(names, folders[1], folders[count])


def test_two_processes_train_as_one_does(tmp_path):
    cases(tmp_path, QUICK, 2)


@pytest.mark.slow
def test_processes_train_as_one_does_by_every_method(tmp_path):
    cases(tmp_path, list(configurations()), 2, 4)
    plain, recomputed = (load_file(tmp_path / "1" / f"{name}.safetensors") for name in ("labels", "recomputed"))
    assert all(torch.equal(recomputed[key], value) for key, value in plain.items())


def run(folder, *more, count=1, **settings):
    """A run in ``folder``, in ``count`` processes; a process that has not ended."""
    return torchrun(count, "faulty.py", *RUN, "--out", folder, *more, **settings)


def wait_for_epoch(folder, process, epoch=1):
    """Until the run in ``folder`` has recorded ``epoch``."""
    events = folder / "events.jsonl"
    while not events.exists() or len(events.read_text().splitlines()) < epoch:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def ranks(process):
    """The process ids of the workers of a launcher, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue
        if parent == process.pid:
            found |= {int(value[5:]): int(entry.name) for value in variables if value.startswith(b"RANK=")}
    return found


def is_running(number):
    """Whether there is a process of this number that nobody has yet to reap."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def events(folder):
    return [json.loads(line)["train_loss"] for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_signal_to_any_process_stops_all_and_the_state_resumes_on_another_number(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    succeed(run(alone, "--epochs", "8"))
    process = run(shared, "--epochs", "8", count=4)
    wait_for_epoch(shared, process)
    os.kill(ranks(process)[2], signal.SIGTERM)
    code, lines = finished(process)
    assert code != 0
    assert len(lines) == 1
    assert "state saved; continue with" in lines[0]
    process = torchrun(2, "faulty.py", "resume", shared)
    wait_for_epoch(shared, process, epoch=4)
    os.kill(ranks(process)[0], signal.SIGINT)
    assert len(finished(process)[1]) == 1
    succeed(torchrun(1, "faulty.py", "resume", shared))
    assert events(shared) == pytest.approx(events(alone), rel=1e-5)
    weights = [load_file(folder / "student.safetensors") for folder in (alone, shared)]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_bits_on_the_same_number_of_processes(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    succeed(run(whole, "--epochs", "6", count=3))
    process = run(stopped, "--epochs", "6", count=3)
    wait_for_epoch(stopped, process)
    os.kill(ranks(process)[1], signal.SIGTERM)
    assert "state saved" in finished(process)[1][0]
    succeed(torchrun(3, "faulty.py", "resume", stopped))
    assert (whole / "student.safetensors").read_bytes() == (stopped / "student.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_within_a_minute_and_the_state_is_kept(tmp_path, rank):
    begun = time.monotonic()
    code, lines = finished(run(tmp_path / "run", "--epochs", "3", count=3, FAULT=f"kill:{rank}:6"))
    assert code != 0
    assert len(lines) == 1
    assert "another process of this run has ended" in lines[0]
    assert time.monotonic() - begun < 60
    succeed(torchrun(1, "faulty.py", "resume", tmp_path / "run"))


def launched(*arguments):
    """A command with --processes 2, in a session of its own, and its workers by rank."""
    command = [sys.executable, "-m", "model_compression", *map(str, arguments), "--processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_workers_end_with_a_launcher_that_is_killed_and_the_state_is_kept(tmp_path):
    folder = tmp_path / "run"
    process = launched(*RUN, "--out", folder, "--epochs", "500")
    wait_for_epoch(folder, process)
    workers = ranks(process)
    assert sorted(workers) == [0, 1]
    process.kill()
    process.communicate(timeout=60)  # which also waits for the workers: they hold its pipes
    deadline = time.monotonic() + 60
    while any(map(is_running, workers.values())):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (folder / "state.safetensors").exists()


@pytest.mark.slow
def test_a_killed_worker_is_named_by_the_launcher_with_exit_code_1(tmp_path):
    folder = tmp_path / "run"
    process = launched(*RUN, "--out", folder, "--epochs", "500")
    wait_for_epoch(folder, process)
    os.kill(ranks(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "model-compression train: error: process 1 was ended by SIGKILL; what is finished is kept" in said


@pytest.mark.slow
def test_a_loss_that_is_none_in_one_process_stops_all_with_one_line(tmp_path):
    code, lines = finished(run(tmp_path / "run", "--epochs", "3", count=2, FAULT="nan:1:5"))
    assert code != 0
    assert len(lines) == 1
    assert "became NaN or infinite at step 6" in lines[0]


@pytest.mark.slow
def test_memory_that_is_short_in_one_process_splits_the_batch_in_all(tmp_path):
    settings = ["--student", "lenet", "--batch-size", "20", "--epochs", "1"]
    succeed(run(tmp_path / "one", *settings))
    code, lines = finished(run(tmp_path / "two", *settings, count=2, FAULT="memory:1:7"))
    assert code == 0
    assert any("from here on 3 at a time" in line for line in lines)
    assert events(tmp_path / "two") == pytest.approx(events(tmp_path / "one"), rel=1e-5)
