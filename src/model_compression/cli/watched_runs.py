"""Runs what a command asks for, watched by a person, and prints the result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_compression.cli.compression_reports import print_compressed, print_pruned, print_quantized
from model_compression.cli.run_results import print_result, print_stages
from model_compression.compression.pipeline import Compression
from model_compression.compression.prune import Pruning
from model_compression.compression.quantize import Quantisation
from model_compression.core.config import TrainConfig
from model_compression.core.files import user_path
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.training import Training
from model_compression.experiments.recipes import RECIPES
from model_compression.experiments.resume import resume, stage_kind
from model_compression.experiments.schemes import Scheme


def run_and_report(
    config: TrainConfig, folder: Path, note: str = "", *, as_json: bool, recipe: str | None = None
) -> int:
    """Trains into ``folder`` and prints the result; returns the exit code."""
    with ConsoleObserver(note) as observer:
        if recipe:
            observer.message(_expected(recipe, config))
        metrics = Training(config, folder, observer).start()
    return print_result(metrics, folder, as_json)


def _expected(name: str, config: TrainConfig) -> str:
    recipe = RECIPES.create(name)
    if config == recipe.config:
        return f"recipe {name} is to give: {recipe.expect}"
    return f"recipe {name} gives {recipe.expect} as it stands; options change it here"


def resume_and_report(folder: str, *, as_json: bool, lr: float | None = None) -> int:
    """Resumes the run or the stage in ``folder`` and prints the result; returns the exit code."""
    with ConsoleObserver() as observer:
        result = resume(folder, observer, lr=lr)
    printers: dict[Any, Callable[[Any, Path, bool], int]] = {
        Pruning: print_pruned,
        Quantisation: print_quantized,
        Compression: print_compressed,
        Scheme: print_stages,
        Training: print_result,
    }
    return printers[stage_kind(folder)](result, user_path(folder), as_json)
