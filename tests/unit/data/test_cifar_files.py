"""CIFAR-10 and CIFAR-100 as people have them: folders and archives, right, wrong and hostile."""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data.cifar import load_cifar10, load_cifar100
from model_compression.data.cifar_content import CIFAR10, CIFAR100
from model_compression.data.cifar_files import read_archive, records_from_pickle


def load(path, tiny=None):
    """Reads own data; nothing may be fetched."""
    loader = load_cifar100 if tiny is not None and tiny.key == "cifar100" else load_cifar10
    return loader(path, report=pytest.fail, allow_download=False)


@pytest.mark.parametrize("kind", ["py", "bin"])
def test_load_reads_official_folders_and_archives_in_place(either, tmp_path, kind):
    renamed = either.folder(tmp_path / "renamed", kind)
    among = either.folder(tmp_path / "sets" / either.folders[kind], kind)
    (tmp_path / "sets" / "mnist.gz").write_bytes(b"x")
    archive = either.archive(tmp_path / "archives" / either.archives[kind], kind)
    for given_path, read_path in (
        (renamed, renamed),
        (tmp_path / "sets", among),
        (archive, archive),
        (archive.parent, archive),
    ):
        loaded = load(given_path, either)
        either.assert_content(loaded)
        assert loaded[0].path == read_path
        assert loaded[0].source == f"own copy in {read_path.name}"
    assert [entry.name for entry in archive.parent.iterdir()] == [archive.name]
    assert not (tmp_path / "user-cache").exists()


def test_load_takes_the_environment_variable_as_data_dir_unless_one_is_given(tiny, tmp_path, monkeypatch):
    mine = tiny.folder(tmp_path / "mine", "bin")
    monkeypatch.setenv("MODEL_COMPRESSION_DATA", str(mine))
    tiny.assert_content(load(None))
    monkeypatch.setenv("MODEL_COMPRESSION_DATA", str(tmp_path / "nowhere"))
    tiny.assert_content(load(mine))


@pytest.mark.parametrize("kind", ["py", "bin"])
def test_load_refuses_altered_own_data(either, tmp_path, kind):
    either.images[-1, 0, 0, 0] ^= 1
    folder = either.folder(tmp_path / "mine", kind)
    with pytest.raises(DataError, match=r"mine is not CIFAR-10+: SHA-256 of the records of test.* expected .*fetch it"):
        load(folder, either)


def test_load_refuses_altered_labels(either, tmp_path):
    either.classes[0] = (either.classes[0] + 1) % 10
    with pytest.raises(DataError, match="is not CIFAR-10"):
        load(either.folder(tmp_path / "mine", "bin"), either)


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


def test_load_says_what_a_foreign_folder_holds_and_leaves_it_alone(either, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(b"x")
    form = either.folders["py"]
    with pytest.raises(DataError, match=rf"holds 0.jpg, .*, 4.jpg and 2 more; expected {form}, .*leave data_dir out"):
        load(folder, either)
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
@pytest.mark.parametrize("encode", [str.encode, str])
def test_records_are_read_from_what_python3_writes(tiny, protocol, encode):
    values = {encode("data"): tiny.images[:4].reshape(4, 3072), encode("labels"): tiny.classes[:4].tolist()}
    found = records_from_pickle(tiny.facts, 4, pickle.dumps(values, protocol=protocol), "mine")
    assert found.tobytes() == tiny.records("data_batch_1")


PIXELS = np.zeros((4, 3072), np.uint8)


@pytest.mark.parametrize(
    ("facts", "content", "named"),
    [
        (CIFAR10, [1, 2], "holds a list"),
        (CIFAR10, {}, "expected data, labels of CIFAR-10"),
        (CIFAR10, {"data": PIXELS, "fine_labels": [0] * 4}, "has the keys.*fine_labels.*expected data, labels"),
        (CIFAR10, {"data": PIXELS.astype(np.float32), "labels": [0] * 4}, "float32"),
        (CIFAR10, {"data": PIXELS[:3], "labels": [0] * 4}, r"pixels uint8 \(3, 3072\)"),
        (CIFAR10, {"data": PIXELS, "labels": [0] * 3}, "expected 4 images"),
        (CIFAR10, {"data": PIXELS, "labels": [0, 1, 2, "3"]}, "labels <U"),
        (CIFAR10, {"data": PIXELS, "labels": [0, 1, 2, 1 << 70]}, "labels object"),
        (CIFAR10, {"data": PIXELS, "labels": [0, 1, [2], 3]}, "no lists of integers"),
        (CIFAR10, {"data": PIXELS.tolist(), "labels": [0] * 4}, "expected data, labels"),
        (CIFAR100, {"data": PIXELS, "labels": [0] * 4}, "expected data, coarse_labels and fine_labels of CIFAR-100"),
        (CIFAR100, {"data": PIXELS, "fine_labels": [0] * 3, "coarse_labels": [0] * 4}, "no lists of integers"),
        (CIFAR100, {"data": PIXELS, "fine_labels": [0.5] * 4, "coarse_labels": [0] * 4}, "labels float64"),
    ],
)
def test_pickles_of_other_content_are_refused(facts, content, named):
    with pytest.raises(FileFormatError, match=f"mine .*{named}"):
        records_from_pickle(facts, 4, pickle.dumps(content), "mine")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 300), value=st.binary(min_size=1, max_size=8))
def test_pickles_with_any_change_are_read_or_refused(tiny, position, value):
    payload = bytearray(tiny.pickled("data_batch_1"))
    payload[position : position + len(value)] = value
    message = refusal(lambda: records_from_pickle(tiny.facts, 4, bytes(payload), "mine"))
    assert message is None or message.startswith("mine")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), value=st.binary(min_size=1, max_size=20))
def test_archives_with_any_change_are_read_or_refused(tiny, position, value):
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.archive(Path(folder) / "x.tar.gz", "bin")
        payload = bytearray(path.read_bytes())
        start = int(position * len(payload))
        payload[start : start + len(value)] = value
        path.write_bytes(payload)
        message = refusal(lambda: read_archive(tiny.facts, path))
        assert message is None or str(path) in message


def refusal(call):
    """The message of the error that ``call`` raises, None without one."""
    try:
        call()
    except FileFormatError as error:
        return str(error)
    return None
