"""What is printed of networks that were made smaller."""

import textwrap
from pathlib import Path
from typing import Any

from model_compression.core.console import json_text, table
from model_compression.core.metric import Metric, primary_metric


def print_compressed(result: dict[str, Any], folder: Path, as_json: bool) -> int:
    """Prints what every stage came to; returns the exit code."""
    if as_json:
        print(json_text({"out": str(folder / "student.onnx"), **result}))
        return 0
    from model_compression.core.text import count
    from model_compression.reports.compression_stages import DISTURBED, NOTE

    metric = primary_metric(result)
    of_teacher = result[f"teacher_{metric.name}"]
    if of_teacher is not None:
        threads = count(result["threads"], "thread")
        print(f"teacher {metric.text(of_teacher)}, latency of one image with {threads}")
    rows = [
        (
            f"{stage['name']}, {stage['runtime']}{DISTURBED if stage['disturbed'] else ''}",
            f"{stage['size_bytes']:,}",
            f"{stage['parameters']:,}",
            metric.text(stage[metric.name]),
            f"{stage['median_ms']:.3f} ms",
            f"{stage['p95_ms']:.3f} ms",
        )
        for stage in result["stages"]
    ]
    print(table(rows, ("stage", "bytes", "parameters", metric.label, "median", "95 %")))
    if any(stage["disturbed"] for stage in result["stages"]):
        print(NOTE)
    print("\n".join(str(folder / name) for name in ("student.onnx", "table.md", "stages.png")))
    print(textwrap.fill(_kept_budget(result["budget"], result["stages"][-1], metric), 80, subsequent_indent="  "))
    return 0


def _kept_budget(budget: dict[str, Any], shipped: dict[str, Any], metric: Metric) -> str:
    """That the file that ships keeps what was asked for: one that does not is an error."""
    kept = {
        "max_bytes": f"{shipped['size_bytes']:,} of {budget['max_bytes']:,} bytes",
        "max_latency_ms": f"{shipped['median_ms']:.3f} of {budget['max_latency_ms']:g} ms",
        "min_accuracy": f"{metric.label} {metric.text(shipped[metric.name])} of {metric.bound_word} "
        f"{metric.text(budget['min_accuracy'])}",
    }
    asked = [text for name, text in kept.items() if budget[name]]
    return f"the budget is kept: {', '.join(asked)}" if asked else "no budget was given: the student was not pruned"


def print_quantized(report: dict[str, Any], folder: Path, as_json: bool) -> int:
    """Prints what the file is like; returns the exit code."""
    path = folder / report["file"]
    if as_json:
        print(json_text({"out": str(path), **report}))
        return 0
    metric = primary_metric(report)
    interval = f"   (95 % interval {metric.interval(report['interval'])})" if report["interval"] else ""
    how = ", ".join([report["precision"], *(["trained with its roundings"] if report["trained"] else [])])
    print(f"{path}   {report['bytes']:,} bytes, {how}")
    print(f"{f'test {metric.label}':<18}  {metric.text(report[metric.name])}{interval}")
    turn = "loses" if report["drop"] >= 0 else "gains"
    print(
        f"network before      {metric.text(report[f'network_{metric.name}'])}   (in float32; the file {turn} "
        f"{abs(report['drop']):.2f} {metric.gain_unit})"
    )
    print(f"agreement           {report['agreement']:.2%} with the network")
    return 0


def print_pruned(metrics: dict[str, dict[str, Any]], folder: Path, as_json: bool) -> int:
    """Prints what each step came to, below what it began with; returns the exit code."""
    last, stages = metrics["final"], {"before": _before_pruning(folder), **metrics}
    metric = primary_metric(last)
    key = next(key for key in map(metric.key, ("validation", "test")) if key in last)
    if as_json:
        print(json_text({"run": str(folder / "final"), **last, "stages": stages}))
        return 0
    rows = [
        (
            stage,
            f"{found['share']:.1%}",
            f"{found['parameters']:,}",
            f"{found['density']:.1%}",
            metric.text(found[key]) if key in found else "not stated",
        )
        for stage, found in stages.items()
    ]
    print(table(rows, ("step", "left", "parameters", "not zero", f"{key.partition('_')[0]} {metric.label}")))
    if last["density"] < 1:
        print(zeros_bring(folder / "final" / "student.safetensors"))
    print(f"run folder {folder / 'final'}")
    return 0


def _before_pruning(folder: Path) -> dict[str, Any]:
    """What a pruning in ``folder`` began with, as its file states it; without figures of other data."""
    from model_compression.compression.prune import Pruning
    from model_compression.compression.repair import states_figures_of
    from model_compression.core.config_json import locate
    from model_compression.engine.relative_paths import anchor
    from model_compression.models.loading import read_model
    from model_compression.models.sparse import density_of
    from model_compression.models.weights import find_weights

    config = Pruning.at(folder).config
    model = locate(config.model, folder)
    network = read_model(find_weights(model))
    count = sum(parameter.numel() for parameter in network.parameters())
    figures = {name: value for name, value in network.facts.items() if name not in ("class_names", "image_shape")}
    if not states_figures_of(model, anchor(config.run, folder).data) or _have_other_data(model, folder):
        figures = {}
    return {**figures, "share": 1.0, "parameters": count, "density": density_of(network)}


def _have_other_data(model: str, folder: Path) -> bool:
    """Whether the test data changed between the run ``model`` and the last of the pruning in ``folder``."""
    from model_compression.core.files import read_json
    from model_compression.engine.run_folder import RunFolder
    from model_compression.models.weights import find_weights

    places = [RunFolder(run).environment for run in (find_weights(model).parent, folder / "final")]
    digests = {read_json(place).get("test_data_sha256") for place in places if place.is_file()} - {None}
    return len(digests) > 1


def zeros_bring(weights: Path) -> str:
    """What weights that are zero bring, and what they do not, as measured on their file."""
    import zlib

    content = weights.read_bytes()
    return (
        f"The file keeps its {len(content):,} bytes, and neither PyTorch nor ONNX Runtime computes faster for zeros; "
        f"zipped it takes {len(zlib.compress(content, 9)):,}."
    )
