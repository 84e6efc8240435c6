"""The loss of a step: the label term and the method's terms, weighted."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.errors import ModelCompressionError, UsageError, reason_of
from model_compression.core.options import setting
from model_compression.core.outputs import Outputs
from model_compression.core.registry import unknown_name
from model_compression.data.batches import Batch
from model_compression.distillation.methods import METHODS, Context, Method, create
from model_compression.distillation.methods.contract import LABEL, checked_terms
from model_compression.tasks import Task

_SUM_BOUND = 1e-4


def create_method(config: MethodConfig) -> Method:
    """The method that ``config`` names. Raises UsageError for a name, parameter or term that is not known."""
    method = create(config.name, **config.params)
    for term in config.weights:
        if term not in method.default_weights:
            raise unknown_name(f"term of method {config.name!r}:", term, list(method.default_weights))
    return method


def check_answers(method: Method, name: str, task: Task) -> None:
    """Raises UsageError for a method that compares logits of another kind than the answers of ``task``."""
    for part, one in method.parts(name).items():
        if one.compares_maps and not task.has_maps:
            raise UsageError(
                f"method {part!r} as it is set compares maps of class scores, which segmentation has, and the task is "
                f"{task.name!r}; choose kd, or a method that compares features"
            )
        if task.answer != "categorical" and "logits" not in one.needs and one.uses_targets:
            raise UsageError(
                f"method {part!r} compares samples by their class, and those of the task {task.name!r} have no single "
                "one; choose a method that compares features or relations without labels"
            )
        if not task.one_row_each and "logits" not in one.needs and (one.uses_targets or one.uses_ids):
            raise UsageError(
                f"method {part!r} compares samples by their class or number, and an answer of the task {task.name!r} "
                "has a class for each of its parts; choose kd, or a method that compares features"
            )
        if "logits" in one.needs and task.answer not in one.answers:
            raise UsageError(
                f"method {part!r} compares {' or '.join(sorted(one.answers))} answers, and those of the task "
                f"{task.name!r} are {task.answer}; choose {_serving(task.answer)}, or a method that compares features"
            )


def _serving(kind: str) -> str:
    """The methods of logits that serve answers of this kind."""
    names = [name for name in METHODS.names() if kind in getattr(METHODS.get(name), "answers", ())]
    names = [name for name in names if "logits" in METHODS.get(name).needs]  # type: ignore[attr-defined]
    return ", ".join(names)


def methods_for(task: Task) -> list[str]:
    """The names of all methods that serve the answers of ``task``, as `check_answers` says."""

    def serves(name: str) -> bool:
        try:
            check_answers(create(name), name, task)
        except UsageError:
            return False
        return True

    return list(filter(serves, METHODS.names()))


def check_topk(config: TrainConfig) -> None:
    """Raises UsageError for a method that compares all logits as they are, where only the largest are to be stored."""
    if config.method is None or not config.teacher_cache_topk or config.teacher_cache == "off":
        return
    method = create_method(config.method)
    if "features" in method.needs:
        return  # its teacher answers live
    for part, one in method.parts(config.method.name).items():
        if "logits" in one.needs and one.needs_teacher and not one.serves_topk:
            serving = [name for name in METHODS.names() if getattr(METHODS.get(name), "serves_topk", False)]
            raise UsageError(
                f"method {part!r} compares all logits as they are, and {setting('teacher_cache_topk')} "
                f"{config.teacher_cache_topk} stores the largest only; leave that out, or choose one that compares "
                f"probabilities: {', '.join(serving)}"
            )


def label_weight_of(config: MethodConfig, method: Method, task: Task | None = None) -> float:
    """The weight of the label loss beside ``method``, which ``config`` names: the run's own, or the method's.

    0 for a ``task`` without one. Raises UsageError where the run gives it a weight all the same.
    """
    if task is None or task.has_label_loss:
        return method.default_label_weight if config.label_weight is None else config.label_weight
    if config.label_weight:
        raise UsageError(
            f"{setting('label_weight')} must be 0, got {config.label_weight:g}: of the task {task.name!r} labels judge "
            "and are not learnt"
        )
    return 0.0


class Objective:
    """Σ weight · term. Only here are weights applied; methods return plain terms."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        num_samples: int,
        num_outputs: int,
        shapes: dict[str, Any] | None = None,
    ):
        """``shapes`` of what student and teacher answer, as `Method.setup` takes them; None: logits alone."""
        self.task = task
        self.method: Method | None = None
        self.name = "" if config.method is None else config.method.name
        self.weights: dict[str, float] = {}
        self._warmups: Mapping[str, float] = {}
        self.label_weight, self.label_smoothing = 1.0, config.label_smoothing
        if config.method is None:
            if not task.has_label_loss:
                raise UsageError(
                    f"of the task {task.name!r} labels judge and are not learnt: give a teacher, with "
                    "`model-compression distill`"
                )
            return
        self.method = create_method(config.method)
        check_answers(self.method, self.name, task)
        for one in self.method.parts(self.name).values():
            one.kind = task.answer
        logits = {side: {"logits": (1, num_outputs)} for side in ("student", "teacher")}
        try:
            self.method.setup(shapes or logits, num_samples, num_outputs)
        except ModelCompressionError:
            raise
        except Exception as error:  # of a method of someone's own
            raise UsageError(
                f"method {self.name!r} fails in setup(shapes, num_samples, num_classes): {type(error).__name__}: "
                f"{reason_of(error)}; shapes is {dict(shapes or logits)}"
            ) from error
        defaults = self.method.default_weights
        self.weights = {**defaults, **config.method.weights}
        warmup = config.method.warmup
        self._warmups = dict.fromkeys(defaults, warmup) if warmup is not None else self.method.default_warmups
        self.label_weight = label_weight_of(config.method, self.method, task)
        given = f"label_smoothing {self.label_smoothing}" if self.label_smoothing else ""
        given = f"class_weights {config.class_weights}" if config.class_weights != "none" else given
        if given and not self.label_weight:
            raise UsageError(
                f"{given} has no effect: method {config.method.name!r} gives the label "
                "loss the weight 0 here; leave it out, or give a label_weight above 0"
            )

    @property
    def warms_up(self) -> bool:
        """Whether the weight of a term rises in the course of the run."""
        return any(self._warmups.values())

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, context: Context, done: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its unweighted terms by name.

        ``done`` is the share of the steps that are done with this one, which a method's warm-up goes by.
        """
        terms: dict[str, Tensor] = {}
        if self.label_weight:
            terms[LABEL] = self.task.label_loss(student.logits, batch.targets, batch.mixed, self.label_smoothing)
        if self.method is not None:
            assert teacher is not None or not self.method.needs_teacher
            found = self._compare(self.method, student, teacher, batch, context)
            terms |= checked_terms(self.name, found, self.weights)
        risen = {name: min(1.0, done / warmup) for name, warmup in self._warmups.items() if warmup}
        weights = {LABEL: self.label_weight} | {name: w * risen.get(name, 1.0) for name, w in self.weights.items()}
        loss = sum((weights[name] * term for name, term in terms.items()), start=student.logits.new_zeros(()))
        return loss, terms

    def _compare(
        self, method: Method, student: Outputs, teacher: Outputs | None, batch: Batch, context: Context
    ) -> dict[str, Tensor]:
        """The terms of ``method`` for the rows that the task makes of the answers; 0 where all are left out."""
        rows = self.task.rows(student, teacher, batch)
        if not len(rows.ids):
            return dict.fromkeys(self.weights, 0 * student.logits.sum())
        return method(rows.student, rows.teacher, rows.targets, dataclasses.replace(context, ids=rows.ids))

    def check(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Raises UsageError unless the method can compare such answers; nothing that it keeps is changed.

        ``batch`` is what was answered, two samples.
        """
        if self.method is None:
            return
        try:
            method = copy.deepcopy(self.method)
        except Exception:  # of a method of someone's own, which holds what cannot be copied
            return
        batch = dataclasses.replace(batch, ids=torch.arange(len(batch.ids), device=batch.ids.device))
        context = Context(ids=batch.ids, epoch=0, step=0, seed=0)
        try:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                terms = self._compare(method, _with_gradient(student), teacher, batch, context)
        except ModelCompressionError:
            raise
        except Exception as error:  # of a method of someone's own, or of layers that do not go together
            raise UsageError(
                f"method {self.name!r} cannot compare what student and teacher answer: {type(error).__name__}: "
                f"{reason_of(error)}; it got, {_shapes_of('student', student)}; {_shapes_of('teacher', teacher)}"
            ) from error
        for name, term in checked_terms(self.name, terms, self.weights).items():
            if not term.requires_grad:
                raise UsageError(
                    f"method {self.name!r} returns the term {name!r} without a gradient: nothing would learn from it; "
                    "compute it from the student's answers, without detach"
                )
        if not terms:
            raise UsageError(f"method {self.name!r} returns no terms; its default_weights has {list(self.weights)}")
        self._refuse_sums(method, student, teacher, batch)

    def _refuse_sums(self, method: Method, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Raises UsageError for a term that is a sum over the batch: what two samples give is what each gives alone.

        Relations between the samples of a batch are no such sum, whatever they are divided by.
        """
        found = []
        try:
            for rows in (slice(0, 2), slice(0, 1), slice(1, 2)):
                context = Context(ids=batch.ids[rows], epoch=0, step=0, seed=0)
                own, taught = (None if side is None else side.rows(rows) for side in (student, teacher))
                assert own is not None
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    terms = self._compare(method, own, taught, batch.rows(rows), context)
                found.append({name: float(term) for name, term in terms.items()})
        except Exception:  # of a method that takes no single sample
            return
        for name, both in found[0].items():
            one, other = (values.get(name, 0.0) for values in found[1:])
            if min(abs(one), abs(other)) > _SUM_BOUND and math.isclose(both, one + other, rel_tol=_SUM_BOUND):
                raise UsageError(
                    f"method {self.name!r} returns the term {name!r} as a sum over the batch: two samples give "
                    f"{both:.4g}, each alone {one:.4g} and {other:.4g}; return the mean over the batch, as by .mean() "
                    "or a division by len(student.logits)"
                )


def _with_gradient(outputs: Outputs) -> Outputs:
    """The same answers, as if a network had just given them."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor

    return dataclasses.replace(
        outputs,
        logits=leaf(outputs.logits),
        embedding=None if outputs.embedding is None else leaf(outputs.embedding),
        features={name: leaf(tensor) for name, tensor in outputs.features.items()},
    )


def _shapes_of(side: str, outputs: Outputs | None) -> str:
    """What one side answered, as "student: logits (2, 10), stage3 (2, 64, 8, 8)"."""
    if outputs is None:
        return f"{side}: nothing"
    parts = {"logits": outputs.logits, "embedding": outputs.embedding, **outputs.features}
    said = [f"{name} {tuple(tensor.shape)}" for name, tensor in parts.items() if tensor is not None]
    return f"{side}: {', '.join(said)}"
