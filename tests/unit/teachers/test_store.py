"""Folders of answers: one fingerprint each, refused for anything else, deleted only when they are what they seem."""

import json
import os

import pytest
import torch

from model_compression.errors import CacheMismatchError, FileFormatError, ModelCompressionError
from model_compression.teachers.store import AnswerStore, cache_folder, store_for, stores

PRINT = {"format": "f", "shift": 4, "networks": [{"model": "a"}]}
ANSWERS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(tmp_path):
    made = AnswerStore(tmp_path / "store")
    made.claim(PRINT, {"teacher": "t"})
    return made


def test_store_gives_back_what_was_written(store):
    store.write(3, ANSWERS, torch.float32)
    store.write(0, ANSWERS, torch.float16)
    assert torch.equal(store.read(3), ANSWERS)
    assert torch.equal(store.read(0), ANSWERS.half())
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


def test_answers_beyond_half_precision_are_not_stored_as_infinity(store):
    with pytest.raises(ModelCompressionError, match=r"reach 7e\+04, and half precision ends at 65,504; .*-dtype fp32"):
        store.write(0, ANSWERS.abs().clamp(max=1) * 0 + 7e4, torch.float16)
    assert store.views() == []
    store.write(0, ANSWERS * 0 + 7e4, torch.float32)
    assert store.read(0).max() == 7e4


def test_usage_is_counted_over_processes_and_begins_anew_when_damaged(store):
    AnswerStore(store.folder).count(found=2)
    store.count(filled=1, found=1)
    assert (store.usage.found, store.usage.filled, store.usage.hit_rate) == (3, 1, 0.75)
    (store.folder / "usage.json").write_text("{")
    assert (store.usage.found, store.usage.hit_rate) == (0, 0)


def test_clear_frees_the_folder(store, tmp_path):
    store.write(3, ANSWERS, torch.float32)
    store.count(filled=1)
    size = sum(path.stat().st_size for path in store.folder.iterdir())
    assert store.clear() == size > 84
    assert list(tmp_path.iterdir()) == []


def test_damaged_fingerprint_is_an_error_that_names_it(store):
    (store.folder / "fingerprint.json").write_text(json.dumps({"fingerprint": []}))
    with pytest.raises(FileFormatError, match=r"fingerprint\.json is damaged"):
        store.claim(PRINT, {})


def test_store_that_can_only_be_read_serves_uncounted(store, monkeypatch):
    store.write(0, ANSWERS, torch.float32)
    (store.folder / ".lock").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    reader = AnswerStore(store.folder)
    reader.claim(PRINT, {})
    reader.count(found=1)
    assert torch.equal(reader.read(0), ANSWERS)
    assert sorted(path.name for path in store.folder.iterdir()) == ["fingerprint.json", "view-0.safetensors"]


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
