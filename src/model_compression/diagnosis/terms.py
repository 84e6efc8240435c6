"""The loss at the first step: how large each term is, and how hard it pulls at the student."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from model_compression.core.finding import Finding, Level
from model_compression.core.options import setting
from model_compression.distillation.methods import Context
from model_compression.engine.trainer import Trainer
from model_compression.models.base import seeded

_LITTLE = 0.01  # of the gradient of the strongest term
_SURPRISED = 3.0  # times the loss of one who knows nothing


def examine_terms(trainer: Trainer) -> Iterator[Finding]:
    """Findings on the loss of the first batch; the trainer is not to be used afterwards."""
    objective = trainer.objective
    terms, guess = _first_terms(trainer)
    weights = {"label": objective.label_weight, **objective.weights}
    pulls = {name: weights[name] * _gradient_norm(term, trainer) for name, term in terms.items()}
    strongest = max(pulls, key=pulls.__getitem__)
    for name, term in terms.items():
        value = float(term.detach())
        text = f"{value:.3g} × weight {weights[name]:g}; its gradient in the student is {pulls[name]:.3g}"
        level: Level = "ok"
        remedy = ""
        if not math.isfinite(value) or not math.isfinite(pulls[name]):
            level, remedy = "fail", f"look at the teacher's answers, or use {setting('precision', 'fp32')}"
        elif name == "label" and value > _SURPRISED * guess:
            level = "warn"
            remedy = (
                f"guessing costs {guess:.2f}: the student begins sure and wrong; look at its weights and normalisation"
            )
        elif pulls[name] < _LITTLE * pulls[strongest]:
            level, remedy = "warn", f"next to {strongest} it does nothing; {_heavier(name, pulls, weights, strongest)}"
        yield Finding(area="loss", subject=name, level=level, text=text, remedy=remedy)


def examine_repetition(trainer: Trainer) -> Finding:
    """Whether the gradients of the first step are the same bits when it is computed again from the same state."""
    state = {name: tensor.clone() for name, tensor in trainer.training_step.parts.state_dict().items()}
    parameters = [parameter for parameter in trainer.training_step.parts.parameters() if parameter.requires_grad]
    found = []
    for _ in range(2):
        trainer.training_step.parts.load_state_dict(state)
        terms = _first_terms(trainer)[0]
        total = torch.stack([term for term in terms.values() if term.requires_grad]).sum()
        found.append(torch.autograd.grad(total, parameters, allow_unused=True))
    differing = sum(a is not None and b is not None and not torch.equal(a, b) for a, b in zip(*found, strict=True))
    kind = str(trainer.training_step.precision).removeprefix("torch.")
    if not differing:
        text = f"a step from the same state gives the same bits again, in {kind}"
        return Finding(area="loss", subject="repetition", level="ok", text=text)
    return Finding(
        area="loss",
        subject="repetition",
        level="warn",
        text=f"a step from the same state gives other gradients of {differing} tensors, in {kind}: runs do not repeat",
        remedy=f"look for random numbers in forward(), or try {setting('precision', 'fp32')}",
    )


def _first_terms(trainer: Trainer) -> tuple[dict[str, Tensor], float]:
    """The terms of the first batch, and the label loss of one who guesses: ln K."""
    config = trainer.config
    trainer.student.train()
    batch = next(iter(trainer.loader.epoch(epoch=0, seed=config.seed, batch_size=config.batch_size)))
    context = Context(ids=batch.ids, epoch=0, step=0, seed=config.seed)
    with seeded(config.seed):  # for dropout
        student = trainer.answer(batch)
        teacher = trainer.teacher.answer(batch) if trainer.teacher is not None else None
        return trainer.objective(student, teacher, batch, context)[1], math.log(student.logits.shape[1])


def _heavier(name: str, pulls: dict[str, float], weights: dict[str, float], strongest: str) -> str:
    """What gives a term a tenth of the strongest one's pull."""
    if not pulls[name]:
        return "it has no gradient at all: look at the layers that are compared"
    weight = weights[name] * pulls[strongest] / pulls[name] / 10
    value = float(f"{weight:.2g}")
    heavier = setting("label_weight", value) if name == "label" else setting("weights", {name: value}, flag="weight")
    return f"{heavier} would give it a tenth of that"


def _gradient_norm(term: Tensor, trainer: Trainer) -> float:
    """Euclidean norm over all of the student's parameters."""
    parameters = [parameter for parameter in trainer.student.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients if gradient is not None))
