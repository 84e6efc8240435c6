"""What answers for the teacher that a configuration names: live networks, or their stored answers."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import given_values
from model_compression.core.config_values import from_dict
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import answer_settings, setting
from model_compression.core.run_options import options_for
from model_compression.data.batches import Loader, to_tensors
from model_compression.data.dataset import Dataset
from model_compression.data.hold_out import hold_out
from model_compression.data.sources import load_dataset
from model_compression.data.streaming import loader_for
from model_compression.data.tokenizers import TokenizerChoice
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.fingerprint import fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.row_formats import row_bytes, row_format
from model_compression.distillation.teachers.shards import BLOCK
from model_compression.distillation.teachers.store import AnswerStore, store_for
from model_compression.engine.networks import load_teachers
from model_compression.models.prediction import batch_size
from model_compression.tasks import TASKS, task_of

_LARGE_BYTES = 2**30  # of answers to each part of a sample, which nobody expects to be so many
_AUTO_BYTES = 8 * 2**30  # what "auto" stores at most for one run


def load_data(
    config: DataConfig, report: Callable[[str], None], networks: Sequence[str] = ()
) -> tuple[Dataset, Dataset]:
    """(training set, test set) that ``config`` names. Raises UnknownNameError for a task that there is not.

    Texts are cut by the tokenizer that ``config`` names, else by that of the first of ``networks`` that has one.
    """
    if config.task:
        TASKS.get(config.task)
    return load_dataset(
        config.name,
        config.data_dir,
        report,
        config.image_size,
        unlabelled=config.unlabelled,
        resident=config.resident,
        workers=config.workers,
        task=config.task,
        table=config.table,
        mask_folders=config.mask_folders,
        ignore_index=config.ignore_index,
        fit=config.fitting if config.image_size else None,
        crops=config.crops,
        tokens=TokenizerChoice(name=config.tokenizer, max_length=config.max_length, networks=tuple(networks)),
    )


def with_own_cache(config: TrainConfig, name: str) -> TrainConfig:
    """``config`` with a folder ``name`` for its answers in the one that is given: those of one teacher are in each."""
    if config.teacher_cache in ("auto", "off"):
        return config
    return dataclasses.replace(config, teacher_cache=str(Path(config.teacher_cache) / name))


def data_of_teacher(config: TrainConfig) -> DataConfig:
    """The images that the teacher answers: the student's views, or the images as they are."""
    if config.teacher_view == "plain":
        return dataclasses.replace(config.data, augmentation="none", cutout=0, erasing=0.0, mask_tokens=0.0, views=0)
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
    """Whether a run's answers may be stored; where "auto" finds them too many, that is said.

    Raises UsageError when the largest logits are to be stored, and there are no more.
    """
    task = task_of(train_set)
    kept, classes = config.teacher_cache_topk, task.num_outputs(train_set)
    are_classes = task.answer == "categorical" and (task.one_row_each or train_set.has_masks)
    if kept and (kept >= classes or not are_classes):
        what = f"{classes} classes" if are_classes else "answers that are not one class a sample or pixel"
        raise UsageError(
            f"{setting('teacher_cache_topk')} must be below the number of classes, got {kept} for {what}; leave it out "
            "to store all"
        )
    if config.teacher_cache != "auto":
        return True
    views, loader = num_views(config), loader_for(train_set, data_of_teacher(config), live.device)
    logits, embedding = _row_shapes(live, loader, train_set)
    dtype = config.teacher_cache_dtype
    formats = (row_format(logits, dtype, config.teacher_cache_topk), row_format(embedding, dtype))
    size = len(train_set) * views * sum(map(row_bytes, formats))
    if size > _AUTO_BYTES:
        report(
            f"the answers to {views} views would take {size / 2**30:.1f} GiB: the teacher answers live; name a folder "
            f"with {setting('teacher_cache')} to store them, or show fewer {setting('views')}"
        )
    elif size > _LARGE_BYTES and not task.one_row_each:
        remedy = f"{setting('teacher_cache_topk', 3)} stores less" if train_set.has_masks else "show fewer views"
        report(f"the answers to {views} views will take {size / 2**30:.1f} GiB in the cache; {remedy}")
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
    loader = loader_for(train_set, data, live.device)
    return CachedTeacher(live, loader, store, progress, report, _at_once(live, train_set))


def reopen(store: AnswerStore, device: str, report: Callable[[str], None]) -> CachedTeacher:
    """What served the answers in ``store``, built again from where it came.

    Raises ModelCompressionError when teacher or data are gone, CacheMismatchError when they are no longer the same.
    """
    origin, stored = store.origin, store.fingerprint
    try:
        data = from_dict(DataConfig, origin["data"], str(store.folder))
        named = origin.get("teacher_config", {"name": origin["teacher"]})  # stores of before had the name alone
        train_set = _train_set(data, report, named["name"])
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
        live.choose_precision(live.precision, to_tensors(train_set.first(2)), report)
    except (KeyError, TypeError) as error:
        raise ModelCompressionError(f"{store.folder} does not say where its answers came from: {error}") from None
    settings = {name: value for name, value in stored.items() if name in options_for("teacher")}
    store.claim(fingerprint(live, train_set, data, stored["dtype"], **settings), origin)
    loader = loader_for(train_set, data, live.device)
    return CachedTeacher(live, loader, store, lambda done, total: None, report, _at_once(live, train_set))


def _at_once(live: LiveTeacher, train_set: Dataset) -> int:
    """How many samples are answered at once: few photographs on a processor, whose memory is the machine's."""
    return batch_size(train_set, live.models) if live.device.type == "cpu" else BLOCK


def _row_shapes(live: LiveTeacher, loader: Loader, train_set: Dataset) -> tuple[Sequence[int], Sequence[int]]:
    """Of the logits and embeddings that are stored of a sample, (0,) for none; asks the teacher where it must."""
    task = task_of(train_set)
    if not live.embeds and task.one_row_each and task.num_outputs(train_set):
        return [task.num_outputs(train_set)], [0]
    shown = live.answer(loader.batch(torch.arange(min(2, len(loader)), device=live.device), view=0))
    return shown.logits.shape[1:], [0] if shown.embedding is None else shown.embedding.shape[1:]


def _train_set(data: DataConfig, report: Callable[[str], None], teacher: str) -> Dataset:
    """The samples that a run with ``data`` and ``teacher`` trains on."""
    train, _ = load_data(data, report, teacher.split(","))
    for count in filter(None, (data.validation, data.thresholds)):
        train, _ = hold_out(train, count, seed=0)
    return train
