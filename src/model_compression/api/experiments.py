"""`compare_methods`, `reproduce` and `report`: runs that belong together, and pages on them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.api.argument_texts import described
from model_compression.api.inputs import give_names, run_config, watched
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, default_method, usual_methods
from model_compression.core.console import json_text
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path, write_text
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.core.text import count
from model_compression.data.sources import stated_task
from model_compression.engine.fitting import sized_run
from model_compression.engine.observer import Observer
from model_compression.experiments import reproduce as experiments
from model_compression.experiments.comparison import check_seeds, make_runs, plan_comparison
from model_compression.experiments.executor import Executor
from model_compression.reports.contents import Report, make_report, to_plain
from model_compression.reports.experiment_table import LAYOUTS
from model_compression.reports.html import to_html
from model_compression.reports.markdown import to_markdown

FORMATS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """What a comparison of methods found: its tables as text, their content as plain values, and its folder."""

    tables: str
    content: dict[str, Any]
    out: Path

    def __repr__(self) -> str:
        return self.tables


@dataclass(frozen=True, kw_only=True, repr=False)
class Reproduction:
    """The table of an experiment, beside what was published, and its folder."""

    table: str
    out: Path

    def __repr__(self) -> str:
        return self.table


class Told:
    """Tells an observer what a comparison does."""

    def __init__(self, observer: Observer):
        self._observer = observer

    def expect(self, total: int, done: int) -> None:
        """How many runs there are."""
        self._observer.message(f"{count(total, 'run')}, {done} of them recorded already")

    def message(self, text: str) -> None:
        """A line for the user."""
        self._observer.message(text)

    def begin(self, name: str) -> None:
        """What is done now."""
        self._observer.message(name)

    def watch(self, name: str, message: dict[str, Any]) -> None:
        """Nothing."""

    def end(self, name: str) -> None:
        """Nothing."""

    def finish(self, name: str, text: str) -> None:
        """A run is done."""
        self._observer.message(f"{name}: {text}")


@described
@checked_arguments
def compare_methods(
    teacher: str | ModelConfig,
    student: str | ModelConfig,
    data: str | DataConfig = "cifar10",
    *,
    methods: Sequence[str | MethodConfig] | None = None,
    seeds: int = 3,
    epochs: int = 30,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    jobs: int = 1,
    executor: str = "local",
    config: TrainConfig | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Comparison:
    """Compares distillation methods, each with the same student, data and recipe over several seeds, and with labels.

    Every run is a process of its own; runs that are recorded in ``out`` are not made again.

    Example:
        >>> found = mc.compare_methods("runs/labels", "lenet", "synthetic", methods=["kd"], seeds=1, epochs=1)
        >>> found.out
        PosixPath('results/compare-synthetic-lenet-1-epochs')
        >>> "label-only" in found.tables
        True

    Args:
        teacher: a network with weights, by name.
        student: a network, by name.
        data: a dataset, by name.
        methods: names, or `MethodConfig` with parameters and weights. None: some that suit the task, as kd, dkd and
            logit_std for classes.
        seeds: runs of each method.
        epochs: of each run.
        out: where records and tables go; None: results/compare-DATA-STUDENT-EPOCHS-epochs.
        runs, jobs, executor: `api.argument_texts`.
        config: the recipe; its networks, data and epochs are replaced.
        observer, progress, settings: `api.argument_texts`.

    Raises:
        RunFolderError: ``out`` holds runs of another recipe.
        UsageError: a method or value that cannot be.
    """
    give_names(teacher, student, data, *(methods or ()))
    if methods is not None and not methods:
        raise UsageError("methods is empty; give at least one name, as 'kd'")
    base = run_config(config, student, teacher, default_method(""), settings, data, epochs=epochs)
    named = usual_methods(stated_task(base.data)) if methods is None else methods
    chosen = [MethodConfig(name=one) if isinstance(one, str) else one for one in named]
    base = dataclasses.replace(base, method=chosen[0])
    with watched(observer, progress) as watcher:
        base = sized_run(base, watcher.message)
        plan = plan_comparison(base, chosen, seeds, out, runs, executor=Executor(jobs=jobs, name=executor))
        tables, content = make_runs(plan, Told(watcher))
    return Comparison(tables=tables, content=content, out=plan.out)


@described
@checked_arguments
def reproduce(
    experiment: str = "classic",
    *,
    seeds: int = 1,
    first_seed: int = 0,
    epochs: int | None = None,
    teacher: str | None = None,
    arms: Sequence[str] | None = None,
    data: str | DataConfig = "cifar10",
    out: str | Path | None = None,
    runs: str | Path = "runs",
    jobs: int = 1,
    executor: str = "local",
    observer: Observer | None = None,
    progress: bool | None = None,
) -> Reproduction:
    """Repeats an experiment whose result is known, and tabulates it beside what was published.

    Example:
        >>> mc.reproduce("classic", data="synthetic", teacher="runs/labels", epochs=1, arms=["labels"], out="results/c")
        | LeNet, trained on | 2016 | now, mean ± 95 % ...
        | labels only | 66.15% | ...

    Args:
        experiment: "classic", "modern" or "views".
        seeds: runs of each arm, from ``first_seed`` on.
        first_seed: the first seed.
        epochs: of each run; None: those of the experiment.
        teacher: a network with weights; None: that of the experiment.
        arms: some of the arms only.
        data: a dataset, by name.
        out: where records and tables go; None: results/EXPERIMENT-EPOCHS-epochs.
        runs, jobs, executor: `api.argument_texts`.
        observer, progress: `api.argument_texts`.

    Raises:
        UnknownNameError: no such experiment or arm.
        RunFolderError: ``out`` holds records of another configuration.
    """
    check_seeds(seeds)
    if experiment not in experiments.EXPERIMENTS:
        raise unknown_name("experiment", experiment, list(experiments.EXPERIMENTS))
    known = experiments.EXPERIMENTS[experiment]
    length = known.epochs if epochs is None else epochs
    folder = user_path(str(out or f"results/{experiment}-{length}-epochs"))
    with watched(observer, progress) as watcher:
        table = experiments.reproduce(
            experiment,
            seeds=range(first_seed, first_seed + seeds),
            out=folder,
            runs=user_path(str(runs)),
            data=DataConfig(name=data) if isinstance(data, str) else data,
            epochs=length,
            teacher=teacher or known.teacher,
            arms=arms or list(LAYOUTS[experiment].arms),
            observer=watcher,
            executor=Executor(jobs=jobs, name=executor),
        )
    return Reproduction(table=table, out=folder)


@checked_arguments
def report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Report:
    """Reads run folders, and writes one page on them: accuracy with intervals, curves, costs, mistakes.

    Example:
        >>> page = mc.report(["runs/labels", "runs/distilled"], "report.html")
        >>> len(page.runs)
        2

    Args:
        runs: run folders, or folders with runs in them.
        out: a file that ends in .html, .md or .json; None writes nothing.

    Raises:
        UsageError: another ending, or runs with different metrics.
    """
    content = make_report([runs] if isinstance(runs, str | Path) else runs)
    if out is not None:
        path = user_path(str(out))
        if path.suffix not in FORMATS:
            raise UsageError(f"{setting('out')} must end in {', '.join(FORMATS)}, got {out}")
        write_text(path, report_text(content, FORMATS[path.suffix]))
    return content


def report_text(content: Report, kind: str) -> str:
    """A report as "html", "md" or "json"."""
    if kind == "html":
        return to_html(content)
    return to_markdown(content) if kind == "md" else json_text(to_plain(content), indent=2) + "\n"
