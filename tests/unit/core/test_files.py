"""write_atomically: old content or new, whatever happens; the faults are real ones, in a process of their own."""

import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from model_compression.core.errors import ModelCompressionError
from model_compression.core.files import seen_from_here, write_atomically


def test_write_atomically_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"old")
    write_atomically(path, memoryview(b"newer"))
    assert path.read_bytes() == b"newer"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_write_atomically_takes_a_path_as_text(tmp_path):
    write_atomically(str(tmp_path / "file"), b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_write_atomically_gives_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(0o027) == 0o027  # the process's own mask is as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_write_atomically_names_a_path_through_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelCompressionError, match=r"cannot write .*file/folder/x: a part of the path is a file"):
        write_atomically(tmp_path / "file" / "folder" / "x", b"x")


def test_write_atomically_names_a_folder_in_the_way(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ModelCompressionError, match=r"cannot write .*taken: the path is a folder"):
        write_atomically(tmp_path / "taken", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


@pytest.fixture
def unprivileged():
    """Nothing is read-only to root: root acts as another user here, and is root again afterwards."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_write_atomically_names_a_read_only_folder(request):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o555)
        request.getfixturevalue("unprivileged")
        with pytest.raises(ModelCompressionError, match="the folder is not writable; choose another"):
            write_atomically(Path(folder) / "file", b"x")
        os.seteuid(os.getuid())
        Path(folder).chmod(0o755)
        assert not list(Path(folder).iterdir())


WRITER = """
import sys
from pathlib import Path
from model_compression.core.errors import ModelCompressionError
from model_compression.core.files import seen_from_here, write_atomically
try:
    write_atomically(Path(sys.argv[1]), bytes(int(sys.argv[2])))
except ModelCompressionError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("limit", [0, 1, 4096, 99_999])
def test_write_atomically_keeps_the_old_content_when_a_write_fails_at_any_byte(tmp_path, limit):
    """The kernel refuses byte ``limit``: what was written before it comes to nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", WRITER, path, "100000"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write {path}: ")
    assert len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def can_mount():
    """Whether this user may mount a file system of their own, in a name space of their own."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="a full disk is made by mounting a small one, which needs the right to")
def test_write_atomically_names_a_full_disk_and_keeps_the_old_content(tmp_path):
    script = 'mount -t tmpfs -o size=64k tmpfs "$1" && printf old >"$1/file" && "$2" -c "$3" "$1/file" 100000; '
    script += 'echo "$?"; cat "$1/file"; echo; ls -A "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, WRITER]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.startswith(f"cannot write {tmp_path}/file: the disk is full (100 kB are needed, ")
    assert done.stderr.endswith(" are free); free some space or choose another folder\n")
    assert done.stdout.splitlines() == ["1", "old", "file"]


KILLED = """
import os, signal, sys
from pathlib import Path
from model_compression.core.files import seen_from_here, write_atomically
path, call, moment = sys.argv[1:]
real = getattr(os, call)

def deadly(*arguments, **options):
    result = None if moment == "before" else real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(os, call, deadly)
write_atomically(Path(path), b"new")
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["fdopen", "fsync", "replace"])
def test_write_atomically_leaves_old_or_new_when_it_is_killed(tmp_path, call, moment):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, path, call, moment], capture_output=True)
    assert done.returncode == -9
    assert path.read_bytes() == (b"new" if (call, moment) == ("replace", "after") else b"old")


def test_write_atomically_shows_a_reader_whole_contents_only(tmp_path):
    path: Path = tmp_path / "file"
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomically(path, contents[0])
    code = "import sys; from model_compression.core.files import write_atomically as w\n"
    code += "for n in range(60): w(sys.argv[1], (b'a', b'b')[n % 2] * 200_000)"
    with subprocess.Popen([sys.executable, "-c", code, path]) as writer:
        while writer.poll() is None:
            assert path.read_bytes() in contents
    assert writer.returncode == 0


def test_path_below_the_working_folder_is_shown_relative_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {tmp_path / "runs/a": "runs/a", tmp_path.parent: str(tmp_path.parent), "runs/a": "runs/a", "lenet": "lenet"}
    assert {name: seen_from_here(name) for name in names} == names
