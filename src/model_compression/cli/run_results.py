"""Prints the result of a finished run."""

from pathlib import Path
from typing import Any

from model_compression.core.console import json_text
from model_compression.core.metric import Metric, primary_metric


def print_result(metrics: dict[str, Any], folder: Path, as_json: bool) -> int:
    """Prints a run's result; returns the exit code."""
    if as_json:
        print(json_text({"run": str(folder), **metrics}))
        return 0
    metric, kind = _metric(metrics)
    label = f"{kind} {metric.label}"
    print(f"{label:<15} {metric.text(metrics[metric.key(kind)])}   (last epoch, seed {metrics['seed']})")
    if "teacher_agreement" in metrics:
        teacher = metric.text(metrics[f"teacher_{metric.key(kind)}"])
        print(f"teacher         {teacher}   agreement {metrics['teacher_agreement']:.2%}")
    probe = f"{kind}_linear_probe"
    if probe in metrics:
        interval = metric.interval((metrics[f"{probe}_low"], metrics[f"{probe}_high"]))
        print(f"linear probe    {metric.text(metrics[probe])}   (95 % interval {interval})")
    for key, value in metrics.items():
        if key.startswith("peer_"):
            print(f"{' '.join(key.split('_')[:2]):<15} {metric.text(value)}")
    print(f"run folder      {folder}")
    return 0


def print_stages(metrics: dict[str, dict[str, Any]], folder: Path, as_json: bool) -> int:
    """Prints the result of each stage and all of the last one's; returns the exit code."""
    last = list(metrics)[-1]
    metric, kind = _metric(metrics[last])
    results = {stage: figures[metric.key(kind)] for stage, figures in metrics.items()}
    if as_json:
        print(json_text({"run": str(folder / last), **metrics[last], "stages": results}))
        return 0
    for stage, result in list(results.items())[:-1]:
        print(f"{stage:<15} {metric.text(result)}")
    return print_result(metrics[last], folder / last, as_json)


def _metric(metrics: dict[str, Any]) -> tuple[Metric, str]:
    """The primary metric of a run, and the name of the images that it is of."""
    metric = primary_metric(metrics)
    return metric, "validation" if metric.key("validation") in metrics else "test"
