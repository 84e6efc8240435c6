"""What a run needs before its first step: data, networks, teacher and trainer, all checked."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from model_compression.checks.before_run import is_strict, say_findings
from model_compression.checks.networks import ENOUGH, check_answer_kind, check_classes, check_training_mode
from model_compression.core.config import DataConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import config_digest
from model_compression.core.config_values import affecting_result
from model_compression.core.device import choose_device, keep_freed_memory
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.user_code import digests_of_own_code
from model_compression.data.dataset import Dataset, check_pair
from model_compression.data.streaming import loader_for
from model_compression.distillation.objective import create_method
from model_compression.distillation.taps import NO_TAPS, Taps, check_teacher, choose_taps
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.distillation.teachers.live import LiveTeacher, PlainTeacher
from model_compression.engine.contracts import Teacher
from model_compression.engine.mutual import Peers, peer_configs
from model_compression.engine.networks import check_student, check_teachers, given_network, load_student
from model_compression.engine.observer import Observer
from model_compression.engine.optim import check_optimizer
from model_compression.engine.parts import Parts
from model_compression.engine.precision import decide_precisions, teacher_precision, usable_precision
from model_compression.engine.relative_paths import anchor
from model_compression.engine.reused_classifier import with_teachers_classifier
from model_compression.engine.runtime import Runtime
from model_compression.engine.teachers import data_of_teacher
from model_compression.engine.trackers import check_trackers
from model_compression.engine.trainer import Trainer
from model_compression.models.base import Network
from model_compression.models.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What is trained on, and what the student is evaluated on: "test", or "validation" images that are held out."""

    train: Dataset
    evaluation: Dataset
    evaluation_name: str


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
    recorded, config = config, config if folder is None else anchor(config, folder)
    check_names(config, parts)
    device = choose_device(config.device)
    keep_freed_memory(device)
    data = load_run_data(config, parts, observer)
    networks = build_networks(config, parts, data)
    if decide:
        taught = bool(networks.teachers)
        decided = decide_precisions(config, networks.student, data.train, device, observer.message, taught=taught)
        config, recorded = (dataclasses.replace(one, **decided) for one in (config, recorded))
    precision = usable_precision(config, networks.student, data.train, device)
    if precision == torch.float16 and device.type == "cpu":
        observer.message("a processor computes half precision many times slower than bf16 or fp32")
    runtime = Runtime(device=device, precision=precision)
    networks = tap_layers(config, networks, data, observer)
    teacher = build_teacher(config, parts, networks, data, runtime, observer, strict=strict)
    trainer = Trainer(config, networks.student, teacher.answers, data.train, runtime, networks.taps)
    trainer.check_terms()
    own = [networks.student, *networks.teachers, trainer.objective.method]
    code = digests_of_own_code(part for one in own if one is not None for part in one.modules())
    if networks.teachers and len(data.train) < ENOUGH:
        name, count = data.train.name, len(data.train)
        observer.message(f"{name} has {count} images: too few to see whether the teacher knows them")
    return Prepared(config=recorded, data=data, teacher=teacher, trainer=trainer, code=code)


def check_names(config: TrainConfig, parts: Parts) -> None:
    """Raises UsageError for names and values that cannot be, before minutes go into data and teacher."""
    if config.method is not None:
        create_method(config.method)
    check_trackers(config)
    check_optimizer(config.optim)
    if parts.student is None:
        check_student(config.student)
    if config.teacher and parts.teacher is None:
        check_teachers(config.teacher)


def load_run_data(config: TrainConfig, parts: Parts, observer: Observer) -> RunData:
    """The training set, and what the student is evaluated on."""
    train, test = parts.load_data(config.data, observer.message)
    check_pair(train, test)
    if not config.data.validation:
        return RunData(train=train, evaluation=test, evaluation_name="test")
    if not train.labelled:
        raise UsageError(f"{train.name} has no labels: leave {setting('validation')} out, images held out need them")
    train, held_out = parts.hold_out(train, config.data.validation)
    return RunData(train=train, evaluation=held_out, evaluation_name="validation")


def build_networks(config: TrainConfig, parts: Parts, data: RunData) -> RunNetworks:
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
    check_classes("student", student, train)
    if data.evaluation.image_shape != train.image_shape:
        for role, network in (("student", student), *(("teacher", teacher) for teacher in teachers)):
            check_classes(role, network, data.evaluation)
    check_answer_kind("student", student, train)
    check_training_mode("student", student, train, config.batch_size)
    for teacher in teachers:
        check_classes("teacher", teacher, train)
        check_answer_kind("teacher", teacher, train, config.teacher_answers)
    if parts.student is None:
        prepare_fresh(student, config.student, train)
    return RunNetworks(student=student, teachers=teachers)


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
    method, images = create_method(config.method), torch.from_numpy(data.train.images[:2])
    student, teacher = networks.student, networks.teachers[0]
    taps = choose_taps(config.method, method, student, teacher, images, observer.message)
    if taps.student:
        observer.message(f"features that are compared, student = teacher: {taps}")
    if method.reuses_classifier:
        student, taps = with_teachers_classifier(student, teacher, taps, images, config.seed, observer)
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


def build_peers(config: TrainConfig, train: Dataset, runtime: Runtime) -> Iterator[Trainer]:
    """What trains each of the networks that learn beside the student."""
    assert config.method is not None
    if create_method(config.method).needs != {"logits"}:
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


def teacher_answers(live: LiveTeacher, dataset: Dataset) -> Tensor:
    """The teacher's logits (N, …) for all images of ``dataset``, on the CPU."""
    loader = loader_for(dataset, DataConfig(name=dataset.name), live.device)
    return torch.cat([live.answer(batch).logits.cpu() for batch in loader.in_order(view=0, batch_size=500)])
