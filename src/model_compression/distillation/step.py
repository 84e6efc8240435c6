"""One training step up to its loss: what is compiled, wrapped for several processes, and split when memory is short."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core.device import autocast
from model_compression.core.inputs import tensors_of
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.distillation.methods import Context
from model_compression.distillation.objective import Objective
from model_compression.models.base import Network
from model_compression.models.features import Tapped
from model_compression.models.recomputing import recomputed
from model_compression.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a batch, or a part of one, gave beside its gradients: sums and batch means, scalars on the device."""

    count: int
    loss: Tensor
    terms: dict[str, Tensor]
    score: Tensor
    """The primary metric, summed over the samples."""
    inputs: dict[str, Tensor]
    """Sums of what came from outside, by `INPUTS` and `ANSWERS`: NaN in them shows."""
    logits: Tensor
    """(B, …), without gradient."""


INPUTS, ANSWERS = "the inputs", "the teacher's answers"


class Step(nn.Module):
    """Student and method, with the layers that the method compares; nothing trains outside of it.

    ``parts`` holds what has parameters: the student, and the method where there is one. ``tapped`` is the student where
    the method needs more than logits. The student is compiled where ``compiled`` says so, which serves methods that
    need logits only. Without labels (``labelled``) the teacher's answers are what counts as right.

    Of several processes each has a slice of the global batch. ``gather`` makes the whole of it again, for methods that
    compare samples or draw for them, and is a context manager ``around`` the student, where BatchNorm is to see it.
    Activations within the blocks to ``recompute`` are not kept for the backward pass.
    """

    def __init__(
        self,
        student: Network,
        objective: Objective,
        task: Task,
        device: torch.device,
        precision: torch.dtype,
        *,
        tapped: Tapped | None = None,
        compiled: bool = False,
        labelled: bool = True,
        watches_teacher: bool = True,
        gather: Callable[[Any, int], Any] | None = None,
        around: Callable[[int], AbstractContextManager[Any]] = lambda total: nullcontext(),
        recompute: Sequence[nn.Module] = (),
    ):
        super().__init__()
        self.objective, self.task, self.labelled, self.watches_teacher = objective, task, labelled, watches_teacher
        self.device, self.precision = device, precision
        method = objective.method
        compares = method is not None and (method.uses_context or not method.per_sample)
        self._gather, self._around, self._recompute = gather if compares else None, around, list(recompute)
        self.parts = nn.ModuleList([student])
        if method is not None:
            self.parts.append(method.to(device))
        # Lists, so that what is already in ``parts`` is not registered twice.
        self._tapped = [] if tapped is None else [tapped]
        # Two shapes at most, the last batch of an epoch being smaller: each is compiled for itself.
        self._forward = [torch.compile(student, dynamic=False) if compiled else student]

    @property
    def gathers(self) -> bool:
        """Whether the loss is that of the global batch in every process."""
        return self._gather is not None

    @property
    def tapped(self) -> Tapped | None:
        """The student with its layers tapped, where the method compares them."""
        return self._tapped[0] if self._tapped else None

    @property
    def student(self) -> Network:
        """The network that learns."""
        student = self.parts[0]
        assert isinstance(student, Network)
        return student

    def answer(self, batch: Batch) -> Outputs:
        """The student's outputs for a batch that it trains on, with gradient; logits in float32."""
        inputs = self.student.preprocessing(batch.inputs)
        around = partial(self._around, batch.num_global)
        with autocast(self.device, self.precision), around(), recomputed(self._recompute, around):
            answer = self._tapped[0](inputs) if self._tapped else Outputs(logits=self._forward[0](inputs))
        method = self.objective.method
        seen = inputs if method is not None and method.uses_inputs else None
        # losses are float32 in mixed precision
        return dataclasses.replace(answer, logits=answer.logits.float(), inputs=seen)

    def forward(
        self, batch: Batch, teacher: Outputs | None, context: Context, done: float, student: Outputs | None = None
    ) -> tuple[Tensor, Learned]:
        """The loss, with gradient, and what is known of the batch.

        ``student`` is what `answer` gave, where that is known already; ``done`` the share of the steps that are done
        with this one.
        """
        student = self.answer(batch) if student is None else student
        own, answers, whole = student, teacher, batch
        if self._gather is not None:
            rows = {"targets": batch.targets, "ids": batch.ids, "mixed": batch.mixed}
            own, answers, rows = self._gather((student, teacher, rows), batch.num_global)
            whole = dataclasses.replace(batch, **rows)
        loss, terms = self.objective(own, answers, whole, context, done)
        taught = None if self.labelled or teacher is None else self.task.as_targets(teacher.logits, batch.targets)
        logits = student.logits.detach()
        floats = [tensor.sum() for tensor in tensors_of(batch.inputs) if tensor.is_floating_point()]
        inputs = {INPUTS: sum(floats[1:], floats[0])} if floats else {}
        if teacher is not None and self.watches_teacher:
            inputs[ANSWERS] = teacher.logits.sum()
        return loss, Learned(
            count=len(batch.targets),
            loss=loss.detach(),
            terms={name: term.detach() for name, term in terms.items()},
            score=self.task.score(logits, batch.main_targets if taught is None else taught),
            inputs=inputs,
            logits=logits,
        )

    def first_stage(self, teacher: Outputs) -> Tensor:
        """The loss of the stage before training, of the method's own parameters on the teacher's answers."""
        assert self.objective.method is not None
        return self.objective.method.first_stage(teacher)


def merge(parts: Sequence[Learned], weights: Sequence[float]) -> Learned:
    """The parts of a batch as one: means by their ``weights``, see `Task.weight`, the rest by addition."""
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = sum(weights) or 1

    def mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([value * (weight / whole) for value, weight in zip(values, weights, strict=True)]).sum()

    return Learned(
        count=sum(part.count for part in parts),
        loss=mean([part.loss for part in parts]),
        terms={name: mean([part.terms[name] for part in parts]) for name in first.terms},
        score=torch.stack([part.score for part in parts]).sum(),
        inputs={name: torch.stack([part.inputs[name] for part in parts]).sum() for name in first.inputs},
        logits=torch.cat([part.logits for part in parts]),
    )
