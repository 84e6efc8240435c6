"""The trainer: one loop for labels and for every distillation method, resumable to the bit from any step."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model_compression.checks.data_needs import check_data_needs
from model_compression.core.config import TrainConfig
from model_compression.core.counter_random import derived_seed
from model_compression.core.device import choose_compile
from model_compression.core.errors import NumericalError, UsageError
from model_compression.core.options import setting
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.distillation.methods import Context
from model_compression.distillation.methods.contract import LABEL
from model_compression.distillation.objective import Objective, create_method
from model_compression.distillation.step import Learned, Step
from model_compression.distillation.taps import NO_TAPS, Taps
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.contracts import LearningTeacher, Progress, Teacher
from model_compression.engine.epoch_sums import EpochSums
from model_compression.engine.frozen_layers import frozen_first
from model_compression.engine.gradients import Gradients
from model_compression.engine.guard import Guard
from model_compression.engine.micro_batches import batch_obstacle, learn_in_less_memory, split
from model_compression.engine.optim import build_optimizer, rate_at, rate_factors, set_rate
from model_compression.engine.runtime import Runtime
from model_compression.models.base import Network
from model_compression.models.copies import place
from model_compression.models.eval_mode import evaluating
from model_compression.models.features import Tapped
from model_compression.models.prediction import predict
from model_compression.models.recomputing import blocks_to_recompute
from model_compression.tasks import task_of

_CHECK_EVERY = 50  # steps between looks for NaN where a look waits for the device
_METHOD_STREAM = 2  # keeps the numbers of methods apart from those of orders and steps


class Trainer:
    """Trains ``student`` as ``config`` says; `trainer_state` carries everything that the next step depends on."""

    def __init__(
        self,
        config: TrainConfig,
        student: Network,
        teacher: Teacher | None,
        train_set: Dataset,
        runtime: Runtime,
        taps: Taps = NO_TAPS,
    ):
        self.config, self.runtime, self.device = config, runtime, runtime.device
        self.task = task_of(train_set).learning(config, train_set)
        self.loader = loader_for(train_set, config.data, self.device)
        self.teacher = teacher
        self.peers = teacher if isinstance(teacher, LearningTeacher) else None
        self.student = place(student, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=runtime.precision == torch.float16)
        self.average: AveragedModel | None = None
        if config.ema:
            average = get_ema_multi_avg_fn(config.ema)
            self.average = AveragedModel(self.student, multi_avg_fn=average, use_buffers=True)
        tapped: Tapped | None = None
        if taps:
            answer_of = self.student.answer_of
            tapped = Tapped(self.student.body, taps.student, embedding=taps.embedding, answer_of=answer_of)
        self.steps_per_epoch = self.loader.steps(config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        plain = tapped is None and not config.checkpoint_activations
        self.compiled = choose_compile(config.compile, self.device, self.total_steps) and plain
        if config.compile == "on" and not plain:
            raise UsageError(
                f"{setting('compile', 'on')} serves methods that need logits only, and keeps activations; use "
                f"{setting('compile', 'off')}"
            )
        objective = self._objective(tapped, taps, self.task.num_outputs(train_set))
        check_data_needs(objective, train_set, config.data)
        self.training_step = Step(
            self.student,
            objective,
            self.task,
            self.device,
            runtime.precision,
            tapped=tapped,
            compiled=self.compiled,
            labelled=train_set.labelled,
            watches_teacher=config.teacher is not None,
            gather=runtime.gather if runtime.world_size > 1 else None,
            around=runtime.synchronized if config.sync_batchnorm else lambda total: nullcontext(),
            recompute=blocks_to_recompute(student.body, student.name) if config.checkpoint_activations else (),
        )
        self._frozen = frozen_first(self.student, config.optim.freeze_epochs, train_set.num_outputs, objective)
        factors = rate_factors(self.student, config.optim, train_set.num_outputs)
        self.optimizer = build_optimizer(self.training_step.parts, config.optim, factors)
        self.gradients = Gradients(self.training_step, runtime, self.task, config.seed, self.scaler, self._sample_loss)
        self.step, self.lr = 0, config.optim.lr
        self.sums = EpochSums(self.device)
        self._weights = {LABEL: objective.label_weight, **objective.weights}
        self.guard = Guard(self._weights, config.optim.lr, self.device)
        self.micro_batch: int | None = None  # samples that go through the networks at once; None: the whole batch
        self.report: Callable[[str], None] = lambda message: None

    def _objective(self, tapped: Tapped | None, taps: Taps, num_outputs: int) -> Objective:
        """The loss of a step, with projectors that the seed draws."""
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(config.seed, _METHOD_STREAM))
            uses_inputs = config.method is not None and create_method(config.method).uses_inputs
            by_sample = tapped is not None or uses_inputs or (self.teacher is not None and not num_outputs)
            shapes = self._shapes(tapped, taps) if by_sample else None
            return Objective(config, self.task, len(self.loader), num_outputs, shapes)

    @property
    def objective(self) -> Objective:
        """The loss of a step."""
        return self.training_step.objective

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def network(self) -> Network:
        """What is evaluated and saved: the student, or the average of its weights."""
        if self.average is None:
            return self.student
        assert isinstance(self.average.module, Network)
        return self.average.module

    def run_epoch(self, watch: Callable[[Progress], None]) -> dict[str, Any]:
        """Trains to the end of the current epoch; returns its event. ``watch`` is called after each step."""
        epoch, first = self.epoch, self.step % self.steps_per_epoch
        self._freeze(epoch < self.config.optim.freeze_epochs)
        batches = self.loader.epoch(
            epoch=epoch, seed=self.config.seed, batch_size=self.config.batch_size, first=first, part=self.runtime.part
        )
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for batch in batches:
                self._train_step(batch, epoch)
                watch(self._progress(epoch))
        self.runtime.share(buffer for part in (self.training_step, self.average) if part for buffer in part.buffers())
        event = self._epoch_event(epoch)
        self.sums = EpochSums(self.device)
        return event

    def _freeze(self, frozen: bool) -> None:
        """The student as it trains, with the layers below its last one as they are while these are ``frozen``."""
        self.student.train(not frozen)
        if any(parameter.requires_grad == frozen for parameter in self._frozen):
            for parameter in self._frozen:
                parameter.requires_grad_(not frozen)
            self.gradients.wrap_anew()

    def _shapes(self, tapped: Tapped | None, taps: Taps) -> dict[str, Any]:
        """What student and teacher answer to one image, for a method that needs more than logits."""
        _, student, teacher = self._sample(tapped)
        assert teacher is not None
        student, teacher = self.task.outputs(student), self.task.outputs(teacher)
        taught = teacher.shapes()
        if taps.norms:
            named = zip(taught["features"], taps.norms, strict=True)
            taught["batch_norm"] = {name: norm for name, norm in named if norm is not None}
        return {"student": student.shapes(), "teacher": taught, "parts": taps.parts}

    def _sample(self, tapped: Tapped | None, *, taught: bool = True) -> tuple[Batch, Outputs, Outputs | None]:
        """Two samples, and what student and teacher answer to them; nothing is stored, and nothing compiled."""
        batch = self.loader.batch(torch.arange(2, device=self.device), view=0)
        inputs = self.student.preprocessing(batch.inputs)
        with evaluating(self.student), torch.no_grad():
            student = Outputs(logits=self.student(inputs)) if tapped is None else tapped(inputs)
        if isinstance(inputs, Tensor):
            student = dataclasses.replace(student, inputs=inputs)
        teacher = self.teacher.live if isinstance(self.teacher, CachedTeacher) else self.teacher
        return batch, student, None if teacher is None or not taught else teacher.answer(batch)

    def check_terms(self) -> None:
        """Raises UsageError unless the method can compare what student and teacher answer."""
        if self.objective.method is not None and self.peers is None:
            batch, student, teacher = self._sample(self.training_step.tapped)
            self.objective.check(student, teacher, batch)

    def _train_step(self, batch: Batch, epoch: int) -> None:
        longest = self.runtime.longest(batch.num_global)
        size = min(self.micro_batch or longest, -(-longest // self.config.accumulate))
        context, done = self._context(batch, epoch)

        def attempt(parts: Sequence[Batch]) -> Learned | None:
            return self.gradients.attempt(parts, self.teacher, context, done)

        learned = attempt(split(batch, longest, size))
        if learned is None:
            obstacle = self._batch_obstacle()
            learned, self.micro_batch = learn_in_less_memory(attempt, batch, longest, size, obstacle, self.report)
        self._update(learned, batch)
        if self.peers is not None:
            self.peers.learn(batch, epoch, Outputs(logits=learned.logits))

    def _sample_loss(self, step: nn.Module) -> Tensor:
        """The loss of two images, as ``step`` computes it."""
        batch, student, teacher = self._sample(self.training_step.tapped, taught=self.peers is None)
        if teacher is None and self.objective.method is not None:
            teacher = student
        context = Context(ids=batch.ids, epoch=0, step=0, seed=self.config.seed)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            loss: Tensor = step(batch, teacher, context, 1.0)[0]
        return loss

    def _context(self, batch: Batch, epoch: int) -> tuple[Context, float]:
        """Where in the run ``batch`` is, and the share of the steps that are done with it."""
        context = Context(ids=batch.ids, epoch=epoch, step=self.step, seed=self.config.seed)
        return context, (self.step + 1) / self.total_steps

    def answer(self, batch: Batch) -> Outputs:
        """The student's outputs for a batch that it trains on, with gradient; logits in float32."""
        self.gradients.wrapped()  # before: it may write to the weights
        return self.training_step.answer(batch)

    def learn(self, batch: Batch, epoch: int, student: Outputs, teacher: Outputs | None) -> None:
        """A step on what `answer` gave for the batch."""
        self.optimizer.zero_grad(set_to_none=True)
        self._update(self.gradients.of_answers(batch, student, teacher, *self._context(batch, epoch)), batch)

    def _update(self, learned: Learned, batch: Batch) -> None:
        """A step of the optimiser on the gradients that are there."""
        learned = self.gradients.of_all(learned, batch, list(self._weights))
        set_rate(self.optimizer, self._rate(self.step))
        if self.config.optim.clip_grad_norm:
            self.gradients.clip(self.optimizer, self.config.optim.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.student)
        self.step += 1
        self.sums.add(learned)
        self.guard.watch(self.step, learned.loss, learned.terms, learned.inputs)
        if self.device.type == "cpu" or self.step % _CHECK_EVERY == 0:
            self.guard.check()

    def _epoch_event(self, epoch: int) -> dict[str, Any]:
        self.guard.check()
        progress = self._progress(epoch)
        return {
            "epoch": epoch + 1,
            "step": self.step,
            "rate": self._rate(epoch * self.steps_per_epoch),
            "train_loss": progress.loss,
            f"train_{self.task.metric.name}" if self.training_step.labelled else "train_agreement": progress.score,
            "terms": self.sums.means(),
        } | ({"micro_batch": self.micro_batch} if self.micro_batch else {})

    def _batch_obstacle(self) -> str | None:
        """What forbids to split a batch."""
        objective, others = self.objective, {"peers answer it as well": self.peers is not None}
        return batch_obstacle(self.training_step.parts, objective.method, objective.name, others)

    def fail_unless_finite(self, wrong: str | None) -> None:
        """Raises NumericalError for what is ``wrong``, which `not_finite` has found."""
        if wrong is not None:
            raise NumericalError(
                f"{wrong} became NaN or infinite by step {self.step}; lower the learning rate "
                f"({self.lr} now) or use {setting('precision', 'fp32')}"
            )

    def answer_all(self, network: Network, dataset: Dataset) -> Tensor:
        """What the task keeps of the answers to all of ``dataset``, see `predict`; several processes share the work."""
        precision, keep = self.runtime.precision, self.task.kept
        return self.runtime.share_out(
            len(dataset), lambda rows: predict(network, dataset, self.device, precision, rows=rows, keep=keep)
        )

    def evaluate(self, dataset: Dataset) -> float:
        """The primary metric of `network` on ``dataset``."""
        logits = self.answer_all(self.network, dataset)
        return self.task.value(logits, torch.from_numpy(dataset.labels))

    def change_lr(self, lr: float) -> None:
        """Goes on with another largest rate than the configuration's; part of the state."""
        self.lr = self.guard.lr = lr

    def _rate(self, step: int) -> float:
        config = self.config
        optim = config.optim if self.lr == config.optim.lr else dataclasses.replace(config.optim, lr=self.lr)
        return rate_at(optim, step=step, steps_per_epoch=self.steps_per_epoch, epochs=config.epochs)

    def _progress(self, epoch: int) -> Progress:
        return Progress(epoch=epoch, step=self.step, steps_per_epoch=self.steps_per_epoch, sums=self.sums.totals)
