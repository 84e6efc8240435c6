"""Repeats an experiment: its runs in this process, or several at a time, each recorded when it is finished."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.config import TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted
from model_compression.core.registry import unknown_name
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.stop_requests import stop_requests
from model_compression.engine.training import Training
from model_compression.experiments.executor import ONE_BY_ONE, Executor, Run, execute
from model_compression.experiments.recipes import classic_protocol, modern_protocol, views_protocol
from model_compression.experiments.records import is_recorded, logs, write_record
from model_compression.experiments.run_lists import interrupted, train_task
from model_compression.models.weights import find_weights
from model_compression.reports.experiment_table import LAYOUTS, write_report
from model_compression.reports.records import record_path


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """``protocol`` gives the configurations by arm; ``epochs`` and ``teacher`` are what it has where none is given."""

    protocol: Callable[..., dict[str, TrainConfig]]
    epochs: int
    teacher: str
    title: str


EXPERIMENTS = {
    "classic": Experiment(
        protocol=classic_protocol, epochs=100, teacher="nin-cifar10", title="The classic experiment"
    ),
    "modern": Experiment(
        protocol=modern_protocol, epochs=30, teacher="whitening-cnn-small-cifar10",
        title="The classic student at its best",
    ),
    "views": Experiment(
        protocol=views_protocol, epochs=20, teacher="whitening-cnn-small-cifar10",
        title="How many views the teacher should answer",
    ),
}  # fmt: skip


def reproduce(
    name: str,
    *,
    seeds: Sequence[int],
    out: Path,
    runs: Path,
    data: DataConfig,
    epochs: int,
    teacher: str,
    arms: Sequence[str],
    observer: Observer,
    executor: Executor = ONE_BY_ONE,
) -> str:
    """Makes the runs of ``arms`` that have no record in ``out``; returns the table. Their folders go to ``runs``.

    Raises UnknownNameError for an arm, RunFolderError for records of another configuration, Interrupted after a signal.
    """
    experiment, layout = EXPERIMENTS[name], LAYOUTS[name]
    for arm in arms:
        if arm not in layout.arms:
            raise unknown_name("arm", arm, list(layout.arms))
    if [*arms] != ["labels"]:
        find_weights(teacher)  # before an hour goes into the students that need none
    configs = {seed: experiment.protocol(teacher=teacher, epochs=epochs, seed=seed, data=data) for seed in seeds}
    pending = {
        f"{arm}, seed {seed}": (arm, configs[seed][arm])
        for seed in seeds
        for arm in arms
        if not is_recorded(record_path(out, arm, seed), configs[seed][arm])
    }
    folders = {name: runs / out.name / f"{arm}-seed{config.seed}" for name, (arm, config) in pending.items()}
    title, table = f"{experiment.title}, {epochs} epochs", ""
    made = _one_by_one if executor == ONE_BY_ONE else _several(executor)
    for name, metrics in made({name: pending[name][1] for name in pending}, folders, observer):
        arm, config = pending[name]
        content = {"metrics": metrics, **logs(folders[name])}
        write_record(record_path(out, arm, config.seed), arm, config, content)
        table = write_report(out, title, layout)
    return table or write_report(out, title, layout)


Made = Iterator[tuple[str, dict[str, Any]]]


def _one_by_one(configs: Mapping[str, TrainConfig], folders: Mapping[str, Path], observer: Observer) -> Made:
    """The metrics of each run, made in this process: data and teacher are loaded once."""
    parts = Parts()
    for name, config in configs.items():
        observer.message(f"{name} → {folders[name]}")
        yield name, Training(config, folders[name], observer, parts).finish()


def _several(executor: Executor) -> Callable[[Mapping[str, TrainConfig], Mapping[str, Path], Observer], Made]:
    """The metrics of each run as it ends, made by ``executor`` in processes of their own."""

    def make(configs: Mapping[str, TrainConfig], folders: Mapping[str, Path], observer: Observer) -> Made:
        runs = [Run(name=name, task=train_task(config, folders[name])) for name, config in configs.items()]
        failed: Exception | None = None
        with stop_requests() as stopped:
            for run, result in execute(runs, _Lines(observer, folders), stopped, executor):
                if isinstance(result, dict):
                    yield run.name, result["metrics"]
                elif not isinstance(result, Interrupted):
                    observer.message(f"{run.name}: failed: {result}")
                    failed = result
            if stopped:
                raise interrupted(stopped, "")
        if failed is not None:
            raise failed

    return make


class _Lines:
    """Tells an observer in lines what several runs do."""

    def __init__(self, observer: Observer, folders: Mapping[str, Path]):
        self.message, self._folders = observer.message, folders

    def begin(self, name: str) -> None:
        """A run starts."""
        self.message(f"{name} → {self._folders[name]}")

    def watch(self, name: str, message: dict[str, Any]) -> None:
        """Nothing: lines of several runs would mix."""
