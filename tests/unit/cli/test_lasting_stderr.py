"""A stderr that nobody reads any more does not end a run."""

import os
import subprocess
import sys

import pytest

from model_compression.cli.lasting_stderr import LastingStream, lasting_stderr


def test_what_is_read_is_what_was_written(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with lasting_stderr():
            assert isinstance(sys.stderr, LastingStream)
            assert (sys.stderr.isatty(), sys.stderr.fileno(), sys.stderr.encoding) == (False, writer, stream.encoding)
            print("loss 0.5", file=sys.stderr, flush=True)
        assert sys.stderr is stream
    with os.fdopen(reader) as stream:
        assert stream.read() == "loss 0.5\n"


def test_pipe_that_ended_is_no_error_at_any_time():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        lasting = LastingStream(stream)
        os.close(reader)
        for _ in range(3):
            print("loss 0.5", file=lasting, flush=True)
    # closing it has flushed what was left, without BrokenPipeError


def test_stderr_that_there_never_was_becomes_one(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_stderr():
        print("loss 0.5", file=sys.stderr, flush=True)
    sys.stderr.close()


TRAIN = ["train", "--data", "synthetic", "--student", "lenet-caffe", "--epochs", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["closed", "a pipe that ends"])
def test_run_goes_on_without_a_stderr(tmp_path, way):
    program = [sys.executable, "-m", "model_compression.cli.main", *TRAIN, "--out", str(tmp_path / "run")]
    if way == "closed":
        done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *program], stdout=subprocess.PIPE, check=False)
        code, out = done.returncode, done.stdout
    else:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as stderr:
            done = subprocess.run(program, stdout=subprocess.PIPE, stderr=stderr, check=False)
        code, out = done.returncode, done.stdout
    assert (code, out.startswith(b"test accuracy")) == (0, True)
    assert (tmp_path / "run" / "metrics.json").exists()
