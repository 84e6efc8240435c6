"""Faults of disks, clocks, processors and files that nothing else injects; docs/reliability.md lists them all."""

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_compression.core.checksummed import unseal
from model_compression.core.errors import FileFormatError, Interrupted, ModelCompressionError
from model_compression.distillation.teachers.row_formats import row_format
from model_compression.distillation.teachers.store import AnswerStore
from model_compression.engine.checkpoint import load_state, previous
from model_compression.engine.runs import resume_run, start_run
from model_compression.models.foreign_weights import own_tensors
from model_compression.models.loading import read_model

AS_NOBODY = """
import os, sys, torch
from pathlib import Path
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import ModelCompressionError
from model_compression.engine.observer import Silent
from model_compression.engine.runs import check_run, start_run

class Stepping(Silent):
    def stepped(self, progress):
        print("a step was done")

config = TrainConfig(student=ModelConfig(name="lenet-caffe"), data=DataConfig(name="synthetic"), epochs=1)
check_run(config)  # imports what another user may not be allowed to read
if os.getuid() == 0:
    os.setuid(65534)
try:
    start_run(config, sys.argv[1], Stepping())
except ModelCompressionError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [".", "run"], ids=["the folder itself", "the one above"])
def test_read_only_folder_is_found_before_training(name):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", AS_NOBODY, str(Path(folder) / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        Path(folder).chmod(0o755)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"cannot write {folder}")
        assert "the folder is not writable; choose another one" in done.stderr
        assert not list(Path(folder).iterdir())


@pytest.mark.parametrize("failing", range(4))
def test_disk_error_in_a_save_ends_the_run_and_keeps_what_was_saved(tiny, tmp_path, watcher, monkeypatch, failing):
    """The disk fails in the saves of the second epoch: of the event, its time, and the state."""
    folder, seen, real = tmp_path / "run", watcher(), os.fsync
    count = [0]

    def fsync(descriptor):
        if seen.steps and seen.steps[-1] >= 10:
            count[0] += 1
            if count[0] > failing:
                raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if failing < 3:  # the fourth is that of the folder, after the rename, which not every system has
        with pytest.raises(ModelCompressionError, match=r"cannot write .*: the disk reports an error"):
            start_run(tiny.config(), folder, seen)
        monkeypatch.undo()
        assert not list(folder.glob(".*.tmp"))
        resume_run(folder, watcher())
    else:
        with pytest.raises(ModelCompressionError):
            start_run(tiny.config(), folder, seen)
        monkeypatch.undo()
        resume_run(folder, watcher())
    start_run(tiny.config(), tmp_path / "whole")
    for name in ("student.safetensors", "events.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_clock_that_is_set_back_does_not_choose_the_older_state(tiny, tmp_path, watcher, monkeypatch):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(tiny.config(), folder, watcher([8]))
    state = folder / "state.safetensors"
    os.utime(state, (1, 1))  # written in 1970, as the clock said
    os.utime(previous(state), (4e9, 4e9))  # and the one before in 2096
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert load_state(state).progress["step"] == 8
    seen = watcher()
    resume_run(folder, seen)
    assert seen.steps[0] == 9


def header(text, length=None, data=b"\0" * 16):
    """A safetensors file with this header, which claims to be ``length`` bytes long."""
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape, begin, end, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "header of 2^63 bytes": header(b"{}", 2**63),
    "header of 2^64 - 1 bytes": header(b"{}", 2**64 - 1),
    "header that claims 100 MB": header(b"{}", 100_000_000),
    "header longer than the file": header(b"{}", 99),
    "offsets that overlap": header({"a": tensor([4], 0, 16), "b": tensor([2], 8, 16)}),
    "offsets out of range": header({"a": tensor([4], 16, 32)}),
    "offsets beyond the end": header({"a": tensor([400], 0, 1600)}),
    "offsets that turn back": header({"a": tensor([4], 16, 0)}),
    "a hole between tensors": header({"a": tensor([1], 0, 4), "b": tensor([1], 12, 16)}),
    "shape whose product overflows": header({"a": tensor([2**33, 2**33], 0, 16)}),
    "shape that is not that of the bytes": header({"a": tensor([3], 0, 16)}),
    "negative size": header({"a": tensor([-4], 0, 16)}),
    "one name twice": header(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    ),
    "unknown type": header({"a": tensor([4], 0, 16, "P64")}),
    "no JSON": header(b"\x80\x04cposix\nsystem\n."),
    "nested too deep": header(b"[" * 100_000),
    "empty": b"",
}


def read_answers(path):
    return AnswerStore(path.parent).rows(0, "logits", 4, lambda stored: row_format((4,), "fp16")).reader()


@pytest.mark.parametrize(
    "read",
    [read_model, lambda path: unseal(path, "key"), lambda path: own_tensors(path, {}), read_answers],
    ids=["model", "state", "own", "answers"],
)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_safetensors_are_refused_by_name(tmp_path, read, kind):
    path = tmp_path / "view-0.safetensors"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(FileFormatError, match=r"view-0\.safetensors"):
        read(path)


def test_another_number_of_threads_ends_close_by(tiny, tmp_path, monkeypatch):
    """Sums are added in another order: close, and not promised to the bit."""
    before = torch.get_num_threads()
    students = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            start_run(tiny.config("kd", optim={"lr": 1e-3}), tmp_path / str(threads))
            students.append(load_file(tmp_path / str(threads) / "student.safetensors"))
    finally:
        torch.set_num_threads(before)
    for name, weights in students[0].items():
        torch.testing.assert_close(students[1][name], weights, rtol=1e-3, atol=1e-4)


RUN_AT_ONCE = """
import sys
from model_compression.cli.main import main
sys.exit(main(["train", "--student", "lenet-caffe", "--data", "synthetic", "--epochs", "1", "--out", sys.argv[1]]))
"""


@pytest.mark.slow
def test_of_two_runs_that_start_at_once_one_has_the_folder(tmp_path):
    command = [sys.executable, "-c", RUN_AT_ONCE, str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 1], said
    last = said[codes.index(1)].splitlines()[-1]
    assert "is in use by another process" in last or "exists and is not empty" in last
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 1
