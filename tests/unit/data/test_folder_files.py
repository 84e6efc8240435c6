"""The index of a folder: a second start reads no folder, and whatever has changed since is noticed."""

import mmap
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_compression.data import folder_files
from model_compression.data.folder import load_folder
from model_compression.data.folder_files import list_files

CLASSES = ("a", "b")


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(path)


def settle(root):
    """As if all had been written an hour ago, each at its own time."""
    for number, path in enumerate(sorted([root, *root.rglob("*")], reverse=True)):
        if path.exists():
            os.utime(path, ns=(0, time.time_ns() - 3_600_000_000_000 + number))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes with folders in folders, of which an index is kept although they are small."""
    monkeypatch.setattr(folder_files, "WORTH_KEEPING", 1)
    root = tmp_path / "photos"
    for seed, name in enumerate(("a/1.png", "a/deep/er/2.png", "a-b.png", "b/1.png", "b/2.png", "b/z.png")):
        save(root / name, seed)
    (root / "a" / "notes.txt").write_text("x")
    settle(root)
    return root


@pytest.fixture
def reads(monkeypatch):
    """The folders that are read, one after the other."""
    read, original = [], folder_files.find_images
    monkeypatch.setattr(folder_files, "find_images", lambda folder: read.append(folder.name) or original(folder))
    return read


def content(files):
    return list(files), [files.identity(number) for number in range(len(files))], files.counts, files.notes


def test_second_start_reads_no_folder_and_finds_the_same(photos, reads):
    first = list_files(photos, CLASSES, print)
    assert reads == ["a", "b"]
    second = list_files(photos, CLASSES, print)
    assert reads == ["a", "b"]
    assert content(second) == content(first)
    names = ["a/1.png", "a/deep/er/2.png", "b/1.png", "b/2.png", "b/z.png"]
    assert [path.relative_to(photos).as_posix() for path in second] == names
    assert second.notes == (f"{photos}: left out, as they are no images that can be read: 1 .txt (a/notes.txt)",)
    base = second.names.text
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)  # no copy of the file


def test_data_of_the_index_are_those_without_one(photos, reads, monkeypatch):
    indexed = [load_folder(photos, size) for size in (0, 0, 4)]
    assert len(reads) == 2
    opened = []
    monkeypatch.setattr("model_compression.data.folder.size_of", lambda path: opened.append(path))
    load_folder(photos)
    assert opened == []  # that all have one size is in the index
    monkeypatch.undo()
    for pair, size in zip(indexed, (0, 0, 4), strict=True):
        for found, expected in zip(pair, load_folder(photos, size), strict=True):
            assert found.digest == expected.digest
            np.testing.assert_array_equal(found.images[:], expected.images[:])
            np.testing.assert_array_equal(found.labels, expected.labels)
            assert (found.notes, found.image_shape) == (expected.notes, expected.image_shape)


def rewrite(path, change):
    payload = bytearray(path.read_bytes())
    change(payload)
    path.write_bytes(payload)


CHANGES = {
    "added": lambda root: save(root / "a" / "0.png"),
    "added below": lambda root: save(root / "b" / "new" / "0.png"),
    "removed": lambda root: (root / "b" / "2.png").unlink(),
    "renamed": lambda root: (root / "b" / "2.png").rename(root / "b" / "0.png"),
    "moved": lambda root: (root / "b" / "2.png").rename(root / "a" / "2.png"),
    "longer": lambda root: rewrite(root / "b" / "1.png", lambda payload: payload.append(0)),
    "rewritten": lambda root: rewrite(root / "b" / "1.png", lambda payload: payload.reverse()),
    "folder removed": lambda root: shutil.rmtree(root / "a" / "deep"),
    "link": lambda root: (root / "a" / "9.png").symlink_to(root / "b" / "1.png"),
    "left out": lambda root: (root / "b" / "more.txt").write_text("x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed(photos, reads, change):
    list_files(photos, CLASSES, print)
    CHANGES[change](photos)
    found = content(list_files(photos, CLASSES, print))
    assert reads == ["a", "b"] * 2
    shutil.rmtree(Path(os.environ["MODEL_COMPRESSION_CACHE"]))
    assert found == content(list_files(photos, CLASSES, print))


def test_other_classes_and_another_folder_have_an_index_of_their_own(photos, reads, tmp_path):
    list_files(photos, CLASSES, print)
    assert len(list_files(photos, ("b",), print)) == 3
    shutil.copytree(photos, tmp_path / "copy")
    settle(tmp_path / "copy")
    assert list_files(tmp_path / "copy", CLASSES, print)[0] == tmp_path / "copy" / "a" / "1.png"
    assert reads == ["a", "b", "b", "a", "b"]


def test_no_index_is_kept_of_what_was_just_written_or_may_change_unseen(photos, reads):
    (photos / "b" / "gone.png").symlink_to(photos / "nowhere")  # whose coming leaves no trace in b
    settle(photos)
    for _ in range(2):
        assert "1 broken link (b/gone.png)" in list_files(photos, CLASSES, print).notes[0]
    (photos / "b" / "gone.png").unlink()  # a moment ago
    for _ in range(2):
        list_files(photos, CLASSES, print)
    assert reads == ["a", "b"] * 4


def test_small_folder_has_no_index(photos, reads, monkeypatch):
    monkeypatch.setattr(folder_files, "WORTH_KEEPING", 6)
    list_files(photos, CLASSES, print)
    assert not Path(os.environ["MODEL_COMPRESSION_CACHE"]).exists()


def test_damaged_index_is_made_again(photos, reads):
    expected = content(list_files(photos, CLASSES, print))
    (path,) = (Path(os.environ["MODEL_COMPRESSION_CACHE"]) / "indexes").iterdir()
    whole = path.read_bytes()
    damaged = [whole[: len(whole) * part // 7] for part in range(7)]
    for place in range(0, len(whole), 11):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for payload in damaged:
        path.write_bytes(payload)
        reads.clear()
        assert content(list_files(photos, CLASSES, print)) == expected
        assert reads == ["a", "b"]
    assert path.read_bytes() == whole


def test_cache_that_cannot_be_written_is_one_line(photos, monkeypatch, tmp_path, reads):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path / "file"))
    said = []
    for _ in range(2):
        assert len(list_files(photos, CLASSES, said.append)) == 5
    assert reads == ["a", "b"] * 2
    assert said[0].startswith(f"the index of {photos} is not kept, and made again by the next start: ")
    assert said[0].endswith("MODEL_COMPRESSION_CACHE names another folder")
    assert "\n" not in said[0]


def test_names_that_are_no_text_are_kept(photos):
    name = os.fsdecode(b"b/caf\xe9.png")
    shutil.copy(photos / "b" / "1.png", photos / name)
    settle(photos)
    for _ in range(2):
        assert photos / name in list(list_files(photos, CLASSES, print))
