"""What answers for the teacher that a configuration names: live networks, or their stored answers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from model_compression.core.config import DataConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import given_values
from model_compression.core.config_values import from_dict
from model_compression.core.device import choose_device
from model_compression.core.errors import ModelCompressionError
from model_compression.core.files import user_path
from model_compression.core.options import answer_settings, setting
from model_compression.core.run_options import options_for
from model_compression.data.dataset import Dataset
from model_compression.data.hold_out import hold_out
from model_compression.data.loader import Loader
from model_compression.data.sources import load_dataset
from model_compression.data.streaming import loader_for
from model_compression.distillation.teachers.cache import CachedTeacher, size_estimate
from model_compression.distillation.teachers.fingerprint import fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import AnswerStore, store_for
from model_compression.engine.networks import load_teachers

_AUTO_BYTES = 8 * 2**30  # what "auto" stores at most for one run


def load_data(config: DataConfig, report: Callable[[str], None]) -> tuple[Dataset, Dataset]:
    """(training set, test set) that ``config`` names."""
    return load_dataset(
        config.name,
        config.data_dir,
        report,
        config.image_size,
        unlabelled=config.unlabelled,
        resident=config.resident,
        workers=config.workers,
    )


def with_own_cache(config: TrainConfig, name: str) -> TrainConfig:
    """``config`` with a folder ``name`` for its answers in the one that is given: those of one teacher are in each."""
    if config.teacher_cache in ("auto", "off"):
        return config
    return dataclasses.replace(config, teacher_cache=str(Path(config.teacher_cache) / name))


def data_of_teacher(config: TrainConfig) -> DataConfig:
    """The images that the teacher answers: the student's views, or the images as they are."""
    if config.teacher_view == "plain":
        return dataclasses.replace(config.data, augmentation="none", cutout=0, views=0)
    return config.data


def num_views(config: TrainConfig) -> int:
    """How many views the teacher answers."""
    if not data_of_teacher(config).has_views:
        return 1
    return min(config.data.views or config.epochs, config.epochs)


def check_cache_place(config: TrainConfig) -> None:
    """Raises CacheMismatchError when the folder that is named for the teacher's answers cannot take them."""
    if config.teacher_cache not in ("auto", "off"):
        AnswerStore(user_path(config.teacher_cache)).check_place()


def answers_fit(config: TrainConfig, live: LiveTeacher, train_set: Dataset, report: Callable[[str], None]) -> bool:
    """Whether a run's answers may be stored; where "auto" finds them too many, that is said."""
    if config.teacher_cache != "auto":
        return True
    views, loader = num_views(config), loader_for(train_set, data_of_teacher(config), live.device)
    numbers = _embedding_size(live, loader) + train_set.num_outputs
    size = size_estimate(images=len(train_set), numbers=numbers, views=views, dtype=config.teacher_cache_dtype)
    if size > _AUTO_BYTES:
        report(
            f"the answers to {views} views would take {size / 2**30:.1f} GiB: the teacher answers live; name a folder "
            f"with {setting('teacher_cache')} to store them, or show fewer {setting('views')}"
        )
    return size <= _AUTO_BYTES


def cached_teacher(
    config: TrainConfig,
    live: LiveTeacher,
    train_set: Dataset,
    progress: Callable[[int, int], None],
    report: Callable[[str], None],
) -> CachedTeacher:
    """What stores the teacher's answers where ``config`` says.

    Raises CacheMismatchError when the folder that is named holds other answers.
    """
    assert config.teacher is not None
    data = data_of_teacher(config)
    identity = fingerprint(live, train_set, data, config.teacher_cache_dtype, **answer_settings(config, "teacher"))
    if config.teacher_cache == "auto":
        store = store_for(identity)
    else:
        store = AnswerStore(user_path(config.teacher_cache))
        store.check_place()
    store.claim(
        identity,
        {
            "teacher": config.teacher.name,
            "teacher_config": given_values(config.teacher),
            "data": dataclasses.asdict(data),
        },
    )
    return CachedTeacher(live, loader_for(train_set, data, live.device), store, progress, report)


def reopen(store: AnswerStore, device: str, report: Callable[[str], None]) -> CachedTeacher:
    """What served the answers in ``store``, built again from where it came.

    Raises ModelCompressionError when teacher or data are gone, CacheMismatchError when they are no longer the same.
    """
    origin, stored = store.origin, store.fingerprint
    try:
        data = from_dict(DataConfig, origin["data"], str(store.folder))
        named = origin.get("teacher_config", {"name": origin["teacher"]})  # stores of before had the name alone
        train_set = _train_set(data, report)
        teachers = load_teachers(from_dict(ModelConfig, named, str(store.folder)), train_set)
        precision = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.bfloat16, torch.float16)}
        live = LiveTeacher(
            teachers,
            choose_device(device),
            precision[stored["precision"]],
            stored["tta"],
            embedding=bool(store.views("embedding")),
            answers=stored.get("answers", "logits"),
        )
        live.choose_precision(live.precision, torch.from_numpy(train_set.images[:2]), report)
    except (KeyError, TypeError) as error:
        raise ModelCompressionError(f"{store.folder} does not say where its answers came from: {error}") from None
    settings = {name: value for name, value in stored.items() if name in options_for("teacher")}
    store.claim(fingerprint(live, train_set, data, stored["dtype"], **settings), origin)
    return CachedTeacher(live, loader_for(train_set, data, live.device), store, lambda done, total: None, report)


def _embedding_size(live: LiveTeacher, loader: Loader) -> int:
    """D of the embeddings (B, D) that are stored; 0 where none are."""
    if not live.embeds:
        return 0
    embedding = live.answer(loader.batch(torch.arange(min(2, len(loader)), device=live.device), view=0)).embedding
    assert embedding is not None
    return embedding.shape[1]


def _train_set(data: DataConfig, report: Callable[[str], None]) -> Dataset:
    """The images that a run with ``data`` trains on."""
    train, _ = load_data(data, report)
    return hold_out(train, data.validation, seed=0)[0] if data.validation else train
