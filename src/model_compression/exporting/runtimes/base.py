"""What a runtime to export to does: it writes a network as a file, and opens such a file to answer with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_compression.core.registry import Registry
from model_compression.data.samples import UNNAMED, Arrays
from model_compression.exporting.metadata import Metadata

if TYPE_CHECKING:
    from torch import nn

    from model_compression.core.inputs import Inputs

Array = npt.NDArray[Any]


def dynamic_shapes(metadata: Metadata) -> Any:
    """The sizes that vary in what a file takes, as torch.export wants them for a module with one argument."""
    import torch

    dims: dict[str, Any] = {"batch": torch.export.Dim("batch")}

    def of(shape: tuple[int | str, ...]) -> dict[int, Any]:
        named = {place: size for place, size in enumerate(("batch", *shape)) if isinstance(size, str)}
        return {place: dims.setdefault(size, torch.export.Dim(size)) for place, size in named.items()}

    if not metadata.inputs or metadata.image_shape or [one.name for one in metadata.inputs] == [UNNAMED]:
        return (of(metadata.entries[0].shape),)
    return ({one.name: of(one.shape) for one in metadata.inputs},)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """``run`` takes what ``metadata.entries`` say, an array or arrays by name, and answers with logits (B, …)."""

    runtime: str
    metadata: Metadata
    run: Callable[[Arrays], npt.NDArray[np.float32]]
    is_guest: bool = False
    """Whether it runs in a process of its own, as a stranger's, which takes a little longer."""


class Runtime(ABC):
    """A runtime to export to. torch is imported by `write` only, where the runtime itself does without."""

    suffix: ClassVar[str]
    """Of its files, as ".onnx"."""

    @abstractmethod
    def check(self) -> None:
        """Raises MissingExtraError, or ModelCompressionError, where its files cannot be written."""

    @abstractmethod
    def write(self, module: "nn.Module", example: "Inputs", path: Path, metadata: Metadata) -> None:
        """Writes ``module`` to ``path`` for batches of any size of samples like ``example`` (2, …).

        `dynamic_shapes` says which sizes vary.
        """

    @abstractmethod
    def open(self, path: Path, threads: int) -> ExportedFile:
        """The file, to compute with ``threads``, 0: as many as there are cores. Raises FileFormatError."""


RUNTIMES: Registry[type[Runtime]] = Registry(
    "export format",
    "model_compression.runtimes",
    accepts=lambda found: isinstance(found, type) and issubclass(found, Runtime),
    expected="a subclass of exporting.runtimes.Runtime",
)
