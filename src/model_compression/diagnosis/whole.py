"""All examinations that a plan for a run allows, one after the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

from model_compression.checks.data import examine_data
from model_compression.checks.kernel_faults import kernel_fault
from model_compression.checks.networks import check_classes
from model_compression.checks.teacher import examine_teacher
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, choose_precision
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.finding import Finding
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.data.task_views import EMBEDDING
from model_compression.diagnosis.machine import examine_machine
from model_compression.diagnosis.terms import examine_repetition, examine_terms
from model_compression.distillation.methods import create
from model_compression.engine.fitting import fitted_data, sized_data, taught_by, with_defaults
from model_compression.engine.networks import check_student, check_teachers, load_teachers
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts, names_of_networks
from model_compression.engine.setup import prepare
from model_compression.engine.teachers import load_data
from model_compression.models.copies import place


def examine(
    *,
    student: ModelConfig | None,
    teacher: ModelConfig | None,
    data: DataConfig | None,
    method: MethodConfig,
    device: str,
    runs: Path,
    report: Callable[[str], None],
) -> Iterator[Finding]:
    """Findings on the machine, and on what is given: ``data``, a ``teacher``, and the loss of a ``student``.

    What cannot be loaded is a finding too, and ends what depends on it. Raises UsageError for a name that is not known,
    before anything is looked at.
    """
    chosen = choose_device(device)
    create(method.name, **method.params)
    if student is not None:
        check_student(student)
    if teacher is not None:
        check_teachers(teacher, embeds=data is not None and data.task == EMBEDDING)
    yield from examine_machine(chosen, runs)
    if data is None:
        return
    try:
        networks = [with_defaults(student, pretrained=False)] if student is not None else []
        networks += [taught_by(teacher, data)] if teacher is not None else []
        if networks:
            data = sized_data(data, networks[0], report)
        train, test = load_data(fitted_data(data, networks, report), report, names_of_networks(student, teacher))
    except UsageError:
        raise
    except ModelCompressionError as error:
        yield Finding(area="data", subject="content", level="fail", text=str(error))
        return
    yield from examine_data(train, test)
    try:
        for network in load_teachers(teacher, train) if teacher is not None else ():
            check_classes("teacher", network, train)
            yield from examine_teacher(place(network, chosen), train, test, chosen)
    except ModelCompressionError as error:
        yield Finding(area="teacher", subject="weights", level="fail", text=str(error))
        return
    if student is not None:
        yield from _loss(student, teacher, data, method, device, (train, test))


def _loss(
    student: ModelConfig,
    teacher: ModelConfig | None,
    data: DataConfig,
    method: MethodConfig,
    device: str,
    datasets: tuple[Dataset, Dataset],
) -> Iterator[Finding]:
    """Of the method where there is a teacher or none is needed, else of the labels."""
    taught = teacher is not None or not create(method.name, **method.params).needs_teacher
    config = TrainConfig(
        student=student,
        teacher=teacher,
        method=method if taught else None,
        data=data,
        batch_size=min(128, len(datasets[0])),
        device=device,
        precision="fp32",
        teacher_cache="off",
        allow_weak_teacher=True,  # which has been found above
    )
    try:
        trainer = prepare(config, Silent(), Parts(data=datasets)).trainer
        yield from examine_terms(trainer)
        inputs = to_tensors(datasets[0].first(2))
        if kernel_fault(trainer.device, trainer.student, inputs) is None:  # else a run computes in float32
            trainer.training_step.precision = choose_precision("auto", trainer.device)
        yield examine_repetition(trainer)
    except ModelCompressionError as error:
        yield Finding(area="loss", subject="student", level="fail", text=str(error))
