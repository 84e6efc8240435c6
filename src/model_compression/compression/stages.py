"""Folders of several stages in turn: what each came to stays, and what was interrupted goes on where it stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from model_compression.core import trust
from model_compression.core.config import from_dict, to_dict
from model_compression.core.errors import Interrupted, RunFolderError
from model_compression.core.files import plain_json, read_json, writing_failed
from model_compression.engine.relative_paths import record_origin

C = TypeVar("C")


def check_new(folder: Path) -> None:
    """Raises RunFolderError, with the remedy, unless ``folder`` is none yet, or empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if folder.is_dir() and any((folder / name).exists() for name in ("prune.json", "quantize.json", "compress.json")):
        remedy = f"continue it with: model-compression resume {folder}"
        raise RunFolderError(f"{folder} is begun already: {remedy}, or choose another folder with --out")
    raise RunFolderError(f"{folder} exists and is not an empty folder; choose another with --out")


def begin(folder: Path, name: str, config: Any) -> None:
    """Makes ``folder`` and writes ``config`` into it as ``name``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
    values = to_dict(config)
    record_origin(folder)
    trust.write_sealed(folder / name, values, plain_json(values))


def read(kind: type[C], path: Path) -> C:
    """The configuration that `begin` wrote. Raises FileFormatError when it cannot be read."""
    values = read_json(path)
    trust.read(values, path, path)
    return from_dict(kind, values, str(path))


@contextmanager
def stage(name: str, folder: Path) -> Iterator[None]:
    """An interruption inside says that ``folder``, which holds all stages, is what is to be resumed."""
    try:
        yield
    except Interrupted as stop:
        reason = str(stop).partition("; continue with")[0]
        raise Interrupted(
            f"{name}: {reason}; continue with: model-compression resume {folder}", stop.exit_code
        ) from None
