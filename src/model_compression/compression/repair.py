"""How a smaller network is fine-tuned: as its own run was trained, by the same teacher."""

import dataclasses
from pathlib import Path

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, default_method
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.optim_config import OptimConfig
from model_compression.distillation.objective import create_method, label_weight_of
from model_compression.engine.relative_paths import anchor
from model_compression.engine.run_folder import RunFolder
from model_compression.models.weights import find_weights, read_header


def place_of(model: str) -> str:
    """``model`` in the words of a configuration that is read from another folder: a path is whole."""
    path = user_path(model)
    return str(path.resolve()) if path.exists() else model


def repair_config(model: str) -> TrainConfig:
    """The configuration of the run ``model``, with a method that serves any student; else the usual one.

    Its teacher is the run's. A network without one learns from what it was itself. Methods that compare features, or
    end in the teacher's classifier, are replaced: a smaller network has other layers to compare.

    Raises UsageError and FileFormatError for what is no network with weights.
    """
    usual = MethodConfig(name=default_method(str(read_header(find_weights(model))["facts"].get("task"))))
    own = ModelConfig(name=place_of(model))
    folder = _run_folder(model)
    if folder is None:
        return TrainConfig(
            student=own,
            teacher=own,
            method=usual,
            data=DataConfig(augmentation="flip_shift"),
            optim=OptimConfig(optimizer="adamw", lr=2e-3, weight_decay=0.05, schedule="one_cycle"),
            epochs=12,
        )
    config = anchor(RunFolder(folder).read_config(), folder)
    method = config.method if config.method is not None and config.peers is None else usual
    if create_method(method).needs != {"logits"} or not create_method(method).needs_teacher:
        method = usual
    teacher = config.teacher or own
    optim = config.optim.going_on()
    return dataclasses.replace(config, student=own, teacher=teacher, method=method, peers=None, optim=optim)


def states_figures_of(model: str, data: DataConfig) -> bool:
    """Whether the accuracy that ``model`` states is one on the images of ``data``."""
    own, other = (
        (_place(one.name), one.image_size, one.fitting, one.validation) for one in (repair_config(model).data, data)
    )
    return own == other


def _place(data: str) -> str:
    """The name of a dataset, with a folder's as a whole path, whichever folder it is seen from."""
    path = user_path(data.partition(":")[2])
    return str(path.resolve()) if ":" in data and path.exists() else data


def without_idle_smoothing(config: TrainConfig) -> TrainConfig:
    """``config`` without what concerns labels, where its method, maybe not the run's, has no label loss."""
    assert config.method is not None
    return (
        config
        if label_weight_of(config.method, create_method(config.method))
        else dataclasses.replace(config, label_smoothing=0.0, class_weights="none")
    )


def check_repair(config: TrainConfig) -> None:
    """Raises UsageError unless ``config`` has a teacher and a method that serves any student."""
    if config.method is None or config.teacher is None:
        raise UsageError("a teacher fine-tunes the smaller network: give a method that has one, as kd")
    if create_method(config.method).needs != {"logits"}:
        raise UsageError(
            f"method {config.method.name!r} compares features, and layers lose channels here; give a method that needs "
            "logits only, as kd"
        )


def _run_folder(model: str) -> Path | None:
    path = user_path(model)
    return next((folder for folder in (path, path / "final") if (folder / "config.json").is_file()), None)
