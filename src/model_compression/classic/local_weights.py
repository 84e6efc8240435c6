"""teacher.npy and student.npy, the weights that the historic script looked for in its working folder."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from model_compression.classic.caffe_weights import ChannelOrder, import_model
from model_compression.classic.npy import read_npy
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import FileFormatError
from model_compression.data.sources import DATASETS
from model_compression.distillation.teachers.fingerprint import weights_digest
from model_compression.distillation.teachers.store import cache_folder
from model_compression.models import Network
from model_compression.models.weights import save_weights

TEACHER_FILE, STUDENT_FILE = "teacher.npy", "student.npy"
CHANNEL_ORDER: ChannelOrder = "bgr"  # of the images that both files' networks were trained on


def with_local_weights(config: TrainConfig, folder: Path) -> TrainConfig:
    """``config`` with the networks of ``folder`` in the place of the shipped teacher and of the fresh student.

    They are imported into the user's cache, under a name that follows from their content: a run can be resumed from any
    working folder, whatever becomes of the files.
    """
    teacher = local_teacher(folder, config.data)
    if teacher is not None:
        config = dataclasses.replace(config, teacher=ModelConfig(name=str(_store(teacher, TEACHER_FILE))))
    path = folder / STUDENT_FILE
    if path.exists():
        student = _import(path, config.student.name, config.data)
        config = dataclasses.replace(config, student=ModelConfig(name=str(_store(student, STUDENT_FILE))))
        print(f"the student starts from {STUDENT_FILE}")
    return config


def local_teacher(folder: Path, data: DataConfig) -> Network | None:
    """The network in network of ``folder``'s teacher.npy, if it is there: its layers decide between `nin` and `nin-ip`.

    Raises FileFormatError for other layers, WeightsMismatchError for other shapes.
    """
    path = folder / TEACHER_FILE
    if not path.exists():
        return None
    layers = read_npy(path)
    if "cccp6" in layers:
        return _import(path, "nin", data)
    if {"ip1", "ip2"} <= set(layers):
        return _import(path, "nin-ip", data)
    raise FileFormatError(
        f"{path} holds the layers {', '.join(layers)}; expected a network in network that ends in cccp6, or in ip1, ip2"
    )


def _import(path: Path, model_name: str, data: DataConfig) -> Network:
    """The model, with the historic preprocessing: pixels of 0 to 255 minus the mean image of the training images."""
    model = import_model(path, model_name, channel_order=CHANNEL_ORDER)
    train, _ = DATASETS.get(data.name)(data.data_dir)
    mean_image = (
        train.images[:].mean(axis=0, dtype=np.float64).astype(np.float32)
    )  # (C, H, W), RGB as the imported model
    model.preprocessing = dataclasses.replace(model.preprocessing, mean_image=torch.from_numpy(mean_image))
    print(
        f"{path.name}: read as {model_name} for channels in {CHANNEL_ORDER} order, pixels of 0 to 255 minus the mean "
        "image of the training images"
    )
    return model


def _store(model: Network, source: str) -> Path:
    """Writes the model into the user's cache; returns the absolute path."""
    folder = cache_folder().parent.resolve() / "imported"
    path = folder / f"{model.name}-{weights_digest(model)[:32]}.safetensors"
    save_weights(path, model, facts={"imported_from": source, "channel_order": CHANNEL_ORDER})
    return path
