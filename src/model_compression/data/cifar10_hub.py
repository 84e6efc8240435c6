"""CIFAR-10 from the Hugging Face hub: PNG images in two parquet files."""

import hashlib
import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from model_compression.core.errors import DataError, FileFormatError, MissingExtraError
from model_compression.data import cifar10_content as content
from model_compression.data.download import require_reachable

REPOSITORY = "uoft-cs/cifar10"
TRAIN_FILE, TEST_FILE = "plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"
TIMEOUT_S = 5.0
ROWS_AT_ONCE = 1000
MAX_PNG_BYTES = 16_384


def fetch_hub(workspace: Path) -> content.Arrays:
    """Downloads both files into ``workspace`` and reads them.

    Raises MissingExtraError without the packages of the extra 'hub', DataError when the hub is not reached.
    """
    train, test = fetch_files(REPOSITORY, (TRAIN_FILE, TEST_FILE), workspace)
    return read_parquet(train, test)


def fetch_files(repository: str, names: Sequence[str], workspace: Path) -> list[Path]:
    """Downloads files of a data set's repository; raises as `fetch_hub` does."""
    try:
        import pyarrow.parquet  # noqa: F401  # needed below: found missing before anything is downloaded
        from huggingface_hub import constants, hf_hub_download
    except ImportError as error:
        raise MissingExtraError(error.name or "huggingface_hub", "hub", "this source") from error
    require_reachable(constants.ENDPOINT)
    paths = []
    for name in names:
        try:
            paths.append(
                hf_hub_download(
                    repository, name, repo_type="dataset", local_dir=workspace / "hub", etag_timeout=TIMEOUT_S
                )
            )
        except Exception as error:  # the client raises its own errors and those of two HTTP libraries
            lines = str(error).splitlines() or [type(error).__name__]
            raise DataError(f"the hub is not reached: {lines[0][:200]}") from error
    return [Path(path) for path in paths]


def read_parquet(train: Path, test: Path) -> content.Arrays:
    """Reads the hub's files, columns img.bytes (PNG) and label, into official order. Raises FileFormatError.

    The hub may list the training batches in another order (that of the members of the Python archive), so each block
    of 10,000 is put where its hash says it belongs.
    """

    def batches() -> Iterator[tuple[str, content.Batch]]:
        for path, count in ((train, len(content.TRAIN_BATCHES)), (test, 1)):
            images, labels = read_rows(path, count * content.RECORDS_PER_BATCH, ["label"])
            for start in range(0, len(images), content.RECORDS_PER_BATCH):
                block = slice(start, start + content.RECORDS_PER_BATCH)
                batch = content.batch_of(images[block], labels[block, 0], path.name)
                yield _official_name(batch, f"{path.name}, rows from {start}"), batch

    return content.assemble(batches(), f"{train.name} and {test.name}")


def _official_name(batch: content.Batch, source: str) -> str:
    found = hashlib.sha256(content.records_from_batch(batch)).hexdigest()
    for name, expected in content.BATCH_SHA256.items():
        if found == expected:
            return name
    raise FileFormatError(f"{source}: no batch of CIFAR-10 has SHA-256 {found}; the hub's copy differs")


def read_rows(path: Path, num_rows: int, label_columns: Sequence[str]) -> tuple[content.Bytes, content.Bytes]:
    """Images (N, 3, 32, 32) of the column img.bytes and labels (N, columns) of a hub's file. Raises FileFormatError."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    images = np.empty((num_rows, content.CHANNELS, content.SIDE, content.SIDE), dtype=np.uint8)
    labels = np.empty((num_rows, len(label_columns)), dtype=np.uint8)
    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows != num_rows:
                raise FileFormatError(f"{path} has {file.metadata.num_rows} rows; expected {num_rows}")
            row = 0
            for table in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=["img", *label_columns]):
                end = row + len(table)
                for place, column in enumerate(label_columns):
                    labels[row:end, place] = table[column].to_pylist()
                for number, image in enumerate(table["img"].to_pylist(), start=row):
                    images[number] = _pixels(image["bytes"], f"{path}, row {number}")
                row = end
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, OverflowError, SyntaxError) as error:
        raise FileFormatError(f"{path} is not the hub's file: {error}; fetch it again") from error
    return images, labels


def _pixels(png: bytes, source: str) -> content.Bytes:
    """A PNG of 32 × 32 pixels → (3, 32, 32)."""
    from PIL import Image

    expected = (content.SIDE, content.SIDE)
    if not 24 <= len(png) <= MAX_PNG_BYTES or struct.unpack(">II", png[16:24]) != expected:
        raise FileFormatError(f"{source} is no PNG of 32 × 32 pixels")
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if image.mode != "RGB":
            raise FileFormatError(f"{source} has colour mode {image.mode}; expected RGB")
        return np.asarray(image).transpose(2, 0, 1)  # (H, W, C) → (C, H, W)
