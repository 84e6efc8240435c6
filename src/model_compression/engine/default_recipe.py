"""The recipe and the method of a run that names none: chosen by its data, its network and its length."""

import dataclasses
import math
from typing import Any

from model_compression.core.config import MethodConfig, TrainConfig, default_method
from model_compression.core.config_json import GIVEN
from model_compression.core.data_config import DataConfig
from model_compression.core.run_options import with_values
from model_compression.data.dataset import Dataset
from model_compression.data.sources import stated_task
from model_compression.models.base import MODELS, Network
from model_compression.models.external import is_external
from model_compression.tasks import task_of

_SMALL = 64  # pixels: the longest side of images that are shifted; of larger ones a part is cut out
_STEPS = 100  # wanted of an epoch
_SMALLEST, _LARGEST, _LARGEST_OF_PHOTOS = 32, 128, 64  # batches
_VIEWS = 16  # of each image, that a teacher answers: as good as fresh ones, see results/views-20-epochs
_RATES = {"convolutions": 4e-3, "attention": 1e-3, "trained": 5e-4, "trained for texts": 1e-4}  # at the largest batch
_DECAY = 0.02
_LOOKED_AT = 64  # images
_SHIFTED_BY = 8  # the part of the shorter side


def usual_method(data: DataConfig) -> str:
    """The method for ``data``, by their `stated_task`; raises what that raises."""
    return default_method(stated_task(data))


def with_usual_method(config: TrainConfig) -> TrainConfig:
    """``config`` with the `usual_method` for its data."""
    return dataclasses.replace(config, method=MethodConfig(name=usual_method(config.data)))


def presumed(config: TrainConfig) -> TrainConfig:
    """``config`` as far as it is known before the data are read: large images are cut, and thus not held in memory."""
    if "data.augmentation" not in config.left_open or config.data.image_size <= _SMALL:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, augmentation="photo"))


def settle(config: TrainConfig, student: Network, train: Dataset, *, taught: bool) -> TrainConfig:
    """``config`` with a value for each option that it leaves open."""
    chosen = {**_steps(config, student, train), **_views(config, train, taught=taught)}
    settled = with_values(config, {place: value for place, value in chosen.items() if place in config.left_open})
    return dataclasses.replace(settled, left_open=[])  # the rest has no effect on such data


def in_words(config: TrainConfig) -> str:
    """What a run is trained with, in a line."""
    optim, data = config.optim, config.data
    views = f", {data.views} views in turn" if data.views else ""
    return (
        f"{optim.optimizer}, lr {optim.lr:g}, weight decay {optim.weight_decay:g}, schedule {optim.schedule}, "
        f"batch size {config.batch_size}, augmentation {data.augmentation}{views}"
    )


def _steps(config: TrainConfig, student: Network, train: Dataset) -> dict[str, Any]:
    """Optimiser and batch. Rates go with the square root of the batch, as Adam's do (arXiv 2205.10287)."""
    largest = _LARGEST_OF_PHOTOS if train.holds_images and max(train.image_shape[1:]) > _SMALL else _LARGEST
    batch = min(largest, max(_SMALLEST, 2 ** round(math.log2(max(1, len(train) / _STEPS)))))
    if "batch_size" not in config.left_open:
        batch = config.batch_size
    rises = config.optim.warmup_epochs or config.optim.warmup_steps
    return {
        "optim.optimizer": "adamw",
        "optim.lr": float(f"{_RATES[_kind(config, student, train)] * math.sqrt(batch / _LARGEST):.1e}"),
        "optim.weight_decay": _DECAY,
        "optim.schedule": "cosine" if rises else "one_cycle",
        "batch_size": batch,
    }


def _kind(config: TrainConfig, student: Network, train: Dataset) -> str:
    """Which of the rates the student learns at."""
    own = config.student
    names_weights = own.name not in MODELS and not is_external(own.name) and not own.name.startswith(GIVEN)
    if names_weights or own.weights or own.layers or own.options.get("pretrained") or _has_seen_batches(student):
        return "trained" if train.holds_images else "trained for texts"
    attends = any("attention" in type(module).__name__.lower() for module in student.modules())
    return "attention" if attends else "convolutions"


def _has_seen_batches(student: Network) -> bool:
    """Whether a BatchNorm has: a module that is given says nothing else about its weights."""
    counters = (getattr(module, "num_batches_tracked", None) for module in student.modules())
    return any(counter is not None and bool(counter > 0) for counter in counters)


def _views(config: TrainConfig, train: Dataset, *, taught: bool) -> dict[str, Any]:
    """As the task allows; grey images, which may be signs, are not mirrored."""
    if "data.augmentation" not in config.left_open or not train.holds_images or not train.has_ids:
        return {}
    sides, moves = train.image_shape[1:], task_of(train).moves(train)
    shifted = "shift" in moves and min(sides) >= _SHIFTED_BY
    mirrored = "mirror" in moves and not _are_grey(train)
    if mirrored and shifted:
        augmentation = "flip_shift" if max(sides) <= _SMALL else "photo"
    else:
        augmentation = "flip" if mirrored else "shift" if shifted else "none"
    strength = {"photo": {"data.color_jitter": 0.0}, "flip": {}, "none": {}}
    return {
        "data.augmentation": augmentation,
        **strength.get(augmentation, {"data.shift": min(sides) // _SHIFTED_BY}),
        "data.views": _VIEWS if taught and config.epochs > _VIEWS and augmentation != "none" else 0,
    }


def _are_grey(train: Dataset) -> bool:
    images = train.images[:_LOOKED_AT]
    return bool((images == images[:, :1]).all())
