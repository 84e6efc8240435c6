"""What a trained network costs and keeps as files that ship: float32 and int8, in ONNX Runtime."""

import tempfile
from pathlib import Path
from typing import Any

import model_compression as mc

MAX_DROP = 100.0  # points: the loss by rounding is measured, and nothing is trained on


def measure_forms(model: str | Path) -> dict[str, Any]:
    """Parameters and multiply-accumulates of ``model``, a run or a shipped network; bytes, accuracy and latency of its
    files. The accuracy is that of the file on all test images of its data.
    """
    with tempfile.TemporaryDirectory() as scratch:
        float32 = mc.export(model, Path(scratch) / "float32.onnx", progress=True)
        int8 = mc.quantize(model, to="int8", max_drop=MAX_DROP, run_dir=Path(scratch) / "int8", progress=True)
        found = mc.measure(model, batch_size=1, seconds=0.5)
        assert found.size is not None
        return {
            "parameters": found.size.parameters,
            "macs": found.size.macs,
            "float32": _form(float32.path, float32.verification.value),
            "int8": _form(int8.file, int8.report["accuracy"]),
        }


def _form(file: Path, accuracy: float) -> dict[str, Any]:
    latency = mc.measure(file, batch_size=1).latencies[0]
    return {
        "bytes": file.stat().st_size,
        "accuracy": accuracy,
        "median_ms": latency.median_ms,
        "threads": latency.threads,
        "disturbed": latency.disturbed,
    }
