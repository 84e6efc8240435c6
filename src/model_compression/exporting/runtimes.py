"""Exported files in their own runtimes. For ONNX files torch is not imported."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core import trust
from model_compression.core.errors import FileFormatError, MissingExtraError, NotThereError
from model_compression.exporting.guest import Guest, described, first_line, session_of
from model_compression.exporting.metadata import KEY, Metadata, from_json

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """``run`` takes images (B, C, H, W), uint8 or float32 as ``metadata`` says, and answers with logits (B, K)."""

    runtime: str
    metadata: Metadata
    run: Callable[[Array], npt.NDArray[np.float32]]
    is_guest: bool = False
    """Whether it runs in a process of its own, as a stranger's, which takes a little longer."""


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
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "running ONNX files") from None
    content = path.read_bytes()
    guest = None if trust.is_trusted(content) else Guest(path, threads)
    if guest is None:
        try:
            session = session_of(content, threads)
        except Exception as error:  # its exceptions have no common base
            raise FileFormatError(f"{path} is no ONNX file that ONNX Runtime can run: {first_line(error)}") from None
    facts = described(session) if guest is None else guest.facts
    metadata = from_json(facts["texts"].get(KEY), str(path))
    _check_facts(facts, metadata, path)

    def run(images: Array) -> npt.NDArray[np.float32]:
        if guest is not None:
            return guest.run(images, metadata.num_outputs)
        logits: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
        return logits

    return ExportedFile(runtime="ONNX Runtime", metadata=metadata, run=run, is_guest=guest is not None)


def _check_facts(facts: dict[str, Any], metadata: Metadata, path: Path) -> None:
    """Raises FileFormatError unless the graph takes and gives what the file says of itself."""
    kind = "tensor(uint8)" if metadata.preprocessing_inside else "tensor(float)"
    found = [(entry[0], tuple(entry[1][1:])) for entry in facts["entries"]]
    expected = [(kind, metadata.image_shape), ("tensor(float)", (metadata.num_outputs,))]
    if found != expected:
        raise FileFormatError(
            f"{path} does not do what it says of itself: it takes and gives {found}, and says {expected}; export "
            "it anew"
        )


def _open_program(path: Path, threads: int) -> ExportedFile:
    import torch

    from model_compression.exporting.programs import read_program

    module, said = read_program(path)

    def run(images: Array) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits: npt.NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
        return logits

    return ExportedFile(runtime="torch.export", metadata=from_json(said or None, str(path)), run=run)
