"""Modules of a user's own, imported from the working folder or wherever Python finds packages."""

import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from model_compression.core import trust
from model_compression.core.errors import UsageError


def import_own(module: str, name: str) -> ModuleType:
    """The module. Raises UsageError, with the ``name`` that asks for it, when it cannot be imported.

    Raises UntrustedCodeError, before anything is imported, for a name that is not to be followed, see `trust`.
    """
    trust.check(name)
    if "__main__" in module.split(".") and module != "__main__":
        raise UsageError(f"{name!r} names a program, which would run when it is imported; name a module of networks")
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


def is_installed(path: Path) -> bool:
    """Whether a file of code is Python's own or an installed package's."""
    path = path.resolve()
    standard = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")]
    in_packages = bool({"site-packages", "dist-packages"} & set(path.parts))
    return in_packages or any(path.is_relative_to(folder) for folder in standard)


def digests_of_own_code(objects: Iterable[object]) -> dict[str, str]:
    """By name of module the SHA-256 of the file that the class of an object is written in, where that is a user's.

    A script, whose last lines change from call to call, is left out.
    """
    digests = {}
    for name in {type(one).__module__ for one in objects} - {"__main__"}:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name.partition(".")[0] == "model_compression" or is_installed(Path(file)):
            continue
        with suppress(OSError):
            digests[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return dict(sorted(digests.items()))
