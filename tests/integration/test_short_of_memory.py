"""Memory that runs out in a step, in a process with a real limit."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("short_of_memory.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what a process uses from /proc"),
]


def trained(folder, student, batch_size, mib):
    """(exit code, what was said, the error) of a run that has ``mib`` for its steps."""
    arguments = [str(value) for value in (folder, student, batch_size, mib)]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    messages = [line["message"] for line in lines if "message" in line]
    return done.returncode, messages, next((line for line in lines if "error" in line), None)


def short_of_memory(folder, student, batch_size, limits):
    """What ``trained`` gives for the first of the limits (MiB, rising) that leaves the libraries below what they need.

    Their share is not the same from run to run. Where there is nothing left for it, at most one image fits; or oneDNN
    calls a kernel that it had no memory to generate (brgemm_convolution_bwd_strided_t in torch 2.13), and the process
    ends by a signal that nothing in Python can answer.
    """
    for mib in limits:
        code, messages, error = trained(folder, student, batch_size, mib)
        starved = error and ("with one sample a step" in error["text"] or "; 1 fit: " in error["text"])
        if code != -signal.SIGSEGV and not starved:
            return code, messages, error
        shutil.rmtree(folder)
    pytest.fail(f"{student} was never left enough memory for one image by {limits} MiB")


def test_batch_is_split_until_it_fits_and_the_student_is_the_same(tmp_path):
    assert trained(tmp_path / "whole", "lenet-caffe", 256, 0)[0] == 0
    code, messages, error = short_of_memory(tmp_path / "split", "lenet-caffe", 256, range(10, 28, 2))
    assert (code, error) == (0, None)
    (said,) = [message for message in messages if "out of memory" in message]
    assert said.startswith("out of memory with 256 samples at once: from here on ")
    size = int(said.split("from here on ")[1].split()[0])
    assert size in (8, 16, 32, 64, 128)
    events = {}
    for name in ("whole", "split"):
        (events[name],) = map(json.loads, (tmp_path / name / "events.jsonl").read_text().splitlines())
    assert events["split"].pop("micro_batch") == size
    events["split"]["terms"] = pytest.approx(events["split"]["terms"], rel=1e-4)
    assert events["whole"] == {
        key: pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
        for key, value in events["split"].items()
    }
    whole, split = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "split"))
    for name, tensor in whole.items():
        torch.testing.assert_close(split[name], tensor, rtol=1e-5, atol=1e-5)


def test_batch_that_must_not_be_split_is_refused_with_a_size_that_does_fit(tmp_path):
    code, _, error = short_of_memory(tmp_path / "large", "resnet8", 512, range(60, 140, 10))
    assert (code, error and error["error"]) == (1, "OutOfMemoryError")
    assert error["text"].startswith("out of memory with 512 samples a step; ")
    assert "as BatchNorm (stem.bn) takes mean and deviation of the whole batch" in error["text"]
    fits = int(error["text"].partition("batch_size=")[2].partition(".")[0])
    assert fits in (8, 16, 32, 64, 128, 256)
    assert not (tmp_path / "large" / "state.safetensors").exists()
