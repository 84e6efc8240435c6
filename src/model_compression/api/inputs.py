"""What the public functions take: networks and data, by name or as objects."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from model_compression.api.given_data import GivenData, given_data
from model_compression.api.text_lists import are_texts
from model_compression.checks.networks import check_classes
from model_compression.core import trust
from model_compression.core.argument_checks import plain_number
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, default_method
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.run_options import LEFT_OPEN, with_settings
from model_compression.data.dataset import Dataset
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.default_recipe import with_usual_method
from model_compression.engine.fitting import fitted_data, sized_data, taught_by
from model_compression.engine.networks import answers_with_embeddings, check_teachers, given_network, load_trained
from model_compression.engine.observer import Logged, Observer
from model_compression.engine.relative_paths import anchor
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.teachers import load_data
from model_compression.models.base import Network
from model_compression.tasks import task_of

Model = str | Path | ModelConfig | nn.Module
Data = str | DataConfig | GivenData | None


def observer_for(observer: Observer | None, progress: bool | None) -> Observer:
    """Who watches: ``observer``, else a bar where ``progress``, or a terminal or notebook, asks for one; else a log."""
    if observer is not None:
        return observer
    if progress is None:
        progress = (sys.stderr is not None and sys.stderr.isatty()) or "ipykernel" in sys.modules
    return ConsoleObserver() if progress else Logged()


@contextmanager
def watched(observer: Observer | None, progress: bool | None, trust_files: bool = False) -> Iterator[Observer]:
    """Who watches what is done inside, see `observer_for`; a bar made here ends with it.

    ``trust_files``: whether code that a stranger's file names is imported inside.
    """
    watcher = observer_for(observer, progress)
    own = watcher if observer is None and isinstance(watcher, ConsoleObserver) else nullcontext()
    with trust.all_files(trust_files), own:
        yield watcher


def give_names(*values: Any) -> None:
    """What a caller writes may name code, which is imported."""
    trust.give(*(str(value) for value in values if isinstance(value, str | Path)))


def data_config(data: str | DataConfig | None, model: Model) -> DataConfig:
    """The data that is named; None: that of the run ``model``, else CIFAR-10."""
    if isinstance(data, DataConfig):
        return data
    if data is not None:
        return DataConfig(name=data)
    if not isinstance(model, str | Path):
        raise UsageError("data must be given with a network that is no run: a name, arrays or datasets")
    return data_of_run(user_path(str(model))) or DataConfig()


def run_config(
    config: TrainConfig | None,
    student: str | ModelConfig,
    teacher: str | ModelConfig | None,
    method: str | MethodConfig | None,
    settings: Mapping[str, Any],
    data: str | DataConfig | None = None,
    **values: Any,
) -> TrainConfig:
    """``config`` with all that is given; without one, what data and student choose is left open.

    With a ``teacher`` and no ``method`` the method is the usual one for the data.
    """
    student, chooses = _named(student), teacher is not None and method is None
    method = default_method("") if chooses else method
    run = dataclasses.replace(
        config or TrainConfig(student=student, left_open=[*LEFT_OPEN]),
        student=student,
        teacher=None if teacher is None else _named(teacher),
        method=MethodConfig(name=method) if isinstance(method, str) else method,
        **{name: plain_number(value) for name, value in values.items()},
    )
    run = with_settings(run if data is None else _with_data(run, data), settings)
    return with_usual_method(run) if chooses else run


def _with_data(config: TrainConfig, data: str | DataConfig) -> TrainConfig:
    """``config`` on other data; all options of a `DataConfig` count as given."""
    if isinstance(data, str):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, name=data))
    left_open = [place for place in config.left_open if not place.startswith("data.")]
    return dataclasses.replace(config, data=data, left_open=left_open)


def data_of_run(path: Path) -> DataConfig | None:
    """The data of the run folder at ``path``, or of the one whose student.safetensors it is; None for no run."""
    folder = path.parent if path.name == "student.safetensors" else path
    for run in (RunFolder(folder), RunFolder(folder / "final")):
        if run.config.is_file():
            return anchor(run.read_config(), run.path).data.plain
    return None


def load_datasets(data: Data, model: Model, observer: Observer) -> tuple[Dataset, Dataset]:
    """(training set, test set) of data that is named or given."""
    if data is None or isinstance(data, str | DataConfig):
        config = data_for(model, data_config(data, model), observer)
        return load_data(config, observer.message, _names(model))
    return given_data(data, _config_of_texts(data, model), observer, _names(model))[0]


def _config_of_texts(data: GivenData, model: Model) -> DataConfig:
    """How texts of ``data`` are cut and what their labels are: as those of the run ``model``.

    Raises UsageError for texts and a module.
    """
    if not (isinstance(data, Sequence) and len(data) == 4 and are_texts(data, "")):
        return DataConfig()
    if isinstance(model, nn.Module):
        raise UsageError("texts need a tokenizer, which a module does not bring: give a run folder, or a weights file")
    run = data_of_run(user_path(_named(model).name)) or DataConfig()
    return DataConfig(task=run.task, tokenizer=run.tokenizer, max_length=run.max_length)


def _names(model: Model) -> list[str]:
    """That of ``model``, beside which a tokenizer is looked for; a module has none."""
    return [] if isinstance(model, nn.Module) else [_named(model).name]


def data_for(model: Model, config: DataConfig, observer: Observer) -> DataConfig:
    """``config``; where it leaves open how photographs get their size, as the weights of ``model`` want it."""
    if isinstance(model, nn.Module):
        return config
    network = taught_by(_named(model), config)
    return fitted_data(sized_data(config, network, observer.message), [network], observer.message)


def load_network(model: Model, dataset: Dataset, observer: Observer) -> Network:
    """A network with weights, checked against the dataset. A module is copied."""
    if isinstance(model, nn.Module):
        network = model if isinstance(model, Network) else given_network(model, dataset, 0)
    else:
        config = _named(model)
        check_teachers(config, embeds=answers_with_embeddings(dataset))
        network = load_trained(config, dataset)
    check_classes("model", network, dataset)
    for line in task_of(dataset).differences(network, dataset):
        observer.message(line)
    return network


def _named(model: str | Path | ModelConfig) -> ModelConfig:
    return model if isinstance(model, ModelConfig) else ModelConfig(name=str(model))
