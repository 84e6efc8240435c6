"""The optional packages, by the extra that installs them: what is missing is said before any work is done."""

import importlib.util

from model_compression.core.errors import MissingExtraError

_WRITES_ONNX = {"onnx": "onnx", "onnxscript": "onnxscript"}  # torch.onnx writes with the latter
_PACKAGES = {  # extra → module → package
    "onnx": {"onnxruntime": "onnxruntime"},
    "export": _WRITES_ONNX,
    "quantize": {**_WRITES_ONNX, "onnxruntime": "onnxruntime"},
    "embed": {"pyarrow": "pyarrow"},
    "search": {"optuna": "optuna"},
    "ray": {"ray": "ray"},
    "prune": {"torch_pruning": "torch-pruning"},
}


def check_extra(extra: str, purpose: str) -> None:
    """Raises MissingExtraError, which names ``purpose``, unless the packages of ``extra`` are there; imports none."""
    for module, package in _PACKAGES[extra].items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, extra, purpose)
