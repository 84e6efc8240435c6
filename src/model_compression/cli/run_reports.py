"""Runs what a command asks for, watched by a person, and prints the result."""

import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

from model_compression.cli.schemes import print_stages
from model_compression.config import TrainConfig
from model_compression.console import json_text
from model_compression.errors import UsageError
from model_compression.files import user_path
from model_compression.recipes import RECIPES
from model_compression.train import runs, schemes
from model_compression.train.console_observer import ConsoleObserver
from model_compression.train.relative_paths import origin


def run_and_report(
    config: TrainConfig, folder: Path, note: str = "", *, as_json: bool, recipe: str | None = None
) -> int:
    """Trains into ``folder`` and prints the result; returns the exit code."""
    with ConsoleObserver(note) as observer:
        if recipe:
            observer.message(_expected(recipe, config))
        metrics = runs.start_run(config, folder, observer)
    return print_result(metrics, folder, as_json)


def _expected(name: str, config: TrainConfig) -> str:
    recipe = RECIPES.create(name)
    if config == recipe.config:
        return f"recipe {name} is to give: {recipe.expect}"
    return f"recipe {name} gives {recipe.expect} as it stands; options change it here"


def resume_and_report(folder: str, *, as_json: bool, lr: float | None = None) -> int:
    """Continues the run, or what has several runs, in ``folder`` and prints the result; returns the exit code."""
    from model_compression.cli.compression_reports import is_compression, resume_compression

    if lr is not None and (is_compression(user_path(folder)) or schemes.is_scheme(folder)):
        raise UsageError("--lr is for one run: give the folder of the stage that stopped, then resume the whole")
    with ConsoleObserver() as observer:
        path = user_path(folder)
        if is_compression(path) or schemes.is_scheme(path):
            began = origin(path) or Path.cwd()
            path = path if began == Path.cwd() else path.resolve()
            with chdir(began):  # where the relative paths of all its stages are
                if is_compression(path):
                    return resume_compression(path, observer, as_json)
                return print_stages(schemes.resume_scheme(path, observer), path, as_json)
        metrics = runs.resume_run(folder, observer, lr=lr)
    return print_result(metrics, user_path(folder), as_json)


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
    print(f"run folder      {folder}", file=sys.stdout)
    return 0
