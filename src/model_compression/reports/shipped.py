"""What a folder with several stages ships: the file that a quantisation, a compression or a pruning ends in."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import read_json
from model_compression.core.manifest import check_manifest
from model_compression.core.metric import Metric, primary_metric
from model_compression.core.text import NO_BREAK
from model_compression.reports.compression_stages import read_compression
from model_compression.reports.run_files import QUANTISATION, QUANTISED, read_run

_PRUNING = "prune.json"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """``file`` with its primary metric on the test images, its 95 % interval (None without one) and its size.

    ``what`` it is and what ``note`` says of its cost are for readers. ``before`` names the run in the same folder that
    it was made of, as "distilled"; it is empty where that run is what ships. ``broken`` are the limits of the budget
    that it does not keep: then it does not ship.
    """

    file: Path
    what: str
    metric: Metric
    result: float
    interval: tuple[float, float] | None
    size_bytes: int
    note: str
    before: str
    broken: Sequence[str] = ()

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {**asdict(self), "file": str(self.file)}
        del values["metric"], values["before"]
        return {self.metric.name: values.pop("result"), **values}


def read_shipped(folder: Path) -> Shipped | None:
    """What ``folder`` ships; None for one of another kind or unfinished.

    Raises FileFormatError, naming the file, for a damaged or changed one.
    """
    if (folder / QUANTISED).is_file() and (folder / QUANTISATION).is_file():
        return _of_quantisation(folder)
    return _of_pruning(folder) if (folder / _PRUNING).is_file() else _of_compression(folder)


def _of_quantisation(folder: Path) -> Shipped:
    path = folder / QUANTISED
    try:
        is_sealed = check_manifest(folder)
        values = read_json(path)
        metric = primary_metric(values)
        file, before = folder / str(values["file"]), float(values[f"network_{metric.name}"])
        if not is_sealed and file.stat().st_size != values["bytes"]:
            raise ValueError(f"{file} has another size")
        result, interval = values[metric.name], values["interval"]
        if not all(map(metric.is_possible, (result, before, *(interval or ())))) or type(values["bytes"]) is not int:
            raise ValueError("a figure is missing")
        trained = " after fine-tuning with its rounding" if values["trained"] else ""
        points = metric.gain(result, before)
        return Shipped(
            file=file,
            what=f"{file.name}, {values['precision']}{trained}",
            metric=metric,
            result=float(result),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            size_bytes=values["bytes"],
            note=f"{metric.points(points)} against {metric.text(before, space=NO_BREAK)} of the network before",
            before="Fine-tuned, in PyTorch" if values["trained"] else "Before quantising",
        )
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise FileFormatError(f"{path} is not what `model-compression quantize` writes: {error}") from None


def _of_compression(folder: Path) -> Shipped | None:
    found = read_compression(folder)
    if found is None:
        return None
    first, last = found.stages[0], found.stages[-1]
    faster = f"{first.median_ms / last.median_ms:.2g} times as fast as {first.name} in {first.runtime}"
    if first.disturbed or last.disturbed:
        faster = "its latency was measured on a busy machine"
    return Shipped(
        file=folder / "student.onnx",
        what=f"the last stage, {last.name} in {last.runtime}",
        metric=found.metric,
        result=last.result,
        interval=last.interval,
        size_bytes=last.size_bytes,
        note=f"{last.name}, {found.metric.text(last.result, space=NO_BREAK)}, {faster}",
        before="Distilled",
        broken=found.broken,
    )


def _of_pruning(folder: Path) -> Shipped | None:
    if not (folder / "final" / "config.json").is_file():
        return None
    run = read_run(folder / "final")
    if run.result is None or run.student_bytes is None:
        return None
    found = None if run.section is None or run.predictions is None else run.section.examine(run.predictions)
    return Shipped(
        file=run.path / "student.safetensors",
        what="the network after the last cut",
        metric=run.metric,
        result=run.result,
        interval=found.interval if found is not None else None,
        size_bytes=run.student_bytes,
        note="",
        before="",
    )
