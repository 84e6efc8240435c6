"""CIFAR-10 as people have it: folders and archives, right, wrong and hostile."""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data.cifar10 import load_cifar10
from model_compression.data.cifar10_own import batch_from_pickle, read_archive


def load(path):
    """Reads own data; nothing may be fetched."""
    return load_cifar10(path, report=pytest.fail, allow_download=False)


def assert_content(tiny, loaded):
    train, test = loaded
    assert np.array_equal(train.images, tiny.images[:20])
    assert np.array_equal(train.labels, tiny.labels[:20])
    assert np.array_equal(test.images, tiny.images[20:])
    assert np.array_equal(test.labels, tiny.labels[20:])


@pytest.mark.parametrize("kind", ["py", "bin"])
def test_load_reads_a_folder_that_is_cifar10(tiny, tmp_path, kind):
    assert_content(tiny, load(tiny.folder(tmp_path / "renamed", kind)))


@pytest.mark.parametrize("kind", ["py", "bin"])
def test_load_reads_a_folder_that_contains_it_among_others(tiny, tmp_path, kind):
    folder = tiny.folder(tmp_path / "sets" / f"cifar-10-batches-{kind}", kind)
    (tmp_path / "sets" / "mnist.gz").write_bytes(b"x")
    loaded = load(tmp_path / "sets")
    assert_content(tiny, loaded)
    assert loaded[0].path == folder


@pytest.mark.parametrize("kind", ["py", "bin"])
def test_load_reads_an_archive_by_its_path(tiny, tmp_path, kind):
    assert_content(tiny, load(tiny.archive(tmp_path / "download.tgz", kind)))


@pytest.mark.parametrize(("kind", "name"), [("py", "cifar-10-python.tar.gz"), ("bin", "cifar-10-binary.tar.gz")])
def test_load_reads_a_folder_with_an_archive_and_extracts_nothing(tiny, tmp_path, kind, name):
    folder = tmp_path / "downloads"
    folder.mkdir()
    tiny.archive(folder / name, kind)
    assert_content(tiny, load(folder))
    assert [entry.name for entry in folder.iterdir()] == [name]
    assert not (tmp_path / "user-cache").exists()


def test_load_takes_the_environment_variable_as_data_dir(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_COMPRESSION_DATA", str(tiny.folder(tmp_path / "mine", "bin")))
    assert_content(tiny, load(None))


def test_load_prefers_data_dir_to_the_environment_variable(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_COMPRESSION_DATA", str(tmp_path / "nowhere"))
    assert_content(tiny, load(tiny.folder(tmp_path / "mine", "bin")))


def test_load_refuses_altered_own_data(tiny, tmp_path):
    folder = tiny.folder(tmp_path / "mine", "bin")
    file = folder / "data_batch_3.bin"
    changed = bytearray(file.read_bytes())
    changed[100] ^= 1
    file.write_bytes(changed)
    with pytest.raises(DataError, match=r"mine is not CIFAR-10: SHA-256 .* expected .*fetch it again"):
        load(folder)


def test_load_refuses_a_truncated_batch(tiny, tmp_path):
    folder = tiny.folder(tmp_path / "mine", "bin")
    file = folder / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match=r"test_batch.bin has 12291 bytes, expected 12292; it is truncated"):
        load(folder)


def test_load_refuses_an_oversized_batch_before_reading_it(tiny, tmp_path):
    folder = tiny.folder(tmp_path / "mine", "bin")
    os.truncate(folder / "test_batch.bin", 1 << 40)  # a sparse terabyte
    with pytest.raises(FileFormatError, match="has 1099511627776 bytes; expected at most 12292"):
        load(folder)


def test_load_names_the_batches_that_are_missing(tiny, tmp_path):
    folder = tiny.folder(tmp_path / "mine", "py")
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(FileFormatError, match="mine lacks data_batch_2, test_batch"):
        load(folder)


def test_load_refuses_a_label_out_of_range(tiny, tmp_path):
    folder = tiny.folder(tmp_path / "mine", "bin")
    (folder / "data_batch_1.bin").write_bytes(b"\x0a" + tiny.records("data_batch_1")[1:])
    with pytest.raises(FileFormatError, match=r"data_batch_1.bin holds labels from .* to 10; expected 0 to 9"):
        load(folder)


def test_load_refuses_every_truncation_of_an_archive(tiny, tmp_path):
    whole = tiny.archive(tmp_path / "whole.tar.gz", "bin").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in range(0, len(whole) - 200, 997):
        cut.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"cut\.tar\.gz"):
            load(cut)


def test_load_refuses_an_archive_with_a_batch_twice(tiny, tmp_path, tar_writer):
    members = tiny.members("bin") | {"./cifar-10-batches-bin/test_batch.bin": tiny.records("test_batch")}
    with pytest.raises(FileFormatError, match="holds test_batch twice"):
        load(tar_writer(tmp_path / "x.tar.gz", members))


@pytest.mark.parametrize("names", [["train", "test", "meta"], ["cifar-100-python", "notes.txt"]])
def test_load_names_cifar100_for_what_it_is(tiny, tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds CIFAR-100; expected cifar-10-batches-py, .*leave --data-dir out"):
        load(tmp_path)


def test_load_says_what_a_foreign_folder_holds_and_leaves_it_alone(tiny, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more; expected"):
        load_cifar10(folder, report=pytest.fail)
    assert len(list(folder.iterdir())) == 7


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py", "mine.tgz"])
def test_load_does_not_store_in_a_place_named_like_own_data(tiny, tmp_path, name):
    with pytest.raises(DataError, match=f"there is no .*{name}"):
        load_cifar10(tmp_path / name, report=pytest.fail)


def test_load_refuses_a_file_that_is_no_archive(tiny, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(2000))
    with pytest.raises(FileFormatError, match=r"photo.jpg cannot be read: .*fetch it again"):
        load(path)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("packed", [False, True])
def test_load_executes_nothing_in_a_malicious_batch(tiny, tmp_path, tar_writer, packed):
    proof = tmp_path / "executed"
    payload = pickle.dumps({b"data": Payload(proof), b"labels": [0, 0, 0, 0]}, protocol=2)
    folder = tiny.folder(tmp_path / "mine", "py")
    (folder / "data_batch_1").write_bytes(payload)
    source = folder
    if packed:
        members = tiny.members("py") | {"cifar-10-batches-py/data_batch_1": payload}
        source = tar_writer(tmp_path / "x.tar.gz", members)
    with pytest.raises(FileFormatError, match=r"data_batch_1.*mkdir, which is refused"):
        load(source)
    assert not proof.exists()
    pickle.loads(payload)  # the payload itself works
    assert proof.exists()


@pytest.mark.parametrize("protocol", range(5))  # NumPy pickles its arrays in another way under protocol 5
@pytest.mark.parametrize("keys", [(b"data", b"labels"), ("data", "labels")])
def test_batch_from_pickle_reads_what_python3_writes(tiny, protocol, keys):
    images, labels = tiny.batch("data_batch_1")
    payload = pickle.dumps({keys[0]: images.reshape(4, 3072), keys[1]: labels.tolist()}, protocol=protocol)
    batch = batch_from_pickle(payload, "mine")
    assert np.array_equal(batch.images, images)
    assert np.array_equal(batch.labels, labels)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([1, 2], "holds a list"),
        ({}, "expected data and labels"),
        ({"data": np.zeros((4, 3072), np.uint8), "fine_labels": [0] * 4}, "is of CIFAR-100"),
        ({"data": np.zeros((4, 3072), np.float32), "labels": [0] * 4}, "float32"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [0] * 4}, r"shape \(3, 3072\)"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0] * 3}, "expected 4 integers"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, "3"]}, "no integers"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 1 << 70]}, "mine"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, -1]}, "from -1 to 2"),
        ({"data": [[0] * 3072] * 4, "labels": [0] * 4}, "expected data and labels"),
    ],
)
def test_batch_from_pickle_refuses_other_content(tiny, content, named):
    with pytest.raises(FileFormatError, match=named):
        batch_from_pickle(pickle.dumps(content), "mine")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 300), value=st.binary(min_size=1, max_size=8))
def test_batch_from_pickle_survives_any_change(tiny, position, value):
    payload = bytearray(tiny.pickled("data_batch_1"))
    payload[position : position + len(value)] = value
    message = refusal(lambda: batch_from_pickle(bytes(payload), "mine"))
    assert message is None or message.startswith("mine")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), value=st.binary(min_size=1, max_size=20))
def test_read_archive_survives_any_change(tiny, position, value):
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.archive(Path(folder) / "x.tar.gz", "bin")
        payload = bytearray(path.read_bytes())
        start = int(position * len(payload))
        payload[start : start + len(value)] = value
        path.write_bytes(payload)
        message = refusal(lambda: read_archive(path))
        assert message is None or str(path) in message


def refusal(call):
    """The message of the error that ``call`` raises, None without one."""
    try:
        call()
    except FileFormatError as error:
        return str(error)
    return None
