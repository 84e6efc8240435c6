"""CIFAR-10 and CIFAR-100 of a few images, in every form that they come in."""

import dataclasses
import hashlib
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_compression.data import cifar_content
from model_compression.data.cifar_content import CIFAR10, CIFAR100, Cifar

FILES = {"cifar10": dict.fromkeys(CIFAR10.files, 4), "cifar100": {"train": 8, "test": 4}}


class TinyCifar:
    """Random content, writers of files that hold it, and the facts of the real dataset with its sizes and digests."""

    def __init__(self, real: Cifar) -> None:
        generator = np.random.Generator(np.random.PCG64(7))
        self.files = FILES[real.key]
        count = sum(self.files.values())
        self.images = generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        self.classes = generator.integers(0, len(real.class_names), count, dtype=np.uint8)
        self.coarse = generator.integers(0, 20, count, dtype=np.uint8) if real.key == "cifar100" else None
        self.split = count - 4
        self.key, self.folders = real.key, {"py": real.python_folder, "bin": real.binary_folder}
        self.archives = dict(zip(("py", "bin"), real.archives, strict=True))
        digests = {name: hashlib.sha256(self.records(name)).hexdigest() for name in self.files}
        sizes = {"num_train": self.split, "num_test": 4}
        self.facts = dataclasses.replace(real, files=self.files, sha256=digests, **sizes)

    def rows(self, name: str) -> slice:
        """Where the images of a file are."""
        start = sum(list(self.files.values())[: list(self.files).index(name)])
        return slice(start, start + self.files[name])

    def records(self, name: str) -> bytes:
        """What the binary archive holds, written record by record."""
        rows = range(*self.rows(name).indices(len(self.images)))
        coarse = [b"" if self.coarse is None else bytes([self.coarse[row]]) for row in rows]
        return b"".join(
            first + bytes([self.classes[row]]) + self.images[row].tobytes()
            for first, row in zip(coarse, rows, strict=True)
        )

    def pickled(self, name: str) -> bytes:
        """What the Python archive holds: a pickle as Python 2 wrote it, opcode by opcode."""
        rows = self.rows(name)
        classes = self.classes[rows].tolist()
        named = [b"labels"] if self.coarse is None else [b"coarse_labels", b"fine_labels"]
        columns = [classes] if self.coarse is None else [self.coarse[rows].tolist(), classes]
        return python2_batch(self.images[rows].reshape(-1, 3072), dict(zip(named, columns, strict=True)))

    def members(self, kind: str) -> dict[str, bytes]:
        """The members of one archive: "bin" or "py"."""
        write, ending = (self.records, ".bin") if kind == "bin" else (self.pickled, "")
        found = {f"{self.folders[kind]}/{name}{ending}": write(name) for name in self.files}
        return found | {f"{self.folders[kind]}/readme.html": b"<html>"}

    def folder(self, path: Path, kind: str) -> Path:
        """Writes an unpacked archive into ``path``."""
        path.mkdir(parents=True)
        for name, payload in self.members(kind).items():
            (path / Path(name).name).write_bytes(payload)
        return path

    def archive(self, path: Path, kind: str) -> Path:
        """Writes a compressed archive, members in another order than the official one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_tar(path, dict(reversed(self.members(kind).items())))

    def npm_members(self) -> dict[str, bytes]:
        """The members of the npm package."""
        members = {"package/package.json": b"{}"}
        for name, count in self.files.items():
            sheet = self.images[self.rows(name)].transpose(0, 2, 3, 1).reshape(count, 1024, 3)
            members[f"package/{name}.png"] = png(sheet)
        members["package/train_lables.json"] = json.dumps(self.classes[: self.split].tolist()).encode()
        members["package/test_lables.json"] = json.dumps(self.classes[self.split :].tolist()).encode()
        return members

    def assert_content(self, loaded) -> None:
        """Raises AssertionError unless ``loaded`` is the pair of datasets that holds this content."""
        for dataset, rows in zip(loaded, (slice(self.split), slice(self.split, None)), strict=True):
            np.testing.assert_array_equal(dataset.images, self.images[rows])
            np.testing.assert_array_equal(dataset.labels, self.classes[rows])


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    """A gzip-compressed tar of ``members``, with headers in ``extra`` (without content) in front."""
    with tarfile.open(path, "w:gz") as archive:
        for header in extra or []:
            archive.addfile(header)
        for name, payload in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(payload)
            archive.addfile(header, io.BytesIO(payload))
    return path


def python2_batch(data: np.ndarray, labels: dict[bytes, list[int]]) -> bytes:
    """{'data': array, **labels} in pickle protocol 2 with Python 2 strings, which Python 3 cannot write."""

    def text(value: bytes) -> bytes:
        return pickle.BINSTRING + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return pickle.BININT + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    array += number(0) + pickle.TUPLE1 + text(b"b") + pickle.TUPLE3 + pickle.REDUCE
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + pickle.TUPLE3 + pickle.REDUCE
    dtype += pickle.MARK + number(3) + text(b"|") + pickle.NONE * 3 + number(-1) * 2 + number(0) + pickle.TUPLE
    dtype += pickle.BUILD
    shape = b"".join(number(size) for size in data.shape) + pickle.TUPLE2
    array += pickle.MARK + number(1) + shape + dtype + pickle.NEWFALSE + text(data.tobytes()) + pickle.TUPLE
    array += pickle.BUILD
    items = text(b"data") + array
    for name, values in labels.items():
        listed = pickle.EMPTY_LIST + pickle.MARK + b"".join(number(value) for value in values) + pickle.APPENDS
        items += text(name) + listed
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real: Cifar) -> TinyCifar:
    made = TinyCifar(real)
    monkeypatch.setattr(cifar_content, real.key.upper(), made.facts)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "user-cache" / name))
    monkeypatch.delenv("MODEL_COMPRESSION_DATA", raising=False)
    return made


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyCifar:
    """CIFAR-10 of four images a file in the place of the real one; the cache is in tmp_path."""
    return _install(monkeypatch, tmp_path, CIFAR10)


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyCifar:
    """CIFAR-10 or CIFAR-100 of a few images in the place of the real one; the cache is in tmp_path."""
    return _install(monkeypatch, tmp_path, request.param)


@pytest.fixture
def tar_writer():
    """write_tar, for tests that put hostile members into archives."""
    return write_tar


@pytest.fixture
def png_of():
    """png, for tests that make image files."""
    return png
