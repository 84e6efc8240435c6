"""Distillation in a line of Python, from modules and arrays as well as from names."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from model_compression.api.given_data import GivenData, given_data, with_loaders_settings
from model_compression.api.given_networks import NOT_REBUILT, is_rebuilt, named, with_pixels, with_weights
from model_compression.api.inputs import give_names, observer_for, watched
from model_compression.core import processes
from model_compression.core import trust as code
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, default_method
from model_compression.core.config_json import GIVEN
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.metric import primary_metric
from model_compression.core.run_options import LEFT_OPEN, with_settings
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.observer import Observer, Silent
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_same
from model_compression.engine.training import Training
from model_compression.experiments.resume import resume as resume_folder
from model_compression.experiments.resume import stage_kind
from model_compression.models.base import Network
from model_compression.models.external import External
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import read_model


@dataclass(frozen=True, kw_only=True, repr=False)
class RunResult:
    """What a run left: its figures, the trained student in eval mode, and the folder with everything.

    ``student(preprocessing(images))`` answers images (B, C, H, W) uint8 with logits (B, K). Of a run on DataLoaders
    ``student(images)`` does so with images that are normalised as theirs, and ``preprocessing`` changes nothing.
    """

    metrics: dict[str, Any]
    student: nn.Module
    preprocessing: Preprocessing
    run_dir: Path

    @property
    def backbone(self) -> Path | None:
        """The weights of a network without a head, under the names of its own library; None for other networks."""
        path = RunFolder(self.run_dir).backbone
        return path if path.is_file() else None

    def __repr__(self) -> str:
        metric = primary_metric(self.metrics)
        key = next(key for key in map(metric.key, ("validation", "test")) if key in self.metrics)
        return f"<{key.replace('_', ' ')} {metric.text(self.metrics[key])}, run {self.run_dir}>"


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
        teacher: a shipped network, a weights file, a run folder, "hf:NAME", or any module that answers normalised
            images (B, C, H, W) with logits (B, K). Modules are copied; yours stay as they are. A `ModelConfig` gives
            options, normalisation and size beside the name. None for a method that needs none, as "tf_kd".
        student: a network's name, as "resnet20", "timm:resnet18" or "mypackage.nets:build", or a module, likewise.
        data: a dataset's name, "folder:PATH" or "hf:NAME"; a pair (training, test) of `Dataset`, of PyTorch datasets
            whose items are (PIL image or uint8 tensor (C, H, W), class number), or of DataLoaders; or four arrays:
            training images (N, C, H, W) uint8, training labels (N,), or None where there are none, test images, test
            labels. Modules get pixels normalised by the training images' mean and deviation. DataLoaders are taken as
            they are: both networks see the float images of their batches, nothing of the teacher's is stored, and a
            run that is resumed does not end with the same weights.
        method: its name; several with commas between them; by default "kd", and "align" with
            ``task="embedding"``. A `MethodConfig` gives weights, the label loss's weight, pairs of layers and warm-up
            beside the name.
        params: the method's parameters.
        epochs: passes over the training images.
        seed: of the order of the images, and of the initial weights of a student that is named.
        teacher_weights: a file, .pt or .safetensors, with the teacher's weights, see `load_model`.
        teacher_mean: per channel, 1 = white, of the pixels that the teacher was trained on; with ``teacher_std``. By
            default the teacher's own, or the training images'.
        teacher_std: per channel, likewise.
        teacher_size: (height, width) to which images are scaled for the teacher, or the side of a square.
        run_dir: a folder that does not exist; by default runs/DATA-STUDENT-METHOD-1, or the next number that is free.
        resume: whether to go on with the run in ``run_dir`` that was stopped, with the same arguments as then.
        config: where to start from; its networks, method, epochs and seed are replaced. Without it optimiser, rate,
            weight decay, schedule, batch size and augmentation are chosen by data and student where they are not given.
        observer: who watches; takes the place of ``progress``.
        progress: whether a bar and a line an epoch are shown on stderr, as the command shows them. By default they are
            on a terminal and in a notebook; elsewhere messages are warnings of the logger "model_compression".
        trust: whether code that a stranger's file names is imported, as a weights file or the run that is resumed.
            What you name yourself always is, and so is what your own runs on this machine name.
        strict: whether a warning about data or teacher stops the run before its first step.
        settings: anything else of `TrainConfig`, `DataConfig` or `OptimConfig`, as ``batch_size=64, lr=1e-3,
            augmentation="flip", image_size=64``.

    Raises:
        UsageError: an argument that cannot be, with what was expected.
        RunFolderError: ``run_dir`` is taken, or there is nothing to resume.
    """
    _check_types(
        method=method,
        params=params,
        epochs=epochs,
        seed=seed,
        run_dir=run_dir,
        resume=resume,
        config=config,
        progress=progress,
    )
    _check_observer(observer)
    if isinstance(method, MethodConfig) and params is not None:
        raise UsageError("params are given twice: put them into the MethodConfig that is method")
    config_of_teacher = None if teacher is None else named(teacher)
    if teacher_weights is not None:
        teacher, config_of_teacher = with_weights(teacher, config_of_teacher, teacher_weights)
    if method is None:
        given = settings.get("task", "" if config is None else config.data.task)
        method = default_method(given if isinstance(given, str) else "")
    if isinstance(method, str):
        code.give(method)
        method = MethodConfig(name=method, params=dict(params or {}))
    base = dataclasses.replace(
        config or TrainConfig(student=named(student), left_open=[*LEFT_OPEN]),
        teacher=with_pixels(config_of_teacher, teacher_mean, teacher_std, teacher_size),
        method=method,
        epochs=epochs,
        seed=seed,
    )
    module = teacher if isinstance(teacher, nn.Module) else None
    return _train(
        base, student, data, settings, module, run_dir=run_dir, resume=resume, observer=observer, progress=progress,
        trust=trust, strict=strict,
    )  # fmt: skip


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
    """Trains ``student`` on labels only; arguments and results are those of `distill`.

    Example:
        >>> mc.train("lenet", "synthetic", epochs=1, run_dir="runs/lenet")
        <test accuracy ...%, run runs/lenet>
    """
    _check_types(epochs=epochs, seed=seed, run_dir=run_dir, resume=resume, config=config, progress=progress)
    _check_observer(observer)
    base = dataclasses.replace(
        config or TrainConfig(student=named(student), left_open=[*LEFT_OPEN]),
        teacher=None,
        method=None,
        epochs=epochs,
        seed=seed,
    )
    return _train(
        base, student, data, settings, None, run_dir=run_dir, resume=resume, observer=observer, progress=progress,
        trust=trust, strict=strict,
    )  # fmt: skip


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
        observer: who watches; takes the place of ``progress``.
        progress: whether a bar is shown; by default on a terminal and in a notebook.
        trust: whether code that a stranger's folder names is imported.

    Returns:
        What the command that began it returns: a `RunResult` for a run.

    Raises:
        RunFolderError: there is nothing to resume.
    """
    with watched(observer, progress, trust) as watcher:
        metrics = resume_folder(run_dir, watcher, lr=lr)
    if stage_kind(run_dir) is not Training:
        return metrics
    return _result(metrics, read_model(RunFolder(run_dir).student), user_path(run_dir))


def _train(
    config: TrainConfig,
    student: str | ModelConfig | nn.Module,
    data: str | GivenData,
    settings: dict[str, Any],
    teacher: nn.Module | None,
    *,
    run_dir: str | Path | None,
    resume: bool,
    observer: Observer | None,
    progress: bool | None,
    trust: bool,
    strict: bool,
) -> RunResult:
    """A run of ``config`` with what is given as objects, and ``settings`` of it by name."""
    if resume and run_dir is None:
        raise UsageError("resume needs the run_dir of the run that is to go on")
    for name, ours in (("out", "run_dir"), ("pairs", "method=MethodConfig(name=..., pairs=...)")):
        if name in settings:
            raise UsageError(f"{name} is an option of the command line; here it is {ours}")
    give_names(student, data)
    config = with_settings(dataclasses.replace(config, student=named(student)), settings)
    watcher = observer_for(observer, progress)
    if isinstance(student, nn.Module):
        name = config.student.name.removeprefix(GIVEN)
        if not is_rebuilt(student, name):
            watcher.message(f"{name}{NOT_REBUILT}")
    datasets, name = (None, data) if isinstance(data, str) else given_data(data, config.data, watcher)
    if name != config.data.name:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))
    if datasets is not None:
        config = with_loaders_settings(config, datasets[0])
    processes.meet()
    parts = Parts(student=student if isinstance(student, nn.Module) else None, teacher=teacher, data=datasets)
    finished: list[Network] = []
    folder = processes.on_main(lambda: _free_folder(config)) if run_dir is None else user_path(run_dir)
    with code.all_files(trust), watcher if isinstance(watcher, ConsoleObserver) else nullcontext():
        if resume:
            check_same(folder, config)
            config = RunFolder(folder).read_config()
        training = Training(config, folder, watcher, parts, strict=strict, finished=finished.append)
        metrics = training.resume() if resume else training.start()
    return _result(metrics, finished[0], folder)


def _result(metrics: dict[str, Any], network: Network, folder: Path) -> RunResult:
    network.eval()
    return RunResult(
        metrics=metrics,
        student=network.body if isinstance(network, External) else network,
        preprocessing=network.preprocessing,
        run_dir=folder,
    )


# argument → (the types it may have, how an error calls them)
_TYPES: dict[str, tuple[Any, str]] = {
    "method": (str | MethodConfig | None, "a name, as 'kd', or a MethodConfig"),
    "params": (dict | None, "a dictionary of the method's parameters, as {'temperature': 2.0}"),
    "epochs": (int, "an integer"),
    "seed": (int, "an integer"),
    "run_dir": (str | Path | None, "the path of a folder"),
    "resume": (bool, "True or False"),
    "progress": (bool | None, "True, False or None"),
    "config": (TrainConfig | None, "a TrainConfig"),
}


def _check_types(**arguments: Any) -> None:
    """Raises UsageError for an argument of a type that it cannot have."""
    for name, value in arguments.items():
        kinds, wanted = _TYPES[name]
        if not isinstance(value, kinds) or (kinds is int and isinstance(value, bool)):
            raise UsageError(f"{name} must be {wanted}, got {value!r}")
        if name == "params" and not all(isinstance(key, str) for key in value or ()):
            raise UsageError(f"the names in params must be texts, got {value!r}")


def _check_observer(observer: Any) -> None:
    """Raises UsageError unless it can be told of all that `Observer` names."""
    missing = [
        name for name in vars(Silent) if not name.startswith("_") and not callable(getattr(observer, name, None))
    ]
    if observer is not None and missing:
        raise UsageError(
            f"observer must have the methods of engine.observer.Observer; a {type(observer).__name__} lacks "
            f"{', '.join(missing)}"
        )


def _free_folder(config: TrainConfig) -> Path:
    """runs/DATA-STUDENT-METHOD-N, the first that is not there."""
    method = "labels" if config.method is None else config.method.name
    parts = (config.data.name, config.student.name, method)
    name = "-".join(re.sub(r"[^\w.]+", "-", Path(part.rpartition(":")[2]).name) for part in parts)
    return next(folder for number in itertools.count(1) if not (folder := Path("runs") / f"{name}-{number}").exists())
