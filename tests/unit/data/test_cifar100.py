"""CIFAR-100 of a few images, in every form that people have it in, and from stand-ins for its two sources."""

import hashlib
import http.server
import io
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data import cifar100
from model_compression.data import cifar100_content as content
from model_compression.data.cifar100 import load_cifar100, read_parquet
from model_compression.data.cifar100_own import part_from_pickle
from model_compression.data.sources import load_dataset

COUNTS = {"train": 8, "test": 4}


class Tiny:
    """Random content, and writers of files that hold it."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.images = {name: rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8) for name, count in COUNTS.items()}
        self.coarse = {name: rng.integers(0, 20, count) for name, count in COUNTS.items()}
        self.fine = {name: rng.integers(0, 100, count) for name, count in COUNTS.items()}

    def records(self, name):
        """What the binary archive holds, written record by record."""
        parts = zip(self.coarse[name], self.fine[name], self.images[name], strict=True)
        return b"".join(bytes([coarse, fine]) + image.tobytes() for coarse, fine, image in parts)

    def pickled(self, name, **change):
        values = {
            "filenames": ["a.png"] * COUNTS[name],
            "batch_label": "training batch 1 of 1",
            "fine_labels": self.fine[name].tolist(),
            "coarse_labels": self.coarse[name].tolist(),
            "data": self.images[name].reshape(-1, 3072),
        }
        return pickle.dumps({key.encode(): value for key, value in (values | change).items()}, protocol=2)

    def members(self, kind):
        write, ending = (self.records, ".bin") if kind == "binary" else (self.pickled, "")
        return {f"cifar-100-{kind}/{name}{ending}": write(name) for name in COUNTS} | {
            f"cifar-100-{kind}/fine_label_names.txt": b"apple\n"
        }

    def folder(self, path, kind):
        path.mkdir(parents=True)
        for name, payload in self.members(kind).items():
            (path / name.split("/")[1]).write_bytes(payload)
        return path


@pytest.fixture
def tiny100(monkeypatch, tmp_path):
    """CIFAR-100 of twelve images, with the built-in sizes and hashes set to match; the cache is in tmp_path."""
    made = Tiny()
    monkeypatch.setattr(content, "RECORDS", COUNTS)
    hashes = {name: hashlib.sha256(made.records(name)).hexdigest() for name in COUNTS}
    monkeypatch.setattr(content, "FILE_SHA256", hashes)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "user-cache" / name))
    monkeypatch.delenv("MODEL_COMPRESSION_DATA", raising=False)
    return made


def assert_content(made, loaded):
    for name, dataset in zip(COUNTS, loaded, strict=True):
        np.testing.assert_array_equal(dataset.images, made.images[name])
        np.testing.assert_array_equal(dataset.labels, made.fine[name])
        assert dataset.num_classes == 100


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_own_folder_and_archive_are_read_in_place(tiny100, tmp_path, tar_writer, kind):
    assert_content(tiny100, load_cifar100(tiny100.folder(tmp_path / "mine", kind), pytest.fail))
    (tmp_path / "archives").mkdir()
    archive = tar_writer(tmp_path / "archives" / f"cifar-100-{kind}.tar.gz", tiny100.members(kind))
    assert_content(tiny100, load_cifar100(archive, pytest.fail))
    loaded = load_cifar100(archive.parent, pytest.fail)
    assert_content(tiny100, loaded)
    assert (loaded[0].name, loaded[0].source, loaded[0].path) == ("cifar100", f"own copy in {archive.name}", archive)


def test_altered_content_is_refused_in_any_form(tiny100, tmp_path):
    tiny100.images["test"][0, 0, 0, 0] ^= 1
    for kind in ("python", "binary"):
        with pytest.raises(DataError, match=r"is not CIFAR-100: SHA-256 of its test records is .* fetch it again"):
            load_cifar100(tiny100.folder(tmp_path / kind, kind), pytest.fail)


def test_official_archive_is_fetched_verified_and_stored(tiny100, tmp_path, tar_writer, monkeypatch):
    tar_writer(tmp_path / "cifar-100-binary.tar.gz", tiny100.members("binary"))
    payload = (tmp_path / "cifar-100-binary.tar.gz").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(cifar100, "URL", f"http://127.0.0.1:{server.server_port}/cifar-100-binary.tar.gz")
        said = []
        monkeypatch.setattr(cifar100, "fetch_hub", pytest.fail)
        with pytest.raises(
            DataError, match="expected 58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
        ):
            cifar100.fetch_official(tmp_path / "workspace")
        monkeypatch.setattr(cifar100, "ARCHIVE_SHA256", hashlib.sha256(payload).hexdigest())
        assert_content(tiny100, load_cifar100(report=said.append))
    finally:
        server.shutdown()
        server.server_close()
    assert said[0].startswith("CIFAR-100 is not in ")
    assert said[1].startswith("official archive: fetched and verified")
    again = load_dataset("cifar100", report=pytest.fail)
    assert_content(tiny100, again)
    assert again[0].path == tmp_path / "user-cache" / "model-compression" / "cifar100.safetensors"
    assert again[0].source == "official archive"


def write_parquet(path, made, name):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = []
    for image in made.images[name]:
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"img": pa.array(images, type=kind), "fine_label": made.fine[name], "coarse_label": made.coarse[name]}
    parquet.write_table(pa.table(columns), path)
    return path


def test_hub_serves_where_the_official_site_does_not(tiny100, tmp_path, monkeypatch):
    files = {name: write_parquet(tmp_path / f"{name}.parquet", tiny100, name) for name in COUNTS}
    asked = []

    def fetch_files(repository, names, workspace):
        asked.append((repository, list(names)))
        return list(files.values())

    def fail(workspace):
        raise DataError("no route")

    monkeypatch.setattr("model_compression.data.cifar10_hub.fetch_files", fetch_files)
    monkeypatch.setattr(cifar100, "fetch_official", fail)
    said = []
    assert_content(tiny100, load_cifar100(tmp_path / "store", said.append))
    names = [f"cifar100/{name}-00000-of-00001.parquet" for name in COUNTS]
    assert asked == [("uoft-cs/cifar100", names)]
    assert "no route" in said[1]
    tiny100.fine["train"][0] = (tiny100.fine["train"][0] + 1) % 100
    write_parquet(files["train"], tiny100, "train")
    with pytest.raises(DataError, match="is not CIFAR-100"):
        content.verify(read_parquet(*files.values()), "hub")


def test_nothing_is_fetched_where_it_is_not_allowed(tiny100, tmp_path):
    with pytest.raises(DataError, match=r"downloads are off; run 'model-compression data cifar100' first"):
        load_cifar100(tmp_path / "store", pytest.fail, allow_download=False)


def test_what_is_something_else_is_named(tiny100, tmp_path):
    (tmp_path / "ten").mkdir()
    (tmp_path / "ten" / "data_batch_1").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds CIFAR-10; expected cifar-100-python, .* folder to store CIFAR-100 in"):
        load_cifar100(tmp_path / "ten", pytest.fail)
    (tiny100.folder(tmp_path / "half", "binary") / "test.bin").unlink()
    with pytest.raises(FileFormatError, match="half lacks test; expected train and test"):
        load_cifar100(tmp_path / "half", pytest.fail)
    (tiny100.folder(tmp_path / "cut", "binary") / "test.bin").write_bytes(tiny100.records("test")[:-3074])
    with pytest.raises(FileFormatError, match="cut: test has 3 images; expected 4"):
        load_cifar100(tmp_path / "cut", pytest.fail)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fine_labels": [0] * 7}, r"labels \(8,\) and \(7,\); expected uint8, 3072 for each"),
        ({"fine_labels": [100] * 8}, "labels that are none of 0 to 99"),
        ({"coarse_labels": [-1] * 8}, "labels that are none of 0 to 19"),
        ({"coarse_labels": [0.5] * 8}, "labels that are none of 0 to 19"),
        ({"data": np.zeros((8, 3072), np.float32)}, "holds pixels of float32"),
        ({"data": None}, "expected data, fine_labels and coarse_labels"),
    ],
)
def test_part_from_pickle_refuses_other_content(tiny100, change, message):
    with pytest.raises(FileFormatError, match=message):
        part_from_pickle(tiny100.pickled("train", **change), "mine")
    with pytest.raises(FileFormatError, match="mine is of CIFAR-10; expected CIFAR-100"):
        part_from_pickle(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}), "mine")


def test_class_names_are_the_hundred_fine_ones_in_order():
    assert len(set(content.CLASS_NAMES)) == 100
    assert list(content.CLASS_NAMES) == sorted(content.CLASS_NAMES)
    assert (content.CLASS_NAMES[19], content.CLASS_NAMES[29]) == ("cattle", "dinosaur")
