"""torch.export's files, `.pt2`. torch unpickles, evaluates and runs what stands in one: it is checked before.

Nothing is let in but what `write_program` writes: tensors as plain bytes, a graph of PyTorch's own operators, names,
and sizes that depend on the batch.
"""

import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export.pt2_archive import constants
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

from model_compression.core.errors import FileFormatError, ModelCompressionError
from model_compression.core.safe_pickle import check_torch_file
from model_compression.exporting.metadata import KEY

_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_RECORDS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/model_compression|archive_format|archive_version|"
    r"\.data/version|\.data/serialization_id|byteorder|"
    + "|".join(map(re.escape, (_GRAPH, _SAMPLES, *_CONFIGS)))
)  # fmt: skip
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+(\.\w+)?|torch\.sym_\w+|torch\.ops\.higher_order\.wrap_with_set_grad_enabled|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|ge|gt|le|lt|getitem)|math\.(ceil|floor|trunc|sqrt)"
)
_TEXT = re.compile(r"[\w.,+> -]*", re.ASCII)  # nothing that could be called
_SIZE = re.compile(
    r"((Mul|Add|Pow|Integer|Mod|FloorDiv|PythonMod|Max|Min)\(|Symbol\('s\d+', positive=True, integer=True\)|"
    r"-?\d+|[,) ])+"
)
_STRUCTURE = re.compile(
    r'([\[\]{}:, ]|"(type|context|children_spec|builtins\.(tuple|list|dict)|null|\[(\\"\w+\\"(, )?)*\])"|null|\d+)+'
)  # of what goes in and comes out
_KEPT = ("val", "tensor_meta")  # of what torch knows of a node; the rest names lines of code on this machine


def check_programs() -> None:
    """Raises ModelCompressionError where torch writes and reads these files with pickled weights, as before 2.9."""
    if not hasattr(constants, "WEIGHTS_CONFIG_FILENAME_FORMAT"):
        raise ModelCompressionError(
            f"torch-export files need torch 2.9 or newer, got torch {torch.__version__}; upgrade torch, or use ONNX"
        )


def write_program(program: torch.export.ExportedProgram, path: Path, metadata: str) -> None:
    """Writes ``program`` with ``metadata``, and without traces of the machine that it was made on."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta = {key: value for key, value in node.meta.items() if key in _KEPT}
    program._guards_code = []  # checks of sizes, in Python code: a wrong size fails in the operators as well
    content = io.BytesIO()  # in a file the archive would bear its name
    torch.export.save(program, content, extra_files={KEY: metadata})
    path.write_bytes(content.getvalue())


def read_program(path: Path) -> tuple[torch.nn.Module, str | None]:
    """The module in a file, and its metadata.

    Raises FileFormatError for a file that is damaged, of other origin, or holds what could be executed.
    """
    check_programs()
    content = path.read_bytes()  # once: what is checked is what is loaded
    try:
        check_torch_file(content, path)
        _check(PT2ArchiveReader(io.BytesIO(content)))
        found = load_pt2(io.BytesIO(content))
        return found.exported_programs["model"].module(), found.extra_files.get(KEY)
    except Exception as error:  # of zip, JSON or torch, as the damage has it
        reason = re.split(r"\. |\n", str(error))[0][:200]
        raise FileFormatError(
            f"{path} is no torch.export file that can be read: {reason}; expected one that `model-compression export "
            "--to torch-export` of this version has written"
        ) from None


class _ForeignError(ValueError):
    """Something stands in the file that `write_program` does not write."""


def _check(archive: PT2ArchiveReader) -> None:
    """Raises unless all that torch reads of ``archive`` is data."""
    for name in archive.get_file_names():
        if not _RECORDS.fullmatch(name):
            raise _ForeignError(f"it holds {name!r:.80}")
    for name in _CONFIGS:
        for entry in json.loads(archive.read_string(name))["config"].values():
            if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                raise _ForeignError("a tensor in it is a pickled object")
    try:
        torch.load(io.BytesIO(archive.read_bytes(_SAMPLES)), weights_only=True)  # torch goes on with weights_only=False
    except pickle.UnpicklingError:
        raise _ForeignError("its example input is a pickled object") from None
    graph = json.loads(archive.read_string(_GRAPH))
    if graph["guards_code"]:
        raise _ForeignError("it holds Python code")
    for key, text in _texts(graph):
        allowed = [_OPERATOR] if key in ("target", "as_operator") else [_TEXT, _SIZE, _STRUCTURE]
        if not any(pattern.fullmatch(text) for pattern in allowed):
            raise _ForeignError(f"its graph has {key or 'the name'} {text!r:.80}")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All text in what a JSON file holds, with the key that it stands under; keys themselves without one."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield "", name
            yield from _texts(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, key)
    elif isinstance(value, str):
        yield key, value
