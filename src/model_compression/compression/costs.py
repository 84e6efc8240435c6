"""What the stages of a compression cost: the rows of its table."""

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

from model_compression.compression.channels import cost_of, seen_shape
from model_compression.compression.measure import in_pytorch, of_file
from model_compression.core.errors import FileFormatError
from model_compression.core.metric import primary_metric
from model_compression.data.dataset import Dataset
from model_compression.exporting.verify import Verification, verify
from model_compression.exporting.write import export
from model_compression.models.base import Network
from model_compression.models.loading import read_model
from model_compression.models.weights import find_weights
from model_compression.reports.compression_stages import Stage as Row


def float_rows(name: str, run: Path, folder: Path, test: Dataset) -> list[Row]:
    """A network in PyTorch and, exported and verified, in ONNX Runtime."""
    weights = find_weights(str(run))
    network, path = read_model(weights), folder / f"{name}-float32.onnx"
    found = _exported(network, path, test)
    shape = test.image_shape
    common: dict[str, Any] = {
        "name": name,
        "parameters": cost_of(network, "params", shape),
        "macs": cost_of(network, "macs", shape),
        "result": found.value,
        "interval": found.interval,
    }
    timed = [(weights, in_pytorch(network, seen_shape(network, shape)).latency()), (path, of_file(path).latency())]
    return [
        Row(
            runtime=time.runtime, size_bytes=file.stat().st_size, median_ms=time.median_ms, p95_ms=time.p95_ms,
            disturbed=time.disturbed, **common,
        )
        for file, time in timed
    ]  # fmt: skip


def _exported(network: Network, path: Path, test: Dataset) -> Verification:
    """How ``path`` answers; a file that is damaged, or of another network, is written again."""
    if path.exists():
        with suppress(FileFormatError):
            found = verify(path, network, test)
            if found.fault() is None:
                return found
    return export(network, path, test)


def quantised_row(file: Path, report: dict[str, Any], before: Row) -> Row:
    """The file in fewer bits, as its ``report`` has it; ``before`` is the row of its network."""
    time = of_file(file).latency()
    return dataclasses.replace(
        before,
        name=report["precision"],
        size_bytes=report["bytes"],
        result=report[primary_metric(report).name],
        interval=report["interval"] and (report["interval"][0], report["interval"][1]),
        median_ms=time.median_ms,
        p95_ms=time.p95_ms,
        disturbed=time.disturbed,
    )
