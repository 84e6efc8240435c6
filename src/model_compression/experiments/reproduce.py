"""Repeats an experiment: its runs in this process, one after the other, each recorded when it is finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_compression.core.config import DataConfig, TrainConfig
from model_compression.core.registry import unknown_name
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.runs import finish_run
from model_compression.experiments.recipes import classic_protocol, modern_protocol, views_protocol
from model_compression.experiments.records import is_recorded, logs, write_record
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
    title, parts, table = f"{experiment.title}, {epochs} epochs", Parts(), ""
    for seed in seeds:
        configs = experiment.protocol(teacher=teacher, epochs=epochs, seed=seed, data=data)
        for arm in arms:
            record = record_path(out, arm, seed)
            if is_recorded(record, configs[arm]):
                continue
            folder = runs / out.name / f"{arm}-seed{seed}"
            observer.message(f"{arm}, seed {seed} → {folder}")
            metrics = finish_run(configs[arm], folder, observer, parts)
            write_record(record, arm, configs[arm], {"metrics": metrics, **logs(folder)})
            table = write_report(out, title, layout)
    return table or write_report(out, title, layout)
