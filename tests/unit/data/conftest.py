"""A CIFAR-10 of four images a batch, in every form that people have it in."""

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

from model_compression.data import cifar10_content as content

RECORDS = 4


class TinyCifar10:
    """Random content, and writers of files that hold it."""

    def __init__(self) -> None:
        generator = np.random.Generator(np.random.PCG64(7))
        self.images = generator.integers(0, 256, (6 * RECORDS, 3, 32, 32), dtype=np.uint8)
        self.labels = generator.integers(0, 10, 6 * RECORDS, dtype=np.uint8)

    def batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        start = content.BATCHES.index(name) * RECORDS
        return self.images[start : start + RECORDS], self.labels[start : start + RECORDS]

    def records(self, name: str) -> bytes:
        """What the binary archive holds, written record by record."""
        images, labels = self.batch(name)
        return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))

    def pickled(self, name: str) -> bytes:
        """What the Python archive holds: a pickle as Python 2 wrote it, opcode by opcode."""
        images, labels = self.batch(name)
        return python2_batch(images.reshape(RECORDS, 3072), labels.tolist())

    def members(self, kind: str) -> dict[str, bytes]:
        """The members of one archive: "bin" or "py"."""
        if kind == "bin":
            found = {f"cifar-10-batches-bin/{name}.bin": self.records(name) for name in content.BATCHES}
            return found | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}
        found = {f"cifar-10-batches-py/{name}": self.pickled(name) for name in content.BATCHES}
        return found | {"cifar-10-batches-py/readme.html": b"<html>"}

    def folder(self, path: Path, kind: str) -> Path:
        """Writes an unpacked archive into ``path``."""
        path.mkdir(parents=True)
        for name, payload in self.members(kind).items():
            (path / Path(name).name).write_bytes(payload)
        return path

    def archive(self, path: Path, kind: str) -> Path:
        """Writes a compressed archive, members in another order than that of the batches."""
        return write_tar(path, dict(reversed(self.members(kind).items())))

    def npm_archive(self, path: Path) -> Path:
        """Writes the npm package."""
        members = {"package/package.json": b"{}"}
        for name in content.BATCHES:
            images, _ = self.batch(name)
            sheet = images.transpose(0, 2, 3, 1).reshape(RECORDS, 1024, 3)
            buffer = io.BytesIO()
            Image.fromarray(sheet).save(buffer, "PNG")
            members[f"package/{name}.png"] = buffer.getvalue()
        split = 5 * RECORDS
        members["package/train_lables.json"] = json.dumps(self.labels[:split].tolist()).encode()
        members["package/test_lables.json"] = json.dumps(self.labels[split:].tolist()).encode()
        return write_tar(path, members)


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


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """{'data': array, 'labels': list} in pickle protocol 2 with Python 2 strings, which Python 3 cannot write."""

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
    listed = pickle.EMPTY_LIST + pickle.MARK + b"".join(number(label) for label in labels) + pickle.APPENDS
    items = text(b"data") + array + text(b"labels") + listed
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyCifar10:
    """CIFAR-10 of four images a batch, with the built-in sizes and hashes set to match; the cache is in tmp_path."""
    made = TinyCifar10()
    split = 5 * RECORDS
    whole = b"".join(
        part.tobytes() for part in (made.images[:split], made.labels[:split], made.images[split:], made.labels[split:])
    )
    monkeypatch.setattr(content, "RECORDS_PER_BATCH", RECORDS)
    monkeypatch.setattr(content, "CONTENT_SHA256", hashlib.sha256(whole).hexdigest())
    hashes = {name: hashlib.sha256(made.records(name)).hexdigest() for name in content.BATCHES}
    monkeypatch.setattr(content, "BATCH_SHA256", hashes)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "user-cache" / name))
    monkeypatch.delenv("MODEL_COMPRESSION_DATA", raising=False)
    return made


@pytest.fixture
def tar_writer():
    """write_tar, for tests that put hostile members into archives."""
    return write_tar
