"""Runtimes to export to, one a file. A file in this folder is found by itself. For ONNX files torch is not imported."""

import importlib
import pkgutil
from pathlib import Path

from model_compression.core.errors import FileFormatError, NotThereError
from model_compression.exporting.runtimes.base import RUNTIMES, Array, ExportedFile, Runtime

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)


def names_by_suffix() -> dict[str, str]:
    """The names of all runtimes by the ending of their files."""
    return {RUNTIMES.get(name).suffix: name for name in RUNTIMES}


def open_file(path: Path, threads: int = 0) -> ExportedFile:
    """The exported file at ``path``, in its own runtime; ``threads`` 0: as many as there are cores.

    Raises FileFormatError for a file that is missing, damaged or of other origin, and MissingExtraError.
    """
    if path.is_dir():
        raise FileFormatError(
            f"{path} is a folder; expected an exported file: model-compression export {path} --out {path.name}.onnx"
        )
    if not path.is_file():
        raise NotThereError(f"{path} does not exist; expected a file that `model-compression export` has written")
    names = names_by_suffix()
    if path.suffix not in names:
        raise FileFormatError(f"{path} is of no known kind; expected a file that ends in {' or '.join(names)}")
    file: ExportedFile = RUNTIMES.create(names[path.suffix]).open(path, threads)
    return file


__all__ = ["RUNTIMES", "Array", "ExportedFile", "Runtime", "names_by_suffix", "open_file"]
