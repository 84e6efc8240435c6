"""Published data sets: from the store, from what people have, or fetched from the first source that answers."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_compression.core.errors import DataError, FileFormatError, MissingExtraError
from model_compression.core.files import user_path
from model_compression.data import published_store as store
from model_compression.data.cifar10_content import Arrays

ENVIRONMENT_VARIABLE = "MODEL_COMPRESSION_DATA"

Report = Callable[[str], None]
Fetch = Callable[[Path], Arrays]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published data set: what it is called, where it is fetched from, which forms people have, what proves it."""

    name: str
    command: str
    """Its name in commands, and of its files in the store."""
    sources: Callable[[], Mapping[str, Fetch]]
    """In the order in which they are tried."""
    expected: str
    """The forms that people have, for messages."""
    read_own: Callable[[Path], tuple[Arrays, Path] | None]
    looks_official: Callable[[Path], bool]
    refuse_foreign: Callable[[Path], None]
    shapes: Mapping[str, tuple[int, ...]]
    verify: Callable[[Arrays, str], None]
    """Raises DataError for content that is not the published one, with the name of where it came from."""


def tell(message: str) -> None:
    """One line on stderr: what is reported when the caller does not say where to."""
    print(message, file=sys.stderr, flush=True)


def default_folder() -> Path:
    """The cache folder of this package by the conventions of the platform."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("model-compression"))


def obtain(
    published: Published, data_dir: str | os.PathLike[str] | None, report: Report, allow_download: bool
) -> tuple[Arrays, str, Path]:
    """(content that is proven, where it was obtained, the path it was read from); see `load_cifar10`."""
    given = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    folder = default_folder() if given is None else user_path(given)
    path = folder / f"{published.command}.safetensors"
    own = None if given is None else _own_copy(published, folder, path)
    if own is not None:
        arrays, own_path = own
        published.verify(arrays, str(own_path))
        return arrays, f"own copy in {own_path.name}", own_path
    arrays, source = _read_or_fill(published, path, report, allow_download)
    return arrays, source, path


def _own_copy(published: Published, folder: Path, path: Path) -> tuple[Arrays, Path] | None:
    """What ``folder`` is, or None when that is a store or can become one; DataError when it is something else."""
    if not folder.exists():
        if published.looks_official(folder):
            raise DataError(f"there is no {folder}; give the path of what you have: {published.expected}")
        return None
    if path.is_file() or (folder / store.TAG_NAME).is_file():
        return None
    own = published.read_own(folder)
    if own is None:
        published.refuse_foreign(folder)
    return own


def _read_or_fill(published: Published, path: Path, report: Report, allow_download: bool) -> tuple[Arrays, str]:
    name = published.name
    try:
        return store.read_store(path, published.shapes, published.verify)
    except (FileNotFoundError, FileFormatError) as error:
        if not allow_download:
            state = "not there" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
            raise DataError(
                f"{name} in {path} is {state} and downloads are off; run 'model-compression data {published.command}' "
                "first"
            ) from error
    with store.locked(path, report):  # without the lock the file may just be on its way: it is looked at once more
        try:
            return store.read_store(path, published.shapes, published.verify)
        except FileNotFoundError:
            report(f"{name} is not in {path.parent} yet: fetching it")
        except FileFormatError as error:
            report(f"the stored {name} is damaged and is fetched again: {error}")
        workspace = path.with_suffix(".downloads")
        arrays, source = _fetch(published, workspace, report)
        store.write_store(path, arrays, source)
        shutil.rmtree(workspace, ignore_errors=True)
        return arrays, source


def _fetch(published: Published, workspace: Path, report: Report) -> tuple[Arrays, str]:
    """Tries the sources in order and returns the first content that is proven, with the name of its source."""
    reasons = []
    for name, fetch in published.sources().items():
        start = time.monotonic()
        try:
            arrays = fetch(workspace)
            published.verify(arrays, name)
        except (DataError, FileFormatError, MissingExtraError) as error:
            reasons.append(f"{name}: {error}")
            report(f"{name}: failed after {time.monotonic() - start:.1f} s: {error}")
        else:
            report(f"{name}: fetched and verified in {time.monotonic() - start:.1f} s")
            return arrays, name
    raise DataError(
        f"{published.name} cannot be fetched ({'; '.join(reasons)}); connect to the internet, "
        f"or give what you have by --data-dir or {ENVIRONMENT_VARIABLE}: {published.expected}"
    )
