"""Whether a network answers with logits, as training needs, or with what a softmax or sigmoid at its end makes of them.

Log-probabilities serve as logits: their softmax is the same at every temperature.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from model_compression.core.config import TeacherAnswers
from model_compression.core.finding import Finding
from model_compression.core.options import setting
from model_compression.models.base import Network
from model_compression.models.eval_mode import evaluating

_SCALE = 100.0  # of pixels, which logits grow with and probabilities do not
_ALIKE = 1e-3  # how far a sum of probabilities may be from one
_SAID = {
    "logits": ("logits", ""),
    "probabilities": ("probabilities, whose rows sum to one", "softmax"),
    "sigmoid": ("numbers between 0 and 1, as a sigmoid gives", "sigmoid"),
}


@torch.no_grad()
def answer_kind(model: Network, images: Tensor) -> TeacherAnswers:
    """What ``model`` answers with to ``images`` (B, C, H, W) uint8, and to the same ones with pixels far too large."""
    with evaluating(model):
        pixels = model.preprocessing(images)
        answers = model(pixels).double()
        try:
            extreme = model(_SCALE * pixels).double()
        except Exception:  # of a network that looks something up by its pixels
            extreme = answers
    both = torch.cat([answers, extreme])
    if not bool(((both >= 0) & (both <= 1)).all()):
        return "logits"
    if bool(((both.sum(dim=1) - 1).abs() < _ALIKE).all()):
        return "probabilities"
    # Fresh networks may answer with zeros, or end in ReLU: those are logits.
    return "sigmoid" if bool(((answers > 0) & (answers < 1)).all()) else "logits"


def answer_fault(role: str, model: Network, images: Tensor, expected: TeacherAnswers = "logits") -> str | None:
    """What is wrong with the answers of the ``role``, student or teacher, and the remedy; None where nothing is."""
    found = answer_kind(model, images)
    if found == expected:
        return None
    said, layer = _SAID[found]
    if found == "logits":
        return f"the {role} {model.name} answers with logits: leave teacher_answers {expected!r} out"
    if role != "teacher":
        return f"the {role} answers with {said}: leave its {layer} out, the loss needs logits and has its own"
    return (
        f"the teacher {model.name} answers with {said}: leave its {layer} out, or give "
        f"{setting('teacher_answers', found)}, which makes logits of them"
    )


def find_fault_of_answers(fault: str | None) -> Iterator[Finding]:
    """The finding on a teacher's answers, from what `answer_fault` says of them."""
    text, _, remedy = (fault or "logits").partition(": ")
    yield Finding(area="teacher", subject="answers", level="fail" if fault else "ok", text=text, remedy=remedy)
