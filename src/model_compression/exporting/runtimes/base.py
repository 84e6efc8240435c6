"""What a runtime to export to does: it writes a network as a file, and opens such a file to answer with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from model_compression.core.registry import Registry
from model_compression.exporting.metadata import Metadata

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """``run`` takes images (B, C, H, W), uint8 or float32 as ``metadata`` says, and answers with logits (B, K)."""

    runtime: str
    metadata: Metadata
    run: Callable[[Array], npt.NDArray[np.float32]]
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
    def write(self, module: "nn.Module", example: "Tensor", path: Path, metadata: Metadata) -> None:
        """Writes ``module`` to ``path`` for batches of any size of images like ``example`` (2, C, H, W)."""

    @abstractmethod
    def open(self, path: Path, threads: int) -> ExportedFile:
        """The file, to compute with ``threads``, 0: as many as there are cores. Raises FileFormatError."""


RUNTIMES: Registry[type[Runtime]] = Registry(
    "export format",
    "model_compression.runtimes",
    accepts=lambda found: isinstance(found, type) and issubclass(found, Runtime),
    expected="a subclass of exporting.runtimes.Runtime",
)
