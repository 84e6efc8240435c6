"""ONNX files: written by torch.onnx, answered by ONNX Runtime without torch."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from model_compression.core import trust
from model_compression.core.errors import FileFormatError, ModelCompressionError
from model_compression.core.extras import check_extra
from model_compression.core.options import setting
from model_compression.data.samples import Arrays
from model_compression.exporting.guest import Guest, described, first_line, session_of
from model_compression.exporting.metadata import KEY, Metadata, from_json
from model_compression.exporting.runtimes.base import RUNTIMES, ExportedFile, Runtime, dynamic_shapes

if TYPE_CHECKING:
    from torch import nn

    from model_compression.core.inputs import Inputs


@RUNTIMES.register("onnx")
class OnnxRuntime(Runtime):
    """A stranger's file runs in a process of its own, with limits."""

    suffix = ".onnx"

    def check(self) -> None:
        """Raises MissingExtraError."""
        check_extra("export", "writing ONNX files")

    def write(self, module: "nn.Module", example: "Inputs", path: Path, metadata: Metadata) -> None:
        """Raises ModelCompressionError for a network that torch cannot write."""
        import onnx
        import torch

        try:
            program: Any = torch.onnx.export(
                module,
                (example, {}),  # inputs by name would be taken for keywords if they came last
                dynamo=True,
                dynamic_shapes=dynamic_shapes(metadata),
                input_names=[entry.name for entry in metadata.entries],
                output_names=["logits"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = re.sub(r"<class '[\w.]+'>: ", "", str(error).rpartition("## Exception summary")[2].strip())
            raise ModelCompressionError(
                f"torch {torch.__version__} cannot write this network as ONNX: {reason.partition(chr(10))[0]:.200}; "
                f"use a newer torch, or {setting('to', 'torch-export')}"
            ) from error
        model = with_metadata(_without_traces(program.model_proto), metadata)
        onnx.checker.check_model(model)
        write_model(path, model)

    def open(self, path: Path, threads: int) -> ExportedFile:
        """Raises FileFormatError, and MissingExtraError."""
        check_extra("onnx", "running ONNX files")
        content = path.read_bytes()
        guest = None if trust.is_trusted(content) else Guest(path, threads)
        if guest is None:
            try:
                session = session_of(content, threads)
            except Exception as error:  # its exceptions have no common base
                reason = first_line(error)
                raise FileFormatError(f"{path} is no ONNX file that ONNX Runtime can run: {reason}") from None
        facts = described(session) if guest is None else guest.facts
        metadata = from_json(facts["texts"].get(KEY), str(path))
        _check_facts(facts, metadata, path)

        def run(inputs: Arrays) -> npt.NDArray[np.float32]:
            named = inputs if isinstance(inputs, dict) else {facts["entries"][0][0]: inputs}
            if guest is not None:
                return guest.run(named, metadata.answer_sizes(named))
            logits: npt.NDArray[np.float32] = session.run(None, named)[0]
            return logits

        return ExportedFile(runtime="ONNX Runtime", metadata=metadata, run=run, is_guest=guest is not None)


def write_model(path: Path, model: Any) -> None:
    """Writes an ONNX model that is run here: to prove it, or to measure."""
    content = model.SerializeToString()
    path.write_bytes(content)
    trust.seal_content(content, lasting=False)


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """``change`` takes the ONNX model of a file and returns what the file holds then."""
    import onnx

    model = change(onnx.load(path))
    onnx.checker.check_model(model)
    write_model(path, model)


def with_metadata(model: Any, metadata: Metadata) -> Any:
    """The ONNX ``model``, changed in place, with what the file says of itself."""
    import onnx

    del model.metadata_props[:]
    model.metadata_props.append(onnx.StringStringEntryProto(key=KEY, value=metadata.to_json()))
    return model


def _without_traces(model: Any) -> Any:
    """``model`` without the exporter's notes on which line of which file of this machine each node came from."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    return model


_KINDS = {"uint8": "tensor(uint8)", "int64": "tensor(int64)", "float32": "tensor(float)"}


def _are_alike(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether types and sizes are the same; for a size that varies a graph has a name of its own."""

    def plain(entries: Sequence[Any]) -> list[Any]:
        return [(kind, [size if isinstance(size, int) else None for size in shape]) for kind, shape in entries]

    return plain(found) == plain(expected)


def _check_facts(facts: dict[str, Any], metadata: Metadata, path: Path) -> None:
    """Raises FileFormatError unless the graph takes and gives what the file says of itself."""
    found = [(kind, tuple(shape[1:])) for _, kind, shape in facts["entries"]]
    expected = [(_KINDS[entry.dtype], entry.shape) for entry in metadata.entries]
    expected.append(("tensor(float)", metadata.answer_shape))
    named = [name for name, *_ in facts["entries"][:-1]] == [entry.name for entry in metadata.inputs]
    if not (_are_alike(found, expected) and (named or not metadata.inputs)):
        raise FileFormatError(
            f"{path} does not do what it says of itself: it takes and gives {found}, and says {expected}; export "
            "it anew"
        )
