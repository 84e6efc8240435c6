"""What is printed of a run that is done."""

from pathlib import Path
from typing import Any

from model_compression.core.console import json_text


def print_result(metrics: dict[str, Any], folder: Path, as_json: bool) -> int:
    """Prints a run's result; returns the exit code."""
    if as_json:
        print(json_text({"run": str(folder), **metrics}))
        return 0
    name = "validation" if "validation_accuracy" in metrics else "test"
    print(f"{name} accuracy   {metrics[f'{name}_accuracy']:.2%}   (last epoch, seed {metrics['seed']})")
    if "teacher_agreement" in metrics:
        print(
            f"teacher         {metrics[f'teacher_{name}_accuracy']:.2%}   agreement {metrics['teacher_agreement']:.2%}"
        )
    for key, value in metrics.items():
        if key.startswith("peer_"):
            print(f"{' '.join(key.split('_')[:2]):<15} {value:.2%}")
    print(f"run folder      {folder}")
    return 0


def print_stages(metrics: dict[str, dict[str, Any]], folder: Path, as_json: bool) -> int:
    """Prints each stage's accuracy and the last one's result; returns the exit code."""
    last = list(metrics)[-1]
    name = "validation" if "validation_accuracy" in metrics[last] else "test"
    accuracies = {stage: figures[f"{name}_accuracy"] for stage, figures in metrics.items()}
    if as_json:
        print(json_text({"run": str(folder / last), **metrics[last], "stages": accuracies}))
        return 0
    for stage, accuracy in list(accuracies.items())[:-1]:
        print(f"{stage:<15} {accuracy:.2%}")
    return print_result(metrics[last], folder / last, as_json)
