"""Runs what a command asks for, watched by a person, and prints the result."""

from contextlib import chdir
from pathlib import Path

from model_compression.cli.run_results import print_result, print_stages
from model_compression.core.config import TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.engine import runs
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.relative_paths import origin
from model_compression.experiments import schemes
from model_compression.experiments.recipes import RECIPES


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
