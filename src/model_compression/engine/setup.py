"""What a run needs before its first step: data, networks, teacher and trainer, all checked."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_compression.checks.before_run import is_strict, say_findings
from model_compression.checks.networks import ENOUGH, check_answer_kind, check_classes, check_training_mode
from model_compression.core import processes
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import config_digest
from model_compression.core.config_values import affecting_result
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, keep_freed_memory
from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding
from model_compression.core.options import setting
from model_compression.core.run_options import decided_as, with_values
from model_compression.core.user_code import digests_of_own_code
from model_compression.data.batches import ALL, to_tensors
from model_compression.data.dataset import Dataset, check_pair
from model_compression.data.image_views import view_notes
from model_compression.data.streaming import loader_for
from model_compression.data.task_views import EMBEDDING
from model_compression.distillation.objective import check_topk, create_method
from model_compression.distillation.taps import NO_TAPS, Taps, check_teacher, choose_taps
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.distillation.teachers.live import LiveTeacher, PlainTeacher
from model_compression.engine.contracts import Teacher
from model_compression.engine.default_recipe import presumed, settle
from model_compression.engine.effects import check_parts_of_batch, without_effect
from model_compression.engine.fitting import fitted_run
from model_compression.engine.micro_batches import batch_norm_in
from model_compression.engine.mutual import Peers, peer_configs
from model_compression.engine.networks import check_student, check_teachers, given_network, load_student
from model_compression.engine.observer import Observer
from model_compression.engine.optim import check_optimizer
from model_compression.engine.parts import Parts
from model_compression.engine.precision import decide_precisions, teacher_precision, usable_precision
from model_compression.engine.relative_paths import anchor
from model_compression.engine.reused_classifier import with_teachers_classifier
from model_compression.engine.runtime import Runtime, choose_runtime
from model_compression.engine.sharding import shard_teacher
from model_compression.engine.teachers import data_of_teacher
from model_compression.engine.trackers import check_trackers
from model_compression.engine.trainer import Trainer
from model_compression.models.base import Network
from model_compression.models.prediction import batch_size
from model_compression.models.preprocessing import Preprocessing
from model_compression.tasks import task_of
from model_compression.tasks.class_weights import digest_of_weights, is_file, read_class_weights


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What is trained on, and what the student is evaluated on: "test", or "validation" images that are held out."""

    train: Dataset
    evaluation: Dataset
    evaluation_name: str
    thresholds: Dataset | None = None
    """Training samples that were held out, by which the task is `tuned`."""


@dataclass(frozen=True, kw_only=True)
class RunNetworks:
    """The student that is trained, in its own right or with the teacher's classifier; teachers; layers compared."""

    student: Network
    teachers: list[Network]
    taps: Taps = NO_TAPS


@dataclass(frozen=True, kw_only=True)
class RunTeacher:
    """What answers for the teacher in training; ``live`` are its networks, ``peers`` those that learn as well."""

    answers: Teacher | None = None
    live: LiveTeacher | None = None
    peers: Peers | None = None


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
            "data_sha256": self.data.train.digest,
            "test_data_sha256": self.data.evaluation.digest,
        }
        if is_file(self.config.class_weights):
            digests["class_weights_sha256"] = digest_of_weights(self.trainer.config.class_weights)
        live = self.teacher.live
        return digests if live is None else digests | {"teacher_sha256": digest_of(live.models)}


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
    say_findings(_student_findings(networks.student, data.train), observer.message, strict=strict or is_strict())
    taught = bool(networks.teachers)
    if decide:
        decided = processes.on_main(
            lambda: decide_precisions(config, networks.student, data.train, device, observer.message, taught=taught)
        )
        config, recorded = (dataclasses.replace(one, **decided) for one in (config, recorded))
    precision = usable_precision(config, networks.student, data.train, device)
    if precision == torch.float16 and device.type == "cpu":
        observer.message("a processor computes half precision many times slower than bf16 or fp32")
    runtime = choose_runtime(device, precision)
    check_parts_of_batch(config, data.train, runtime.world_size)
    for line in without_effect(config, data.train, networks.student, runtime.world_size, taught=taught):
        observer.message(line)
    networks = tap_layers(config, networks, data, observer)
    teacher = build_teacher(config, parts, networks, data, runtime, observer, strict=strict)
    trainer = Trainer(config, networks.student, teacher.answers, data.train, runtime, networks.taps)
    trainer.check_terms()
    if config.accumulate > 1 and (norm := batch_norm_in(trainer.training_step.parts)) is not None:
        count = config.accumulate
        observer.message(f"BatchNorm ({norm}) takes mean and variance of each of the {count} parts of a batch")
    own = [networks.student, *networks.teachers, trainer.objective.method]
    code = digests_of_own_code(part for one in own if one is not None for part in one.modules())
    if networks.teachers and len(data.train) < ENOUGH and trainer.task.has_label_loss:
        name, count = data.train.name, len(data.train)
        observer.message(f"{name} has {count} {data.train.noun}: too few to see whether the teacher knows them")
    prepared = Prepared(config=recorded, data=data, teacher=teacher, trainer=trainer, code=code)
    if teacher.live is not None and config.shard_teacher and runtime.world_size > 1:
        assert prepared.identity  # by the whole weights
        shard_teacher(teacher.live)
    return prepared


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


def load_run_data(config: TrainConfig, parts: Parts, observer: Observer) -> RunData:
    """The training set, and what the student is evaluated on."""
    train, test = parts.load_data(config, observer.message)
    check_pair(train, test)
    if train.holds_images:
        for line in view_notes(config.data, train.image_shape[0]):
            observer.message(line)
    if processes.world_size() > 1 and not train.has_ids:
        raise UsageError(
            f"a DataLoader gives each of {processes.world_size()} processes another order: give arrays, a dataset, or "
            "the name of one"
        )
    data = RunData(train=train, evaluation=test, evaluation_name="test")
    for name in ("validation", "thresholds"):
        count = getattr(config.data, name)
        if not count:
            continue
        if not train.labelled and task_of(train).has_label_loss:
            raise UsageError(f"{train.name} has no labels: leave {setting(name)} out, images held out need them")
        if name == "thresholds" and not task_of(train).finds_thresholds:
            raise UsageError(f"{setting(name)} has no effect on the task {train.task!r}; leave it out")
        train, held_out = parts.hold_out(data.train, count, name)
        data = dataclasses.replace(data, train=train, **_held_out(name, held_out))
    return data


def _held_out(name: str, dataset: Dataset) -> dict[str, Any]:
    """The fields of `RunData` for samples that are held out for "validation" or "thresholds"."""
    return {"evaluation": dataset, "evaluation_name": name} if name == "validation" else {"thresholds": dataset}


def build_networks(config: TrainConfig, parts: Parts, data: RunData, observer: Observer) -> RunNetworks:
    """Student and teachers, checked against the data."""
    train = data.train
    teachers = parts.load_teachers(config.teacher, train)
    if parts.student is not None:
        student: Network = given_network(parts.student, train, config.seed)
    else:
        student = load_student(config.student, train, config.seed)
    if not train.has_ids:
        for network in (student, *teachers):  # whatever it was: the batches are taken as they are
            network.preprocessing = Preprocessing(mean=train.mean, std=train.std)
    if student.fresh:
        layers = sorted({name.rpartition(".")[0].removeprefix("module.") for name in student.fresh})
        observer.message(f"the student's weights hold no fitting {', '.join(layers)}: what classifies starts afresh")
    check_classes("student", student, train)
    if train.holds_images and data.evaluation.image_shape != train.image_shape:
        for role, network in (("student", student), *(("teacher", teacher) for teacher in teachers)):
            check_classes(role, network, data.evaluation)
    check_answer_kind("student", student, train)
    for teacher in teachers:
        check_classes("teacher", teacher, train)
        check_answer_kind("teacher", teacher, train, config.teacher_answers)
    if parts.student is None:
        prepare_fresh(student, config.student, train)
    return RunNetworks(student=student, teachers=teachers)


def _student_findings(student: Network, train: Dataset) -> Iterator[Finding]:
    """Whether weights that the student begins with learned other classes."""
    for line in task_of(train).differences(student, train):
        remedy = "the student begins with these weights, and its last layer has to learn the data's classes anew"
        yield Finding(area="student", subject="class names", level="warn", text=line, remedy=remedy)


def prepare_fresh(network: Network, config: ModelConfig, train: Dataset) -> None:
    """Gives a fresh network what it computes from the training images."""
    if network.num_prepared and not (network.declares_preprocessing or config.weights):
        stride = max(1, len(train) // network.num_prepared)
        network.prepare(torch.from_numpy(train.images[::stride]))


def tap_layers(config: TrainConfig, networks: RunNetworks, data: RunData, observer: Observer) -> RunNetworks:
    """The networks with the layers that the method compares; its student may end in the teacher's classifier."""
    if config.method is not None:
        check_teacher(config.method, given=bool(networks.teachers) or config.peers is not None)
    if not networks.teachers:
        return networks
    assert config.method is not None
    method, inputs = create_method(config.method), to_tensors(data.train.first(2))
    student, teacher = networks.student, networks.teachers[0]
    taps = choose_taps(config.method, method, student, teacher, inputs, observer.message)
    if task_of(data.train).answer == "embedding":  # the answer is the embedding
        taps = dataclasses.replace(taps, embedding=False)
    if taps.student:
        observer.message(f"features that are compared, student = teacher: {taps}")
    if method.reuses_classifier:
        student, taps = with_teachers_classifier(student, teacher, taps, inputs, config.seed, observer)
    return RunNetworks(student=student, teachers=networks.teachers, taps=taps)


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
    findings = parts.examine(data.train, data.evaluation, networks.teachers, runtime.device)
    say_findings(findings, observer.message, strict=strict or is_strict())
    if config.peers is not None:
        peers = Peers(build_peers(config, data.train, runtime))
        return RunTeacher(answers=peers, peers=peers)
    if live is None:
        return RunTeacher()
    shown: Teacher = live
    if config.teacher_view == "plain":
        if networks.taps.teacher:
            raise UsageError(
                "teacher_view plain is for methods that compare logits or embeddings: maps of another view have "
                "other things in other places"
            )
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
        if config.teacher_cache_topk:
            raise UsageError(
                f"{setting('teacher_cache_topk')} has no effect on a method that compares features, which are not "
                "stored: leave it out"
            )
        observer.message("features are not stored: the teacher answers live")
        return RunTeacher(answers=shown, live=live)
    stored = parts.stored_answers(config, live, data.train, observer)
    return RunTeacher(answers=stored or shown, live=live)


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
    batches = loader.in_order(view=0, batch_size=batch_size(dataset), rows=rows)
    return torch.cat([keep(live.answer(batch).logits).cpu() for batch in batches]).contiguous()
