"""Networks that a user's own code builds, named "module.path:attribute"."""

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from model_compression.core import trust
from model_compression.core.errors import FileFormatError, UsageError
from model_compression.core.registry import call_with_options, unknown_name
from model_compression.core.trust import NAME
from model_compression.core.user_code import import_own, is_installed, working_folder_first
from model_compression.models.copies import copy_of


def build_own(name: str, options: Mapping[str, Any]) -> nn.Module:
    """What the builder ``name`` returns when it is called with ``options``; a module stands for itself.

    Raises what `find_builder` raises, and UsageError for what does not take the options or returns something else.
    """
    with working_folder_first():
        builder = find_builder(name)
        if isinstance(builder, nn.Module):
            if options:
                raise UsageError(f"{name} is a network and no builder, so it takes no options; got {sorted(options)}")
            return copy_of(builder)
        module = call_with_options(f"builder {name!r}", builder, options)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{name} returned a {type(module).__name__}; expected a torch.nn.Module")
    return module


def find_builder(name: str) -> Callable[..., Any]:
    """The callable that ``name`` means, imported from the working folder or wherever Python finds packages.

    A name of a stranger's file that the user trusts must be a class of networks, or a function outside the installed
    packages, whose functions do anything (FileFormatError otherwise). Raises UntrustedCodeError for one that is not
    trusted, and UsageError for what is not there, cannot be called or is Python's own.
    """
    parts = NAME.fullmatch(name)
    assert parts is not None
    if parts["module"].endswith(".py"):
        raise UsageError(f"{name} is to be written as {parts['module'].removesuffix('.py')}:{parts['attribute']}")
    is_users = trust.check(name)
    module = import_own(parts["module"], name)
    found = getattr(module, parts["attribute"], None)
    if found is None:
        raise unknown_name(f"attribute of {parts['module']}:", parts["attribute"], _callables(module))
    if not callable(found):
        raise UsageError(f"{name} is a {type(found).__name__}; expected a function or class that gives a network")
    if _is_pythons(found):
        raise UsageError(f"{name} is a part of Python's own library; expected a function or class that gives a network")
    if not is_users and not _is_harmless(found):
        raise FileFormatError(
            f"{name} is a function of an installed package, which is not called because a file says so; name the "
            "network yourself, with the file as its weights"
        )
    builder: Callable[..., Any] = found
    return builder


def takes_num_classes(builder: Callable[..., Any]) -> bool:
    """Whether a builder has the option ``num_classes``."""
    try:
        return not isinstance(builder, nn.Module) and "num_classes" in inspect.signature(builder).parameters
    except ValueError:  # some of C have no signature
        return False


def _is_pythons(builder: Any) -> bool:
    """Whether it is a function or class of the standard library, as os.system."""
    module = getattr(builder, "__module__", None) if inspect.isroutine(builder) or inspect.isclass(builder) else None
    if not isinstance(module, str) or module.partition(".")[0] not in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)  # a user's module may have the name of one of Python's
    return file is None or is_installed(Path(file))


def _is_harmless(builder: Any) -> bool:
    if isinstance(builder, nn.Module) or (isinstance(builder, type) and issubclass(builder, nn.Module)):
        return True
    if not inspect.isfunction(builder):
        return False
    return not is_installed(Path(builder.__code__.co_filename))


def _callables(module: Any) -> list[str]:
    """What a module defines itself and could be meant."""
    return [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
