"""Trains many small students, as each of several processes or alone, and writes what the first process has.

Run as ``python cases.py FOLDER [NAME ...]`` or by torchrun. It is no test: test_processes.py starts it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model_compression.core import processes
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.distillation.methods import METHODS, create
from model_compression.engine.first_stage import run_first_stage
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts
from model_compression.engine.setup import prepare
from model_compression.models import create_model

SHARED = {
    "student": ModelConfig(name="resnet8"),
    "optim": OptimConfig(optimizer="sgd", lr=1e-4, momentum=0.0),
    "epochs": 2,
    "batch_size": 16,
    "precision": "fp32",
    "teacher_precision": "fp32",
    "device": "cpu",
    "sync_batchnorm": True,
    "teacher_cache": "off",
}
TAUGHT = {"teacher": ModelConfig(name="resnet14"), "allow_weak_teacher": True}


def configurations():
    """All cases by name."""
    cases = {
        "labels": TrainConfig(**SHARED),
        "lenet": TrainConfig(**{**SHARED, "student": ModelConfig(name="lenet"), "sync_batchnorm": False}),
        "mixup": TrainConfig(**SHARED, data=DataConfig(mixup=0.3, augmentation="flip_shift")),
        "ema": TrainConfig(**SHARED, ema=0.9),
        "parts": TrainConfig(**{**SHARED, "student": ModelConfig(name="lenet"), "accumulate": 3}),
        "recomputed": TrainConfig(**SHARED, checkpoint_activations=True),
        "frozen first": TrainConfig(
            **{
                **SHARED,
                "optim": OptimConfig(
                    optimizer="sgd", lr=1e-4, momentum=0.0, freeze_epochs=1, layer_decay=0.5, clip_grad_norm=0.3
                ),
            }
        ),
        "sharded": TrainConfig(**SHARED, **TAUGHT, method=MethodConfig(name="review_kd"), shard_teacher=True),
        "stored": TrainConfig(**{**SHARED, "teacher_cache": "auto"}, **TAUGHT, method=MethodConfig(name="kd")),
        "peers": TrainConfig(
            **SHARED,
            peers=ModelConfig(name="resnet8"),
            method=MethodConfig(name="kd", params={"temperature": 1.0}, label_weight=1.0),
        ),
    }
    params = {"holistic.width": 4, "holistic.size": 16}
    of_masks = {"student": ModelConfig(name="unet", options={"width": 4}), "teacher": ModelConfig(name="unet")}
    cases["masks"] = TrainConfig(
        **{**SHARED, **TAUGHT, **of_masks},
        data=DataConfig(task="segmentation"),
        method=MethodConfig(name="kd,holistic", params=params),
    )
    for name in METHODS.names():
        method = create(name)
        of_transformers = method.layer_map in ("attention", "query, key and value")
        if of_transformers or method.compares_maps or not method.answers & {"categorical", "embedding"}:
            continue
        taught = TAUGHT if method.needs_teacher else {}
        task = DataConfig(task="embedding" if method.answers == {"embedding"} else "")
        cases[f"method {name}"] = TrainConfig(**SHARED, **taught, data=task, method=MethodConfig(name=name))
    return cases


def data(task=""):
    """46 training images of 3 classes: the last batch has 14, and with four processes slices differ in length."""
    generator = np.random.default_rng(0)
    labels = np.arange(46) % 3
    images = generator.integers(0, 256, (46, 3, 32, 32), dtype=np.uint8)
    images[:, 0] = images[:, 0] // 4 + (labels * 60)[:, None, None].astype(np.uint8)
    if task == "segmentation":
        labels = (images[:, 0] // 86).astype(np.uint8)
    told = {
        "task": task or "image-classification",
        "class_names": ("a", "b", "c"),
        "mean": (0.4, 0.5, 0.5),
        "std": (0.3, 0.3, 0.3),
    }
    train = Dataset(name="cases", samples=images, labels=labels, **told)
    return train, Dataset(name="cases-test", samples=images[:10], labels=labels[:10], **told)


def trained(config):
    """Parameters, statistics and losses after all epochs of ``config``."""
    images = data("segmentation" if config.data.task == "segmentation" else "")
    teacher = create_model(config.teacher.name if config.teacher else "resnet14", seed=1, num_classes=3)
    with torch.no_grad():  # answers that differ: correlations of nearly equal ones magnify rounding
        [*teacher.parameters()][-2].mul_(30)
    trainer = prepare(config, Silent(), Parts(data=images, teacher=teacher if config.teacher else None)).trainer
    run_first_stage(trainer, lambda: None)
    events = [trainer.run_epoch(lambda progress: None) for _ in range(config.epochs)]
    found = {name: tensor.clone().contiguous() for name, tensor in trainer.network.state_dict().items()}
    found["evaluated"] = trainer.answer_all(trainer.network, images[1])
    found["losses"] = torch.tensor([event["train_loss"] for event in events], dtype=torch.float64)
    for term in events[0]["terms"]:
        found[f"term {term}"] = torch.tensor([event["terms"][term] for event in events], dtype=torch.float64)
    return found


def main(folder, *names):
    """Writes NAME.safetensors of each case into ``folder``."""
    processes.meet()
    torch.set_num_threads(1)
    cases = configurations()
    for name in names or cases:
        found = trained(cases[name])
        if processes.is_main():
            save_file(found, Path(folder) / f"{name}.safetensors")
    processes.part_company()


if __name__ == "__main__":
    main(*sys.argv[1:])
