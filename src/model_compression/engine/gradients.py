"""The gradients of a batch, whole or in parts, alone or with other processes."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from model_compression.core.counter_random import derived_seed
from model_compression.core.device import seed_device
from model_compression.core.memory import is_out_of_memory
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.distillation.methods import Context
from model_compression.distillation.step import Learned, Step, merge
from model_compression.engine.contracts import Teacher
from model_compression.engine.runtime import Runtime, over_processes
from model_compression.tasks import Task

_STREAM = 1  # keeps the numbers of steps apart from those of orders


class Gradients:
    """Adds gradients to the parameters of ``step``, which ``runtime`` wraps when it is first needed.

    ``sample_loss`` computes the loss of two samples by a step, as in training: see `Runtime.wrap`.
    """

    def __init__(
        self,
        step: Step,
        runtime: Runtime,
        task: Task,
        seed: int,
        scaler: torch.amp.GradScaler,
        sample_loss: Callable[[nn.Module], Tensor],
    ):
        self._step, self._runtime, self._task, self._seed = step, runtime, task, seed
        self._scaler, self._sample_loss = scaler, sample_loss
        self._wrapped: nn.Module | None = None
        self._share = 1.0  # of this process's samples in the mean of the last batch
        self.received_signal: Callable[[], int] = lambda: 0
        self.stopped_by = 0  # the signal that has come to any process

    def wrapped(self) -> nn.Module:
        """The step as the runtime wraps it; several processes try it on two samples first."""
        if self._wrapped is None:
            self._wrapped = self._runtime.wrap(self._step, self._sample_loss)
        return self._wrapped

    def wrap_anew(self) -> None:
        """Other parameters learn from here on: the step is wrapped again when it is next needed."""
        self._wrapped = None

    def clip(self, optimizer: torch.optim.Optimizer, norm: float) -> None:
        """Scales the gradients of all parameters so that their norm, taken together, is ``norm`` at most."""
        self._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self._step.parameters(), norm)

    def attempt(self, parts: Sequence[Batch], teacher: Teacher | None, context: Context, done: float) -> Learned | None:
        """What ``parts`` of a batch give beside gradients; None when memory has run out in this or another process.

        ``context`` is that of the step, ``done`` the share of steps that are done with it.
        """
        learned: Learned | None = None
        try:
            learned = self._of_parts(parts, teacher, context, done)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # out here, where the error no longer holds what was computed
        if learned is None:
            self._runtime.catch_up(self.wrapped())
        failed, self.stopped_by = self._runtime.agree(learned is None, self.received_signal())
        if not failed:
            return learned
        self._wrapped = None
        return None

    def of_answers(
        self, batch: Batch, student: Outputs, teacher: Outputs | None, context: Context, done: float
    ) -> Learned:
        """What a batch gives to which the student has answered already."""
        (self._share,) = self._shares([self._task.weight(batch)], batch)
        return self._backward(batch, teacher, context, done, self._share, student)

    def of_all(self, learned: Learned, batch: Batch, terms: Sequence[str]) -> Learned:
        """What the global batch gave, where this process has ``learned`` from its slice of it."""
        if self._runtime.world_size == 1:
            return learned
        return over_processes(learned, self._runtime, self._share, batch.num_global, terms)

    def _of_parts(self, parts: Sequence[Batch], teacher: Teacher | None, context: Context, done: float) -> Learned:
        """The gradients of a batch in ``parts``, one after the other."""
        own = (self._runtime.rank,) if self._runtime.rank else ()
        seed_device(self._runtime.device, derived_seed(self._seed, _STREAM, context.step, *own))  # for dropout
        step, several = self.wrapped(), len(parts) > 1 or self._runtime.world_size > 1
        self._step.zero_grad(set_to_none=True)
        weights = [self._task.weight(part) for part in parts] if several else [1]
        shares = self._shares(weights, parts[0])
        learned = []
        for number, (part, share) in enumerate(zip(parts, shares, strict=True), start=1):
            answers = teacher.answer(part) if teacher is not None else None
            with nullcontext() if number == len(parts) else self._runtime.without_sending(step):
                learned.append(self._backward(part, answers, context, done, share))
        self._share = sum(shares)
        return merge(learned, weights)

    def _shares(self, weights: Sequence[float], batch: Batch) -> list[float]:
        """What the means over parts of a batch, of ``weights``, count in that of the global batch; see `Runtime`."""
        if self._step.gathers:
            return [1.0]
        whole = sum(weights)
        if self._runtime.world_size > 1:
            whole = self._runtime.whole(whole, batch.num_global, counts=type(self._task).weight is Task.weight)
        return [weight / whole if whole else 0.0 for weight in weights]

    def _backward(
        self,
        batch: Batch,
        teacher: Outputs | None,
        context: Context,
        done: float,
        share: float,
        student: Outputs | None = None,
    ) -> Learned:
        """Adds the gradients of a part of a batch, its ``share``, to those that are there."""
        context = Context(ids=batch.ids, epoch=context.epoch, step=context.step, seed=context.seed)
        learned: Learned
        loss, learned = self.wrapped()(batch, teacher, context, done, student)
        self._scaler.scale(loss if share == 1.0 else loss * share).backward()
        return learned
