"""torch.export's files: PyTorch's own graphs, which run in Python and C++."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_compression.core import trust
from model_compression.core.errors import UntrustedCodeError
from model_compression.core.options import setting
from model_compression.data.samples import Arrays
from model_compression.exporting.metadata import Metadata, from_json
from model_compression.exporting.runtimes.base import RUNTIMES, ExportedFile, Runtime, dynamic_shapes

if TYPE_CHECKING:
    from torch import nn

    from model_compression.core.inputs import Inputs


@RUNTIMES.register("torch-export")
class TorchExport(Runtime):
    """Nothing in a file is executed but the graph's operators, see `programs`."""

    suffix = ".pt2"

    def check(self) -> None:
        """Raises ModelCompressionError for a torch before 2.9."""
        from model_compression.exporting.programs import check_programs

        check_programs()

    def write(self, module: "nn.Module", example: "Inputs", path: Path, metadata: Metadata) -> None:
        """Without traces of the machine that it is made on."""
        import torch

        from model_compression.exporting.programs import write_program

        program = torch.export.export(module, (example,), dynamic_shapes=dynamic_shapes(metadata))
        write_program(program, path, metadata.to_json())
        trust.seal_content(path.read_bytes(), lasting=False)  # it is run here, to prove it

    def open(self, path: Path, threads: int) -> ExportedFile:
        """``threads`` has no effect: PyTorch has a number of its own.

        Raises UntrustedCodeError for a file of a stranger: torch sets its graph no limit of memory and time.
        """
        if not trust.is_trusted(path.read_bytes()):
            raise UntrustedCodeError(
                f"{path} was not exported by you on this machine, and torch runs the graph of a .pt2 without limits of "
                f"memory or time; if you trust the file, add {setting('trust', True)}, or ask for an .onnx, which runs "
                "within limits"
            )
        import torch

        from model_compression.data.batches import to_tensors
        from model_compression.exporting.programs import read_program

        module, said = read_program(path)

        def run(inputs: Arrays) -> npt.NDArray[np.float32]:
            with torch.no_grad():
                logits: npt.NDArray[np.float32] = module(to_tensors(inputs)).numpy()
            return logits

        return ExportedFile(runtime="torch.export", metadata=from_json(said or None, str(path)), run=run)
