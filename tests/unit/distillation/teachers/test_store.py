"""Folders of answers: one fingerprint each, refused for anything else, deleted only when they are what they seem."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from model_compression.core.errors import CacheMismatchError, FileFormatError, ModelCompressionError
from model_compression.distillation.teachers import store as store_module
from model_compression.distillation.teachers.row_formats import row_format
from model_compression.distillation.teachers.store import AnswerStore, cache_folder, store_for, stores

PRINT = {"format": "f", "shift": 4, "networks": [{"model": "a"}]}
ANSWERS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


def write(store, view, answers=ANSWERS, dtype="fp32", field="logits"):
    rows = store.rows(view, field, len(answers), lambda shape: row_format(shape, dtype))
    rows.write(0, answers, store.making)


def read(store, view):
    rows = store.rows(view, "logits", len(ANSWERS), lambda shape: row_format(shape, "fp32"))
    assert rows.missing() == []
    return rows.reader()[torch.arange(len(ANSWERS))]


@pytest.fixture
def store(tmp_path):
    made = AnswerStore(tmp_path / "store")
    made.claim(PRINT, {"teacher": "t"})
    return made


def test_store_gives_back_what_was_written(store):
    write(store, 3)
    write(store, 0)
    assert torch.equal(read(store, 3), ANSWERS)
    assert store.views() == [0, 3]
    assert (store.fingerprint, store.origin) == (PRINT, {"teacher": "t"})


def test_store_of_other_answers_is_refused_and_says_what_differs(store):
    store.claim(PRINT, {"teacher": "the same, from elsewhere"})
    with pytest.raises(CacheMismatchError, match=r"holds answers of something else: shift is 4 there, 2 here; name"):
        AnswerStore(store.folder).claim({**PRINT, "shift": 2}, {})
    assert store.fingerprint == PRINT


def test_folder_with_other_files_is_not_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CacheMismatchError, match="holds files but no answers of a teacher; name an empty folder"):
        AnswerStore(tmp_path).claim(PRINT, {})
    with pytest.raises(FileFormatError):
        AnswerStore(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_usage_is_counted_over_processes_and_begins_anew_when_damaged(store):
    AnswerStore(store.folder).count(found=2)
    store.count(filled=1, found=1)
    assert (store.usage.found, store.usage.filled, store.usage.hit_rate) == (3, 1, 0.75)
    (store.folder / "usage.json").write_text("{")
    assert (store.usage.found, store.usage.hit_rate) == (0, 0)


def test_clear_frees_the_folder(store, tmp_path):
    write(store, 3)
    store.count(filled=1)
    size = sum(path.stat().st_size for path in store.folder.iterdir())
    assert store.clear() == size > 84
    assert list(tmp_path.iterdir()) == []


def test_damaged_fingerprint_is_an_error_that_names_it(store):
    (store.folder / "fingerprint.json").write_text(json.dumps({"fingerprint": []}))
    with pytest.raises(FileFormatError, match=r"fingerprint\.json is damaged"):
        store.claim(PRINT, {})


AS_NOBODY = """
import os, sys
from pathlib import Path
from model_compression.core.errors import ModelCompressionError
from model_compression.distillation.teachers.store import AnswerStore
from tests.unit.distillation.teachers.test_store import ANSWERS, PRINT, read
import torch

if os.getuid() == 0:
    os.setuid(65534)
store = AnswerStore(Path(sys.argv[1]))
store.claim(PRINT, {})
store.count(found=1)
assert torch.equal(read(store, 0), ANSWERS)
for step in (store.check_writable, store.lock().__enter__, store.clear):
    try:
        step()
    except ModelCompressionError as error:
        print(error)
"""


def as_nobody(folder):
    """What another user, who may read ``folder``, is told."""
    command = [sys.executable, "-c", AS_NOBODY, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def open_store():
    """A store with a view, in a folder that others may enter: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = AnswerStore(Path(folder) / "store")
        made.claim(PRINT, {"teacher": "t"})
        write(made, 0)
        made.count(filled=1)
        yield made


@pytest.mark.parametrize("mode", [0o755, 0o777], ids=["folder of another", "lock of another"])
def test_store_of_another_user_serves_uncounted_and_is_not_written(open_store, mode):
    folder = open_store.folder
    folder.chmod(mode)
    for name in (".lock", ".usage.lock"):
        (folder / name).chmod(0o644)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for said in as_nobody(folder):
        assert str(folder) in said
        assert "the folder is not writable" in said
        assert "name another folder with teacher_cache" in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_process_left_blocks_nothing(store):
    write(store, 0)
    (store.folder / ".view-1.safetensors.x.tmp").write_bytes(b"half")
    (store.folder / "fingerprint.json").rename(store.folder / ".fingerprint.json.y.tmp")
    again = AnswerStore(store.folder)
    again.claim(PRINT, {})
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock", "fingerprint.json"]
    (store.folder / ".view-1.safetensors.x.tmp").write_bytes(b"half")
    again.clear()
    assert not store.folder.exists()


def test_store_that_is_cleared_while_a_run_uses_it_is_whole_again_with_the_next_view(store):
    write(store, 0)
    AnswerStore(store.folder).clear()
    store.count(found=1)
    write(store, 1)
    found = AnswerStore(store.folder)
    found.claim(PRINT, {})
    assert (found.views(), found.origin) == ([1], {"teacher": "t"})


def test_count_does_not_wait_for_a_view_that_another_process_stores(store):
    with AnswerStore(store.folder).lock():
        store.count(found=1)
    assert store.usage.found == 1


def test_count_on_a_full_disk_is_left_out(store, monkeypatch):
    def full(*_):
        raise ModelCompressionError("the disk is full")

    monkeypatch.setattr(store_module, "write_atomically", full)
    store.count(found=1)
    assert store.usage.found == 0


def test_files_of_others_in_a_store_are_no_views(store):
    write(store, 0)
    (store.folder / "view-0 (copy).safetensors").write_bytes(b"")
    assert store.views() == [0]
    store.clear()
    assert [path.name for path in store.folder.iterdir()] == ["view-0 (copy).safetensors"]


def test_stores_lists_those_of_the_cache_or_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path))
    assert stores() == []
    for shift in (1, 2):
        store_for({"shift": shift}).claim({"shift": shift}, {})
    assert sorted(store.fingerprint["shift"] for store in stores()) == [1, 2]
    (one,) = stores(store_for({"shift": 1}).folder)
    assert one.fingerprint == {"shift": 1}


def test_cache_folder_is_the_users_or_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "teachers"
    monkeypatch.delenv("MODEL_COMPRESSION_CACHE")
    assert cache_folder().parts[-2:] == ("model-compression", "teachers")


def test_store_in_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelCompressionError, match=r"cannot write .*: a part of the path is a file"):
        AnswerStore(tmp_path / "file" / "store").claim(PRINT, {})


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", "is no folder"),
        ("file/below", "is no folder"),
        ("link", "is no folder"),
        ("full", "holds files but no answers"),
        ("\udcff", "is no name in UTF-8"),
    ],
)
def test_a_place_that_takes_no_answers_is_refused_before_anything_is_written(place, message, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nosuch")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CacheMismatchError, match=message):
        AnswerStore(tmp_path / place).check_place()
    assert sorted(tmp_path.rglob("*")) == before
    AnswerStore(tmp_path / "new" / "store").check_place()
    assert sorted(tmp_path.rglob("*")) == before
