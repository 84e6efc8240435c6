"""Distillation in a line of Python, from modules and arrays as well as from names."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from model_compression.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.errors import UsageError
from model_compression.models.external import External
from model_compression.train.given_data import GivenData, given_data, is_opaque
from model_compression.train.observer import Observer
from model_compression.train.runs import Parts, start_run


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a distillation left: its figures, the trained student in eval mode, and the folder with everything."""

    metrics: dict[str, Any]
    student: nn.Module
    run_dir: Path


def distill(
    teacher: str | nn.Module,
    student: str | nn.Module,
    data: str | GivenData,
    *,
    method: str = "kd",
    params: dict[str, Any] | None = None,
    epochs: int = 30,
    seed: int = 0,
    run_dir: str | Path | None = None,
    config: TrainConfig | None = None,
    observer: Observer | None = None,
) -> Result:
    """Trains ``student`` on what ``teacher`` answers, and returns figures, student and run folder.

    Args:
        teacher: a shipped network, a weights file, a run folder, or any module that answers normalised images
            (B, C, H, W) with logits (B, K). Modules are copied; yours stay as they are.
        student: a network's name, or a module, likewise.
        data: a data set's name, "folder:PATH" or "hf:NAME"; a pair (training, test) of `Dataset`, of PyTorch data sets
            whose items are (PIL image or uint8 tensor (C, H, W), class number), or of DataLoaders; or four arrays:
            training images (N, C, H, W) uint8, training labels (N,), or None where there are none, test images, test
            labels. Modules get pixels normalised by the training images' mean and deviation. DataLoaders are taken as
            they are: both networks see the float images of their batches, nothing of the teacher's is stored, and a
            run that is resumed does not end with the same weights.
        method: its name; several with commas between them.
        params: the method's parameters.
        epochs: passes over the training images.
        seed: of the order of the images, and of the initial weights of a student that is named.
        run_dir: a folder that does not exist; by default one in the folder for temporary files.
        config: everything else, as optimiser, augmentation and precision; its networks, method, epochs and seed are
            replaced.
        observer: who watches, as `cli.run_reports.ConsoleObserver()`; nobody by default.

    Raises:
        UsageError: an argument that cannot be, with what was expected.
    """
    if not isinstance(method, str) or not isinstance(epochs, int):
        raise UsageError(f"method must be a name and epochs an integer, got {method!r} and {epochs!r}")
    names = {"teacher": _name(teacher), "student": _name(student)}
    config = config or TrainConfig(student=ModelConfig(name=names["student"]))
    datasets, name = (None, data) if isinstance(data, str) else given_data(data, config.data, observer)
    config = dataclasses.replace(
        config,
        student=ModelConfig(name=names["student"]),
        teacher=ModelConfig(name=names["teacher"]),
        method=MethodConfig(name=method, params=dict(params or {})),
        data=dataclasses.replace(config.data, name=name) if name != config.data.name else config.data,
        epochs=epochs,
        seed=seed,
        teacher_cache="off" if datasets is not None and is_opaque(datasets[0]) else config.teacher_cache,
    )
    parts = Parts(
        student=None if isinstance(student, str) else student,
        teacher=None if isinstance(teacher, str) else teacher,
        data=datasets,
    )
    folder = Path(run_dir) if run_dir is not None else Path(tempfile.mkdtemp(prefix="model-compression-")) / "run"
    finished: list[nn.Module] = []
    metrics = start_run(config, folder, observer, parts=parts, finished=finished.append)
    network = finished[0].eval()
    return Result(metrics=metrics, student=network.body if isinstance(network, External) else network, run_dir=folder)


def _name(model: str | nn.Module) -> str:
    if isinstance(model, str):
        return model
    if not isinstance(model, nn.Module):
        raise UsageError(f"a network must be a name or a torch.nn.Module, got a {type(model).__name__}")
    return f"{type(model).__module__}:{type(model).__qualname__}"
