"""What a run needs before its first step: data, networks, teacher and trainer, all checked."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_compression.checks.before_run import is_strict, say_findings
from model_compression.checks.kernel_faults import kernel_fault
from model_compression.checks.networks import ENOUGH, check_answer_kind, check_classes, check_training_mode
from model_compression.core.config import UNDECIDED, DataConfig, ModelConfig, TrainConfig, config_digest
from model_compression.core.config_values import affecting_result
from model_compression.core.device import choose_device, choose_precision, keep_freed_memory, precision_name
from model_compression.core.errors import UsageError
from model_compression.core.user_code import digests_of_own_code
from model_compression.data.dataset import check_pair
from model_compression.data.opaque import OpaqueImages
from model_compression.data.streaming import loader_for
from model_compression.distillation.objective import create_method
from model_compression.distillation.taps import NO_TAPS, Taps, check_teacher, choose_taps
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.distillation.teachers.live import LiveTeacher, PlainTeacher
from model_compression.engine.measured_precision import FEWEST_STEPS, fastest_precision
from model_compression.engine.mutual import Peers, peer_configs
from model_compression.engine.networks import check_student, check_teachers, given_network, load_student
from model_compression.engine.observer import Observer
from model_compression.engine.optim import check_optimizer
from model_compression.engine.parts import Parts
from model_compression.engine.relative_paths import anchored
from model_compression.engine.reused_classifier import with_teachers_classifier
from model_compression.engine.roles import Teacher
from model_compression.engine.runtime import Runtime
from model_compression.engine.teachers import answered_data, cached_teacher
from model_compression.engine.trackers import check_trackers
from model_compression.engine.trainer import Trainer
from model_compression.models.base import Network
from model_compression.models.preprocessing import Preprocessing
from model_compression.tasks import task_of


def _teacher_precision(config: TrainConfig) -> str:
    return config.precision if config.teacher_precision == "auto" else config.teacher_precision


class Prepared:
    """Data, networks and trainer of a run, all checked before anything is written.

    ``folder`` is the run's, where names in ``config`` are relative to it. ``decide`` takes a precision where ``config``
    leaves it open; `config` then names it. ``strict`` raises UsageError for what is wrong with data or teacher, which
    is a line otherwise.
    """

    def __init__(
        self,
        config: TrainConfig,
        observer: Observer,
        parts: Parts,
        folder: Path | None = None,
        *,
        decide: bool = False,
        strict: bool = False,
    ):
        self.config = config  # with names that a folder keeps when it is moved
        config = config if folder is None else anchored(config, folder)
        if config.method is not None:
            create_method(config.method)  # names and values, before minutes go into data and teacher
        check_trackers(config)
        check_optimizer(config.optim)
        self.device = choose_device(config.device)
        keep_freed_memory(self.device)
        if parts.student is None:
            check_student(config.student)
        if config.teacher and parts.teacher is None:
            check_teachers(config.teacher)
        full_train, test = parts.load_data(config.data, observer.message)
        check_pair(full_train, test)
        self.train_set, self.eval_set, self.eval_name = full_train, test, "test"
        if config.data.validation and not full_train.labelled:
            raise UsageError(f"{full_train.name} has no labels: leave --validation out, images held out need them")
        if config.data.validation:
            self.train_set, self.eval_set = parts.hold_out(full_train, config.data.validation)
            self.eval_name = "validation"
        normalised = Preprocessing(mean=full_train.mean, std=full_train.std)
        teachers = parts.load_teachers(config.teacher, self.train_set)
        if parts.student is not None:
            student: Network = given_network(parts.student, full_train, config.seed)
        else:
            student = load_student(config.student, self.train_set, config.seed)
        if isinstance(full_train.images, OpaqueImages):
            for network in (student, *teachers):
                network.preprocessing = normalised  # whatever it was: the batches are taken as they are
        check_classes("student", student, self.train_set)
        if self.eval_set.image_shape != self.train_set.image_shape:
            for role, network in (("student", student), *(("teacher", teacher) for teacher in teachers)):
                check_classes(role, network, self.eval_set)
        self.task = task_of(self.train_set)
        check_answer_kind("student", student, self.train_set)
        check_training_mode("student", student, self.train_set, config.batch_size)
        for teacher in teachers:
            check_classes("teacher", teacher, self.train_set)
            check_answer_kind("teacher", teacher, self.train_set, config.teacher_answers)
        if parts.student is None:
            self._prepare(student, config.student)
        if decide:
            decided = self._decided(config, student, bool(teachers), observer)
            config, self.config = (dataclasses.replace(one, **decided) for one in (config, self.config))
        self.precision = choose_precision(config.precision, self.device)
        self.precision = self._right_precision(config, student)
        if self.precision == torch.float16 and self.device.type == "cpu":
            observer.message("a processor computes half precision many times slower than bf16 or fp32")
        taps = NO_TAPS
        self.live: LiveTeacher | None = None
        if config.method is not None:
            check_teacher(config.method, given=bool(teachers) or config.peers is not None)
        if teachers:
            student, taps = self._taps(config, student, teachers[0], observer)
            precision = choose_precision(_teacher_precision(config), self.device)
            self.live = parts.live_teacher(
                teachers, config, taps, self.device, precision, self.train_set, observer.message
            )
        self._findings = parts.examine(self.train_set, self.eval_set, teachers, self.device)
        say_findings(self._findings, observer.message, strict=strict or is_strict())
        self.between_answers: Callable[[], None] = lambda: None  # while they are stored, which can take minutes
        self.peers = Peers(self._peers(config, observer)) if config.peers is not None else None
        answers = self.peers or self._teacher(config, taps, observer)
        runtime = Runtime(device=self.device, precision=self.precision)
        self.trainer = Trainer(config, student, answers, self.train_set, runtime, taps)
        self.trainer.check_terms()
        parts_in_code = [student, *teachers, self.trainer.objective.method]
        self.code = digests_of_own_code(part for one in parts_in_code if one is not None for part in one.modules())
        if teachers and len(self.train_set) < ENOUGH:
            name, count = self.train_set.name, len(self.train_set)
            observer.message(f"{name} has {count} images: too few to see whether the teacher knows them")

    def _decided(self, config: TrainConfig, student: Network, taught: bool, observer: Observer) -> dict[str, Any]:
        """The precisions of student and teacher, as ``config`` names them, where it leaves them open."""
        if config.precision not in UNDECIDED:
            return {}
        fault = kernel_fault(self.device, student, torch.from_numpy(self.train_set.images[:2]))
        if fault is not None:
            observer.message(f"{fault}: this run computes in float32")
            return {"precision": "fp32"}
        native = precision_name(choose_precision("native", self.device))
        steps = math.ceil(len(self.train_set) / config.batch_size) * config.epochs
        if config.precision == "native" or steps < FEWEST_STEPS:
            return {"precision": native}
        image = torch.from_numpy(self.train_set.images[:1])
        taken = fastest_precision(student, image, config.batch_size, config.optim, self.device, observer.message)
        if taught and config.teacher_precision == "auto" and taken != native:
            return {"precision": taken, "teacher_precision": native}
        return {"precision": taken}

    def _right_precision(self, config: TrainConfig, network: Network) -> torch.dtype:
        """The precision, or float32 where that is left open and a kernel is wrong for ``network``."""
        if self.precision != torch.bfloat16:
            return self.precision
        fault = kernel_fault(self.device, network, torch.from_numpy(self.train_set.images[:2]))
        if fault is not None and config.precision not in UNDECIDED:
            raise UsageError(f"{fault}: give --precision fp32, or larger images")
        return self.precision if fault is None else torch.float32

    def _taps(
        self, config: TrainConfig, student: Network, teacher: Network, observer: Observer
    ) -> tuple[Network, Taps]:
        """What is tapped, and the student that is trained, which ends in the teacher's classifier for some methods."""
        assert config.method is not None
        method, images = create_method(config.method), torch.from_numpy(self.train_set.images[:2])
        taps = choose_taps(config.method, method, student, teacher, images, observer.message)
        if taps.student:
            observer.message(f"features that are compared, student = teacher: {taps}")
        if not method.reuses_classifier:
            return student, taps
        return with_teachers_classifier(student, teacher, taps, images, config.seed, observer)

    def _prepare(self, network: Network, config: ModelConfig) -> None:
        """Gives a fresh network what it computes from the training images."""
        if network.num_prepared and not (network.declares_preprocessing or config.weights):
            stride = max(1, len(self.train_set) // network.num_prepared)
            network.prepare(torch.from_numpy(self.train_set.images[::stride]))

    def _peers(self, config: TrainConfig, observer: Observer) -> Iterator[Trainer]:
        """What trains each of the networks that learn beside the student."""
        assert config.method is not None
        if create_method(config.method).needs != {"logits"}:
            raise UsageError(f"peers learn by methods that need logits only, and {config.method.name!r} needs more")
        for own in peer_configs(config):
            check_student(own.student)
            network = load_student(own.student, self.train_set, own.seed)
            check_classes(f"peer {own.student.name}", network, self.train_set)
            check_training_mode(f"peer {own.student.name}", network, self.train_set, config.batch_size)
            self._prepare(network, own.student)
            if self._right_precision(config, network) != self.precision:
                raise UsageError(f"peer {own.student.name} needs --precision fp32 for these images")
            yield Trainer(own, network, None, self.train_set, Runtime(device=self.device, precision=self.precision))

    def _teacher(self, config: TrainConfig, taps: Taps, observer: Observer) -> Teacher | None:
        if self.live is None:
            return None
        live: Teacher = self.live
        if config.teacher_view == "plain":
            if taps.teacher:
                raise UsageError(
                    "teacher_view plain is for methods that compare logits or embeddings: maps of another view have "
                    "other things in other places"
                )
            live = PlainTeacher(self.live, loader_for(self.train_set, answered_data(config), self.device))
        if config.teacher_cache == "off":
            return live
        if any(finding.subject == "eval mode" and finding.level == "fail" for finding in self._findings):
            observer.message("the teacher answers live: its answers depend on more than the image, and are not stored")
            return live
        if taps.teacher:
            observer.message("features are not stored: the teacher answers live")
            return live

        def progress(done: int, total: int) -> None:
            observer.teacher_answered(done, total)
            self.between_answers()

        return cached_teacher(config, self.live, self.train_set, progress, observer.message) or live

    @cached_property
    def identity(self) -> dict[str, str]:
        """Digests of what a run must find unchanged to be continued."""
        digests = {
            "config_sha256": config_digest(affecting_result(self.config)),
            "data_sha256": self.train_set.digest,
            "test_data_sha256": self.eval_set.digest,
        }
        return digests if self.live is None else digests | {"teacher_sha256": digest_of(self.live.models)}

    def teacher_answers(self) -> Tensor:
        """The teacher's logits (N, K) for the images that the student is evaluated on, on the CPU."""
        assert self.live is not None
        loader = loader_for(self.eval_set, DataConfig(name=self.eval_set.name), self.device)
        batches = loader.in_order(view=0, batch_size=500)
        return torch.cat([self.live.answer(batch).logits.cpu() for batch in batches])
