"""Modules of a user's own, imported from the working folder or wherever Python finds packages."""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from model_compression.errors import UsageError

NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.\w+)*):(?P<attribute>[A-Za-z_]\w*)")
"""What something in such a module is called, as "package.module:attribute"."""


def import_own(module: str, name: str) -> ModuleType:
    """The module. Raises UsageError, with the ``name`` that asks for it, when it cannot be imported."""
    try:
        with working_folder_first():
            importlib.invalidate_caches()
            return importlib.import_module(module)
    except Exception as error:  # a user's module can raise anything while it is imported
        raise UsageError(
            f"cannot import {module!r} of {name!r}: {type(error).__name__}: {error}; it is looked for in the working "
            "folder and among the installed packages"
        ) from error


@contextmanager
def working_folder_first() -> Iterator[None]:
    """The working folder is where modules are looked for first, as for a script that lies there."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have taken it away
            sys.path.remove(folder)
