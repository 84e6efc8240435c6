"""Options of a run that change nothing beside the others, on these data or in this student: each is a line, or refused.

What an option needs of other options is in its metadata, see `core.options`; here is also what it needs of the rest.
"""

from collections.abc import Iterator

from torch import nn

from model_compression.core.config import TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.run_options import OPTIONS, changed_options, lacks
from model_compression.data.dataset import Dataset
from model_compression.distillation.objective import create_method
from model_compression.engine.micro_batches import batch_norm_in
from model_compression.engine.optim import falls_at, has_biases_of_norms

_OF_MASKS = ("mask_folders", "ignore_index")
_OF_TEXTS = ("tokenizer", "max_length")
_OF_STORES = ("teacher_cache_dtype", "teacher_cache_topk")


def check_parts_of_batch(config: TrainConfig, train: Dataset, world_size: int) -> None:
    """Raises UsageError for more parts than a batch has samples in one process."""
    most = -(-min(config.batch_size, len(train)) // world_size)
    if config.accumulate > most:
        each = f" in each of {world_size} processes" if world_size > 1 else ""
        raise UsageError(
            f"{setting('accumulate')} must be at most {most}, the samples of a batch{each}, got {config.accumulate}"
        )


def without_effect(
    config: TrainConfig, train: Dataset, student: nn.Module, world_size: int, *, taught: bool
) -> Iterator[str]:
    """A line for each option that is set and does nothing, or less than it says, with what it needs."""
    changed = set(changed_options(config))
    reasons = {place: f"it needs {lacks(config, place)}" for place in changed if lacks(config, place)}
    if not train.has_masks:
        reasons |= {f"data.{name}": f"{train.name} has no masks" for name in _OF_MASKS}
    if train.noun != "texts":
        reasons |= {f"data.{name}": f"{train.name} has {train.noun}, no texts" for name in _OF_TEXTS}
    if config.method is not None and not taught and config.peers is None:
        reasons |= {place: "there is no teacher" for place, said in OPTIONS.items() if said.of == "teacher"}
    elif taught and config.teacher_cache == "off":
        reasons |= {name: f"{setting('teacher_cache', 'off')} stores no answers" for name in _OF_STORES}
    if config.method is not None and not create_method(config.method).has_first_stage:
        reasons["method.first_stage_epochs"] = f"the method {config.method.name} has no stage before training"
    if config.optim.schedule == "step" and falls_at(config.optim, config.epochs) is None:
        reasons["optim.schedule"] = f"no epoch of {config.epochs} begins at {config.optim.step_at:g} of them"
    if not has_biases_of_norms(student):
        reasons["optim.bias_lr_scale"] = "the student has no normalisation layers with biases"
    if world_size == 1:
        reasons |= dict.fromkeys(("sync_batchnorm", "shard_teacher"), "there is one process")
    elif batch_norm_in(nn.ModuleList([student])) is None:
        reasons["sync_batchnorm"] = "the student has no BatchNorm"
    for name in ("evaluate_every", "keep_every"):
        if getattr(config, name) > config.epochs:
            reasons[name] = f"there are {config.epochs} epochs"
    if "batch_size" in changed and config.batch_size > len(train):
        size, count = setting("batch_size", config.batch_size), f"{len(train):,} {train.noun}"
        yield f"{size} is above the {count} of {train.name}: an epoch is one step of all of them"
    for place in OPTIONS:
        if place in changed and place in reasons:
            name = setting(place.rpartition(".")[2], flag=OPTIONS[place].flag)
            yield f"{name} has no effect here: {reasons[place]}"
