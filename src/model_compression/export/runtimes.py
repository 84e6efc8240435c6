"""Exported files in their own runtimes. For ONNX files torch is not imported."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.errors import FileFormatError, MissingExtraError, NotThereError
from model_compression.export.metadata import KEY, Metadata, from_json

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """``run`` takes images (B, C, H, W), uint8 or float32 as ``metadata`` says, and answers with logits (B, K)."""

    runtime: str
    metadata: Metadata
    run: Callable[[Array], npt.NDArray[np.float32]]


def open_file(path: Path, threads: int = 0) -> ExportedFile:
    """The exported file at ``path``; ``threads`` that ONNX Runtime computes with, 0: as many as there are cores.

    Raises FileFormatError for a file that is missing, damaged or of other origin, and MissingExtraError.
    """
    if path.is_dir():
        raise FileFormatError(
            f"{path} is a folder; expected an exported file: model-compression export {path} --out {path.name}.onnx"
        )
    if not path.is_file():
        raise NotThereError(f"{path} does not exist; expected a file that `model-compression export` has written")
    openers = {".onnx": _open_onnx, ".pt2": _open_program}
    if path.suffix not in openers:
        raise FileFormatError(f"{path} is of no known kind; expected a file that ends in {' or '.join(openers)}")
    return openers[path.suffix](path, threads)


def _open_onnx(path: Path, threads: int) -> ExportedFile:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "running ONNX files") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        # From bytes: data in files beside it, which the file may name, is not read.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise FileFormatError(f"{path} is no ONNX file that ONNX Runtime can run: {_first_line(error)}") from None
    metadata = from_json(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
    _check_session(session, metadata, path)

    def run(images: Array) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
        return logits

    return ExportedFile(runtime="ONNX Runtime", metadata=metadata, run=run)


def _check_session(session: Any, metadata: Metadata, path: Path) -> None:
    """Raises FileFormatError unless the graph takes and gives what the file says of itself."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    kind = "tensor(uint8)" if metadata.preprocessing_inside else "tensor(float)"
    found = [(entry.type, tuple(entry.shape[1:])) for entry in (*inputs, *outputs)]
    expected = [(kind, metadata.image_shape), ("tensor(float)", (len(metadata.class_names),))]
    if found != expected:
        raise FileFormatError(
            f"{path} does not do what it says of itself: it takes and gives {found}, and says {expected}; export "
            "it anew"
        )


def _open_program(path: Path, threads: int) -> ExportedFile:
    import torch

    from model_compression.export.programs import read_program

    module, said = read_program(path)

    def run(images: Array) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits: npt.NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return logits

    return ExportedFile(runtime="torch.export", metadata=from_json(said or None, str(path)), run=run)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
