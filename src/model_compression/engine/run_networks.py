"""The networks of a run: student and teachers, checked against the data, and the layers that are compared."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from model_compression.checks.networks import check_answer_kind, check_classes
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.finding import Finding
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.distillation.objective import create_method
from model_compression.distillation.taps import NO_TAPS, Taps, check_teacher, choose_taps
from model_compression.engine.networks import given_network, load_student
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.rebuilt import check_rebuilt
from model_compression.engine.reused_classifier import with_teachers_classifier
from model_compression.engine.run_data import RunData
from model_compression.models.base import Network
from model_compression.models.external import is_external
from model_compression.models.preprocessing import Preprocessing
from model_compression.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class RunNetworks:
    """The student that is trained, in its own right or with the teacher's classifier; teachers; layers compared."""

    student: Network
    teachers: list[Network]
    taps: Taps = NO_TAPS


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
    if parts.student is not None or is_external(config.student.name):
        check_rebuilt(student, train, config.seed, observer, given=parts.student is not None)
    return RunNetworks(student=student, teachers=teachers)


def student_findings(student: Network, train: Dataset) -> Iterator[Finding]:
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
