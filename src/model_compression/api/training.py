"""Distillation in a line of Python, from modules and arrays as well as from names."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from model_compression.api.argument_texts import described
from model_compression.api.given_data import GivenData, given_data, with_loaders_settings
from model_compression.api.given_networks import given_teacher, named, with_pixels
from model_compression.api.inputs import give_names, run_config, watched
from model_compression.api.run_arguments import RunArguments, check_types
from model_compression.api.run_result import RunResult, result_of
from model_compression.core import processes
from model_compression.core import trust as code
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, default_method
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.engine.default_recipe import usual_method
from model_compression.engine.fitting import sized_run
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts, names_of_networks
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_same
from model_compression.engine.training import Training
from model_compression.experiments.resume import resume as resume_folder
from model_compression.experiments.resume import stage_kind
from model_compression.models.base import Network
from model_compression.models.loading import read_model


@described
def distill(
    teacher: str | ModelConfig | nn.Module | None,
    student: str | ModelConfig | nn.Module,
    data: str | GivenData,
    *,
    method: str | MethodConfig | None = None,
    params: dict[str, Any] | None = None,
    epochs: int = 30,
    seed: int = 0,
    teacher_weights: str | Path | None = None,
    teacher_mean: Sequence[float] | None = None,
    teacher_std: Sequence[float] | None = None,
    teacher_size: int | tuple[int, int] | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    config: TrainConfig | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
    strict: bool = False,
    **settings: Any,
) -> RunResult:
    """Trains ``student`` on what ``teacher`` answers, and returns figures, student and run folder.

    Example:
        >>> run = mc.distill("runs/labels", "lenet", "synthetic", epochs=1, run_dir="runs/taught")
        >>> run
        <test accuracy ...%, run runs/taught>
        >>> run.student(run.preprocessing(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))).shape
        torch.Size([2, 10])

    Args:
        teacher: a shipped network, a weights file, a run folder, "hf:NAME", or a module, as ``student`` may be. None
            for a method that needs none, as "tf_kd".
        student, data: `api.argument_texts`.
        method: its name; several with commas between them; None: "kd", for regression "logits", for embeddings "align".
            A `MethodConfig` gives weights, the label loss's weight, pairs of layers and warm-up beside the name.
        params: the method's parameters.
        teacher_weights: a file, .pt or .safetensors, with the teacher's weights, see `load_model`.
        teacher_mean: per channel, 1 = white, of the pixels that the teacher was trained on. By default its own, or the
            training images'.
        teacher_std: per channel, likewise; given with ``teacher_mean``.
        teacher_size: (height, width) to which images are scaled for the teacher, or the side of a square.
        epochs, seed, run_dir, resume, config, observer, progress, trust, strict, settings: `api.argument_texts`.

    Raises:
        UsageError: an argument that cannot be, with what was expected.
        RunFolderError: ``run_dir`` is taken, or there is nothing to resume.
    """
    given = RunArguments(
        epochs=epochs, seed=seed, run_dir=run_dir, resume=resume, config=config, observer=observer, progress=progress,
        trust=trust, strict=strict, settings=settings,
    )  # fmt: skip
    answering, teacher_config = given_teacher(teacher, teacher_weights)
    teacher_config = with_pixels(teacher_config, teacher_mean, teacher_std, teacher_size)
    chosen = _method(method, params)
    return _train(given, student, data, teacher_config, chosen, answering, names_method=method is not None)


@described
def train(
    student: str | ModelConfig | nn.Module,
    data: str | GivenData,
    *,
    epochs: int = 30,
    seed: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    config: TrainConfig | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
    strict: bool = False,
    **settings: Any,
) -> RunResult:
    """Trains ``student`` on labels only.

    Example:
        >>> mc.train("lenet", "synthetic", epochs=1, run_dir="runs/lenet")
        <test accuracy ...%, run runs/lenet>

    Args:
        student, data: `api.argument_texts`.
        epochs, seed, run_dir, resume, config, observer, progress, trust, strict, settings: `api.argument_texts`.

    Raises:
        UsageError: an argument that cannot be, with what was expected.
        RunFolderError: ``run_dir`` is taken, or there is nothing to resume.
    """
    given = RunArguments(
        epochs=epochs, seed=seed, run_dir=run_dir, resume=resume, config=config, observer=observer, progress=progress,
        trust=trust, strict=strict, settings=settings,
    )  # fmt: skip
    return _train(given, student, data)


@described
@checked_arguments
def resume(
    run_dir: str | Path,
    *,
    lr: float | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
) -> Any:
    """Resumes what was interrupted in ``run_dir``, bit for bit: a run, a pruning, a compression or a scheme.

    A run that got objects from Python is resumed by `distill` or `train` with ``resume=True`` and the same objects.

    Example:
        >>> mc.resume("runs/distilled")
        Traceback (most recent call last):
        model_compression.core.errors.FinishedError: runs/distilled is finished: there is nothing to resume; ...

    Args:
        run_dir: the folder.
        lr: after an exploded loss, the learning rate to go on with.
        observer, progress, trust: `api.argument_texts`.

    Returns:
        What the command that began it returns: a `RunResult` for a run.

    Raises:
        RunFolderError: there is nothing to resume.
    """
    with watched(observer, progress, trust) as watcher:
        metrics = resume_folder(run_dir, watcher, lr=lr)
    if stage_kind(run_dir) is not Training:
        return metrics
    return result_of(metrics, read_model(RunFolder(run_dir).student), user_path(run_dir))


def _method(method: str | MethodConfig | None, params: dict[str, Any] | None) -> MethodConfig:
    """What is given; without a name, which `_train` chooses by the data, the one of most tasks."""
    check_types(method=method, params=params)
    if isinstance(method, MethodConfig):
        if params is not None:
            raise UsageError("params are given twice: put them into the MethodConfig that is method")
        return method
    name = default_method("") if method is None else method
    code.give(name)
    return MethodConfig(name=name, params=dict(params or {}))


def _train(
    given: RunArguments,
    student: str | ModelConfig | nn.Module,
    data: str | GivenData,
    teacher_config: ModelConfig | None = None,
    method: MethodConfig | None = None,
    teacher: nn.Module | None = None,
    *,
    names_method: bool = True,
) -> RunResult:
    """A run with what is given as objects; ``teacher`` where it is a module. Without a name of the method, the data
    choose it.
    """
    give_names(student, data)
    config = run_config(
        given.config, named(student), teacher_config, method, given.settings, epochs=given.epochs, seed=given.seed
    )
    module = student if isinstance(student, nn.Module) else None
    with watched(given.observer, given.progress, given.trust) as watcher:
        networks = names_of_networks(config.student, config.teacher)
        datasets, name = (None, data) if isinstance(data, str) else given_data(data, config.data, watcher, networks)
        if name != config.data.name:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))
        if datasets is not None:
            config = with_loaders_settings(config, datasets[0])
        if config.method is not None and not names_method:
            usual = (
                usual_method(config.data) if datasets is None else default_method(config.data.task or datasets[0].task)
            )
            config = dataclasses.replace(config, method=dataclasses.replace(config.method, name=usual))
        config = sized_run(config, watcher.message)
        processes.meet()
        folder = processes.on_main(lambda: _free_folder(config)) if given.run_dir is None else user_path(given.run_dir)
        if given.resume:
            check_same(folder, config)
            config = RunFolder(folder).read_config()
        parts = Parts(student=module, teacher=teacher, data=datasets)
        finished: list[Network] = []
        training = Training(config, folder, watcher, parts, strict=given.strict, finished=finished.append)
        metrics = training.resume() if given.resume else training.start()
    return result_of(metrics, finished[0], folder)


def _free_folder(config: TrainConfig) -> Path:
    """runs/DATA-STUDENT-METHOD-N, the first that is not there."""
    method = "labels" if config.method is None else config.method.name
    parts = (config.data.name, config.student.name, method)
    name = "-".join(re.sub(r"[^\w.]+", "-", Path(part.rpartition(":")[2]).name) for part in parts)
    return next(folder for number in itertools.count(1) if not (folder := Path("runs") / f"{name}-{number}").exists())
