"""Whatever writes a file says in one line which one, how much room it needs, and what to do, when it has no room."""

import contextlib
import errno
import os
import tempfile

import pytest

from model_compression.cli.main import main
from model_compression.core.config_json import to_json
from model_compression.core.errors import ModelCompressionError
from model_compression.core.files import temporary_folder, write_atomically, writing_failed
from model_compression.engine.runs import start_run

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def trained(tiny, tmp_path):
    start_run(tiny.config("kd"), tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize(
    ("arguments", "file", "says_size"),
    [
        (["export", "RUN", "--out", "NEW.onnx"], "NEW.onnx", True),
        (["pack", "RUN", "--out", "NEW.safetensors"], "NEW.safetensors", True),
        (["report", "RUN", "--out", "NEW.html"], "NEW.html", True),
        (["quantize", "RUN", "--to", "int8", "--max-drop", "90", "--out", "NEW"], "model-compression-", False),
        (["quantize", "RUN", "--to", "half", "--max-drop", "90", "--out", "NEW"], "NEW/student.onnx", False),
        (["prune", "RUN", "--sparsity", "0.5", "--steps", "1", "--out", "NEW"], "safetensors", True),
        (["measure", "RUN"], "model-compression-", False),
        (["distill", "--config", "CONFIG", "--out", "NEW"], "safetensors", True),
    ],
)
def test_file_that_may_not_be_so_large_is_named(trained, tiny, tmp_path, capsys, arguments, file, says_size):
    (tmp_path / "config.json").write_text(to_json(tiny.config("kd")))
    places = {"RUN": str(trained), "CONFIG": str(tmp_path / "config.json")}
    arguments = [places.get(one, one.replace("NEW", str(tmp_path / "new"))) for one in arguments]
    before = {path for path in tmp_path.rglob("*") if path.suffix != ".json"}
    capsys.readouterr()
    limit = 2000 if arguments[0] == "measure" else 3500
    with files_of_at_most(limit):
        assert main(arguments) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot write " in line
    assert file.replace("NEW", str(tmp_path / "new")) in line
    assert ("are needed, 3.5 kB at most); raise the limit (ulimit -f)" in line) is says_size
    assert "raise the limit (ulimit -f)" in line
    left = {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".onnx", ".safetensors", ".tmp")}
    assert left <= before
    if arguments[0] == "distill":
        assert not (tmp_path / "new").exists()  # it was seen before the first step


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, r"the disk is full (5 MB are needed, "),
        (errno.EDQUOT, "the disk quota is used up (5 MB are needed); free some space"),
        (errno.EFBIG, "larger than files may be here (5 MB are needed); choose a folder on another file system"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
        (errno.EACCES, "the folder is not writable; choose another one"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_each_cause_has_its_remedy(tmp_path, code, said):
    line = str(writing_failed(tmp_path / "x", OSError(code, os.strerror(code)), 5_000_000))
    assert line.startswith(f"cannot write {tmp_path / 'x'}: ")
    assert said in line


def test_temporary_folder_without_room_is_named_with_the_way_to_another(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ModelCompressionError, match=rf"cannot write {tmp_path}.*; TMPDIR names another one"):  # noqa: SIM117
        with files_of_at_most(100), temporary_folder() as folder:
            (folder / "x").write_bytes(bytes(1000))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), temporary_folder() as folder:  # of somebody's own file
        (folder / "none").read_bytes()
    with pytest.raises(ModelCompressionError, match="1 kB are needed, 100 bytes at most"), files_of_at_most(100):
        write_atomically(tmp_path / "y", bytes(1000))
