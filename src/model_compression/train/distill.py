"""Distillation in a line of Python, from modules and arrays as well as from names."""

import copy
import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model_compression.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.data.dataset import Dataset
from model_compression.errors import UsageError
from model_compression.models.external import External
from model_compression.models.weights import load_own_weights
from model_compression.train.observer import Observer
from model_compression.train.runs import Parts, start_run

Arrays = Sequence[npt.NDArray[Any] | torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a distillation left: its figures, the trained student in eval mode, and the folder with everything."""

    metrics: dict[str, Any]
    student: nn.Module
    run_dir: Path


def distill(
    teacher: str | ModelConfig | nn.Module,
    student: str | ModelConfig | nn.Module,
    data: str | tuple[Dataset, Dataset] | Arrays,
    *,
    method: str = "kd",
    params: dict[str, Any] | None = None,
    epochs: int = 30,
    seed: int = 0,
    teacher_weights: str | Path | None = None,
    run_dir: str | Path | None = None,
    config: TrainConfig | None = None,
    observer: Observer | None = None,
) -> Result:
    """Trains ``student`` on what ``teacher`` answers, and returns figures, student and run folder.

    Args:
        teacher: a shipped network, a weights file, a run folder, "hf:NAME", or any module that answers normalised
            images (B, C, H, W) with logits (B, K). Modules are copied; yours stay as they are. A `ModelConfig` gives
            options, normalisation and size beside the name.
        student: a network's name, as "resnet20", "timm:resnet18" or "mypackage.nets:build", or a module, likewise.
        data: a data set's name, "folder:PATH", a pair of `Dataset` (training, test), or four arrays: training images
            (N, C, H, W) uint8, training labels (N,), test images, test labels. Modules get pixels normalised by the
            training images' mean and deviation.
        method: its name; several with commas between them.
        params: the method's parameters.
        epochs: passes over the training images.
        seed: of the order of the images, and of the initial weights of a student that is named.
        teacher_weights: a file, .pt or .safetensors, with the teacher's weights, see `load_model`.
        run_dir: a folder that does not exist; by default one in the folder for temporary files.
        config: everything else, as optimiser, augmentation and precision; its networks, method, epochs and seed are
            replaced.
        observer: who watches, as `cli.run_reports.ConsoleObserver()`; nobody by default.

    Raises:
        UsageError: an argument that cannot be, with what was expected.
    """
    if not isinstance(method, str) or not isinstance(epochs, int):
        raise UsageError(f"method must be a name and epochs an integer, got {method!r} and {epochs!r}")
    models = {"teacher": _named(teacher), "student": _named(student)}
    if teacher_weights is not None and isinstance(teacher, nn.Module):
        teacher = copy.deepcopy(teacher)
        load_own_weights(teacher, teacher_weights)
    elif teacher_weights is not None:
        models["teacher"] = dataclasses.replace(models["teacher"], weights=str(teacher_weights))
    config = config or TrainConfig(student=models["student"])
    datasets = None if isinstance(data, str) else _datasets(data)
    name = data if isinstance(data, str) else "arrays"
    config = dataclasses.replace(
        config,
        student=models["student"],
        teacher=models["teacher"],
        method=MethodConfig(name=method, params=dict(params or {})),
        data=dataclasses.replace(config.data, name=name) if name != config.data.name else config.data,
        epochs=epochs,
        seed=seed,
    )
    parts = Parts(
        student=student if isinstance(student, nn.Module) else None,
        teacher=teacher if isinstance(teacher, nn.Module) else None,
        data=datasets,
    )
    folder = Path(run_dir) if run_dir is not None else Path(tempfile.mkdtemp(prefix="model-compression-")) / "run"
    finished: list[nn.Module] = []
    metrics = start_run(config, folder, observer, parts=parts, finished=finished.append)
    network = finished[0]
    return Result(metrics=metrics, student=network.body if isinstance(network, External) else network, run_dir=folder)


def _named(model: str | ModelConfig | nn.Module) -> ModelConfig:
    if isinstance(model, ModelConfig):
        return model
    if isinstance(model, str):
        return ModelConfig(name=model)
    if not isinstance(model, nn.Module):
        raise UsageError(f"a network must be a name or a torch.nn.Module, got a {type(model).__name__}")
    return ModelConfig(name=f"{type(model).__module__}:{type(model).__qualname__}")


def _array(part: npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[Any]:
    return part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part)


def _datasets(data: tuple[Dataset, Dataset] | Arrays) -> tuple[Dataset, Dataset]:
    if not isinstance(data, Sequence):
        raise UsageError(f"data must be a name, a pair of data sets or four arrays, got a {type(data).__name__}")
    if len(data) == 2 and all(isinstance(part, Dataset) for part in data):
        return data[0], data[1]  # type: ignore[return-value]
    if len(data) != 4:
        raise UsageError(
            f"data has {len(data)} parts; expected a name, (training set, test set), or training images, training "
            "labels, test images, test labels"
        )
    train_images, train_labels, test_images, test_labels = map(_array, data)
    for what, images, labels in (("training", train_images, train_labels), ("test", test_images, test_labels)):
        if images.ndim != 4 or images.dtype != np.uint8 or len(images) < 2:
            raise UsageError(
                f"{what} images are {images.dtype} of shape {images.shape}; expected uint8 (N, C, H, W), pixels of 0 "
                "to 255, at least two images"
            )
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise UsageError(
                f"{what} labels are {labels.dtype} of shape {labels.shape}; expected integers ({len(images)},)"
            )
    if train_images.shape[1] != test_images.shape[1]:
        raise UsageError(
            f"training images have {train_images.shape[1]} channels, test images {test_images.shape[1]}, not as many"
        )
    classes = tuple(str(number) for number in range(int(max(train_labels.max(), test_labels.max())) + 1))
    pixels = train_images.transpose(1, 0, 2, 3).reshape(train_images.shape[1], -1) / np.float32(255)
    mean = tuple(float(channel.mean(dtype=np.float64)) for channel in pixels)
    std = tuple(max(float(channel.std(dtype=np.float64)), 1e-5) for channel in pixels)
    train, test = (
        Dataset(name=name, images=images, labels=labels.astype(np.int64), class_names=classes, mean=mean, std=std)
        for name, images, labels in (("arrays", train_images, train_labels), ("arrays-test", test_images, test_labels))
    )
    return train, test
