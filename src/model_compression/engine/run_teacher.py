"""What answers for the teacher in training: live networks, their stored answers, or peers."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_compression.checks.before_run import is_strict, say_findings
from model_compression.checks.networks import check_classes, check_training_mode
from model_compression.core.config import TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.batches import ALL
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.distillation.objective import create_method
from model_compression.distillation.teachers.live import LiveTeacher, PlainTeacher
from model_compression.engine.contracts import Teacher
from model_compression.engine.mutual import Peers, peer_configs
from model_compression.engine.networks import check_student, load_student
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.precision import teacher_precision, usable_precision
from model_compression.engine.run_data import RunData
from model_compression.engine.run_networks import RunNetworks, prepare_fresh
from model_compression.engine.runtime import Runtime
from model_compression.engine.teachers import data_of_teacher
from model_compression.engine.trainer import Trainer
from model_compression.models.prediction import batch_size
from model_compression.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class RunTeacher:
    """What answers for the teacher in training; ``live`` are its networks, ``peers`` those that learn as well."""

    answers: Teacher | None = None
    live: LiveTeacher | None = None
    peers: Peers | None = None


def build_teacher(
    config: TrainConfig,
    parts: Parts,
    networks: RunNetworks,
    data: RunData,
    runtime: Runtime,
    observer: Observer,
    *,
    strict: bool,
) -> RunTeacher:
    """What answers for the teacher: live networks, their stored answers, or peers. Says what is wrong with them."""
    live = None
    if networks.teachers:
        named = config.teacher
        if named is not None and named.options.get("pretrained") is False and not named.weights:
            observer.message(f"the teacher {named.name} has random weights, as its option pretrained says")
        precision = teacher_precision(config, runtime.device)
        live = parts.live_teacher(
            networks.teachers, config, networks.taps, runtime.device, precision, data.train, observer.message
        )
    if live is not None and networks.taps.teacher:
        _check_features(config)
    findings = parts.examine(data.train, data.evaluation, networks.teachers, runtime.device)
    say_findings(findings, observer.message, strict=strict or is_strict())
    if config.peers is not None:
        peers = Peers(build_peers(config, data.train, runtime))
        return RunTeacher(answers=peers, peers=peers)
    if live is None:
        return RunTeacher()
    shown: Teacher = live
    if config.teacher_view == "plain":
        shown = PlainTeacher(live, loader_for(data.train, data_of_teacher(config), runtime.device))
    if config.shard_teacher and runtime.world_size > 1 and config.teacher_cache != "off":
        observer.message("a teacher that is shared out over processes answers live: nothing is stored")
        return RunTeacher(answers=shown, live=live)
    if config.teacher_cache == "off":
        return RunTeacher(answers=shown, live=live)
    if any(finding.subject == "eval mode" and finding.level == "fail" for finding in findings):
        observer.message("the teacher answers live: its answers depend on more than the image, and are not stored")
        return RunTeacher(answers=shown, live=live)
    if networks.taps.teacher:
        observer.message("features are not stored: the teacher answers live")
        return RunTeacher(answers=shown, live=live)
    stored = parts.stored_answers(config, live, data.train, observer)
    return RunTeacher(answers=stored or shown, live=live)


def _check_features(config: TrainConfig) -> None:
    """Raises UsageError for what a method that compares features cannot have."""
    if config.teacher_view == "plain":
        raise UsageError(
            "teacher_view plain is for methods that compare logits or embeddings: maps of another view have "
            "other things in other places"
        )
    if config.teacher_cache_topk and config.teacher_cache != "off" and not config.shard_teacher:
        raise UsageError(
            f"{setting('teacher_cache_topk')} has no effect on a method that compares features, which are not "
            "stored: leave it out"
        )


def build_peers(config: TrainConfig, train: Dataset, runtime: Runtime) -> Iterator[Trainer]:
    """What trains each of the networks that learn beside the student."""
    assert config.method is not None
    method = create_method(config.method)
    if method.needs != {"logits"} or method.uses_inputs:
        raise UsageError(f"peers learn by methods that need logits only, and {config.method.name!r} needs more")
    for own in peer_configs(config):
        check_student(own.student)
        network = load_student(own.student, train, own.seed)
        check_classes(f"peer {own.student.name}", network, train)
        check_training_mode(f"peer {own.student.name}", network, train, config.batch_size)
        prepare_fresh(network, own.student, train)
        if usable_precision(config, network, train, runtime.device) != runtime.precision:
            raise UsageError(f"peer {own.student.name} needs {setting('precision', 'fp32')} for these images")
        yield Trainer(own, network, None, train, runtime)


def teacher_answers(live: LiveTeacher, dataset: Dataset, rows: slice = ALL) -> Tensor:
    """What the task keeps of the teacher's logits for all images of ``dataset``, or ``rows`` of them, on the CPU."""
    keep = task_of(dataset).kept
    loader = loader_for(dataset, DataConfig(name=dataset.name), live.device)
    batches = loader.in_order(view=0, batch_size=batch_size(dataset, live.models), rows=rows)
    return torch.cat([keep(live.answer(batch).logits).cpu() for batch in batches]).contiguous()
