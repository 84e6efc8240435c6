"""What networks of every library have in common: a package that may be missing, and what its builders give."""

import difflib
import importlib
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from model_compression.core.errors import MissingExtraError, ModelCompressionError, UnknownNameError
from model_compression.models.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Built:
    """A network of a library.

    ``options`` build the same architecture again, without weights and without a network connection. ``preprocessing``
    is that of the weights it came with; None for fresh ones. ``size`` (H, W) is what the architecture insists on.
    ``facts`` are what its own files state of its answers, as names of classes.
    """

    module: nn.Module
    options: dict[str, Any]
    preprocessing: Preprocessing | None = None
    size: tuple[int, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def library(package: str, extra: str, project: str = "", prefix: str = "") -> Any:
    """The package. Raises MissingExtraError where there is none, ModelCompressionError where it does not start."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise MissingExtraError(project or package, extra, f"a network {prefix or extra}:NAME") from None
        raise ModelCompressionError(f"{package} cannot be imported: {error}; install it anew") from error
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision's, beside a torch of another build
        raise ModelCompressionError(
            f"{package} is installed and cannot be imported: {str(error).partition(chr(10))[0]}; "
            "torch and torchvision must be of one build (both for the CPU, or both for the same CUDA)"
        ) from error


def no_such(library: str, name: str, known: list[str], remedy: str) -> UnknownNameError:
    """The error for a name that a library does not know: near matches, and what lists all."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(other) for other in near)}? " if near else ""
    return UnknownNameError(f"unknown {library} model {name!r}; {hint}{remedy}")


def pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size that may be the side of a square."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
