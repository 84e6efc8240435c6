"""What a run needs before its first step: data, networks, teacher and trainer, all checked."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from model_compression.checks.before_run import is_strict, say_findings
from model_compression.checks.networks import ENOUGH, check_training_mode
from model_compression.core import processes
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import config_digest
from model_compression.core.config_values import affecting_result
from model_compression.core.device import choose_device, keep_freed_memory, lacks_bfloat16
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.run_options import decided_as, with_values
from model_compression.core.user_code import digests_of_own_code
from model_compression.data.dataset import Dataset
from model_compression.data.task_views import EMBEDDING
from model_compression.distillation.objective import check_topk, create_method
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.engine.default_recipe import presumed, settle
from model_compression.engine.effects import check_parts_of_batch, without_effect
from model_compression.engine.fitting import fitted_run
from model_compression.engine.micro_batches import batch_norm_in
from model_compression.engine.networks import check_student, check_teachers
from model_compression.engine.observer import Observer
from model_compression.engine.optim import check_optimizer
from model_compression.engine.parts import Parts
from model_compression.engine.precision import decide_precisions, usable_precision
from model_compression.engine.relative_paths import anchor
from model_compression.engine.run_data import RunData, load_run_data
from model_compression.engine.run_networks import build_networks, student_findings, tap_layers
from model_compression.engine.run_teacher import RunTeacher, build_teacher
from model_compression.engine.runtime import choose_runtime
from model_compression.engine.sharding import shard_teacher
from model_compression.engine.trackers import check_trackers
from model_compression.engine.trainer import Trainer
from model_compression.models.recomputing import blocks_to_recompute
from model_compression.tasks import task_of
from model_compression.tasks.class_weights import digest_of_weights, is_file, read_class_weights


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that can begin: all is checked, and nothing is written.

    ``config`` names the precision, and names in it are relative to the run's folder. ``code`` are digests of the user's
    own modules that take part.
    """

    config: TrainConfig
    data: RunData
    teacher: RunTeacher
    trainer: Trainer
    code: dict[str, str]

    @cached_property
    def identity(self) -> dict[str, str]:
        """Digests of what a run must find unchanged to be continued."""
        digests = {
            "config_sha256": config_digest(affecting_result(self.config)),
            **self.data.digests,
            "naming_of_labels_sha256": _digest_of_facts(self.data.train),
        }
        if is_file(self.config.class_weights):
            digests["class_weights_sha256"] = digest_of_weights(self.trainer.config.class_weights)
        live = self.teacher.live
        return digests if live is None else digests | {"teacher_sha256": digest_of(live.models)}


def _digest_of_facts(data: Dataset) -> str:
    """Of names, units and scale, which a file beside the samples may give."""
    return hashlib.sha256(json.dumps(task_of(data).facts(data)).encode()).hexdigest()


def prepare(
    config: TrainConfig,
    observer: Observer,
    parts: Parts,
    folder: Path | None = None,
    *,
    decide: bool = False,
    strict: bool = False,
) -> Prepared:
    """Builds a run's data, networks, teacher and trainer, in this order, and checks each.

    ``folder`` is the run's, where names in ``config`` are relative to it. ``decide`` takes a precision where ``config``
    leaves it open. ``strict`` raises UsageError for what is wrong with data or teacher, which is a line otherwise.
    """
    processes.meet()
    recorded, config = config, config if folder is None else anchor(config, folder)
    check_names(config, parts)
    if parts.data is None:
        said = fitted_run(config, observer.message if decide else None).data.fitting_given
        recorded, config = (with_values(one, said) for one in (recorded, config))
    device = choose_device(config.device)
    keep_freed_memory(device)
    at_first = presumed(config)
    data = load_run_data(at_first, parts, observer)
    networks = build_networks(config, parts, data, observer)
    if config.left_open:
        config = settle(config, networks.student, data.train, taught=bool(networks.teachers))
        recorded = decided_as(recorded, config)
        check_optimizer(config.optim, config.epochs)
        if at_first.data.crops != config.data.crops:
            data = load_run_data(config, parts, observer)
    check_training_mode("student", networks.student, data.train, config.batch_size)
    say_findings(student_findings(networks.student, data.train), observer.message, strict=strict or is_strict())
    if config.checkpoint_activations:
        blocks_to_recompute(networks.student.body, networks.student.name)  # fails before a teacher is examined
    taught = bool(networks.teachers)
    if decide:
        decided = processes.on_main(
            lambda: decide_precisions(config, networks.student, data.train, device, observer.message, taught=taught)
        )
        config, recorded = (dataclasses.replace(one, **decided) for one in (config, recorded))
    precision = usable_precision(config, networks.student, data.train, device)
    _note_slow_numbers(precision, device, config.optim.optimizer, observer)
    runtime = choose_runtime(device, precision)
    check_parts_of_batch(config, data.train, runtime.world_size)
    for line in without_effect(config, data.train, networks.student, runtime.world_size, taught=taught):
        observer.message(line)
    networks = tap_layers(config, networks, data, observer)
    teacher = build_teacher(config, parts, networks, data, runtime, observer, strict=strict)
    trainer = Trainer(config, networks.student, teacher.answers, data.train, runtime, networks.taps)
    trainer.check_terms()
    _note_small_parts(config, trainer, data.train, observer, taught=taught)
    own = [networks.student, *networks.teachers, trainer.objective.method]
    code = digests_of_own_code(part for one in own if one is not None for part in one.modules())
    prepared = Prepared(config=recorded, data=data, teacher=teacher, trainer=trainer, code=code)
    if teacher.live is not None and config.shard_teacher and runtime.world_size > 1:
        assert prepared.identity  # by the whole weights
        shard_teacher(teacher.live)
    return prepared


def _note_slow_numbers(precision: torch.dtype, device: torch.device, optimizer: str, observer: Observer) -> None:
    """Says which numbers of the run ``device`` computes slowly."""
    if precision == torch.float16 and device.type == "cpu":
        observer.message("a processor computes half precision many times slower than bf16 or fp32")
    elif lacks_bfloat16(device) and (precision == torch.bfloat16 or optimizer == "muon"):
        user = setting("precision", "bf16") if precision == torch.bfloat16 else setting("optimizer", "muon")
        observer.message(f"{user}: this processor has no bfloat16 and computes it many times slower than float32")


def _note_small_parts(
    config: TrainConfig, trainer: Trainer, train: Dataset, observer: Observer, *, taught: bool
) -> None:
    """Says what too few samples mean: in a part of a batch for BatchNorm, in all for the check of the teacher."""
    norm = batch_norm_in(trainer.training_step.parts)
    if config.accumulate > 1 and norm is not None:
        count = config.accumulate
        observer.message(f"BatchNorm ({norm}) takes mean and variance of each of the {count} parts of a batch")
    if taught and len(train) < ENOUGH and trainer.task.has_label_loss:
        observer.message(f"{train.name} has {len(train)} {train.noun}: too few to see whether the teacher knows them")


def check_accumulation(config: TrainConfig) -> None:
    """Raises UsageError for a batch that may not go through the networks in parts."""
    if config.accumulate == 1 or config.method is None:
        return
    if config.peers is not None or not create_method(config.method).per_sample:
        what = "peers" if config.peers is not None else f"the method {config.method.name}"
        raise UsageError(
            f"{setting('accumulate')} must be 1 with {what}, which needs whole batches, got {config.accumulate}; take "
            f"a smaller {setting('batch_size')}"
        )


def check_names(config: TrainConfig, parts: Parts) -> None:
    """Raises UsageError for names and values that cannot be, before minutes go into data and teacher."""
    if config.method is not None:
        create_method(config.method)
    check_topk(config)
    check_accumulation(config)
    if config.shard_teacher and config.teacher_cache_topk:
        raise UsageError(
            f"{setting('teacher_cache_topk')} has no effect with {setting('shard_teacher')}, which stores no answers: "
            "leave one of them out"
        )
    if is_file(config.class_weights):
        read_class_weights(config.class_weights)
    check_trackers(config)
    check_optimizer(config.optim, config.epochs)
    if parts.student is None:
        check_student(config.student)
    if config.teacher and parts.teacher is None:
        check_teachers(config.teacher, embeds=config.data.task == EMBEDDING)
