"""A teacher that answers each batch anew: one network, or the mean of several."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model_compression.core.config import TeacherAnswers
from model_compression.core.errors import ModelCompressionError, UsageError, reason_of
from model_compression.core.inputs import Inputs, map_inputs
from model_compression.core.options import setting
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Loader
from model_compression.models.base import Network
from model_compression.models.copies import place
from model_compression.models.features import Tapped

_LEAST = 1e-7  # probability that is told from 0, or a sigmoid's from 1


class LiveTeacher:
    """Networks in eval mode, without gradient, always; their logits are averaged.

    With ``tta`` "flip" each network's answer is the mean of those to the image and to its mirror image. ``features``
    and ``embedding`` are what is tapped beside the logits, of one network and without ``tta`` (UsageError otherwise).
    ``answers`` says what the networks answer with, which becomes logits.
    """

    def __init__(
        self,
        models: Sequence[Network],
        device: torch.device,
        precision: torch.dtype,
        tta: str = "none",
        *,
        features: Sequence[str] = (),
        embedding: bool = False,
        answers: TeacherAnswers = "logits",
    ):
        self.models = [_ready(model, device) for model in models]
        self.device, self.precision, self.tta = device, precision, tta
        self.answers = answers
        self.precisions = [precision] * len(models)  # of each network, see `choose_precision`
        self.embeds = embedding
        self.is_sharded = False
        self._tapped: Tapped | None = None
        if features or embedding:
            if len(models) > 1 or tta != "none":
                raise UsageError("features and embeddings of several teachers, or of mirror images, cannot be averaged")
            model = self.models[0]
            self._tapped = Tapped(model.body, features, embedding=embedding, answer_of=model.answer_of)

    @torch.no_grad()
    def choose_precision(self, precision: torch.dtype, inputs: Inputs, report: Callable[[str], None]) -> None:
        """Computes in ``precision``; a network that fails at it on ``inputs`` (B, …) in float32, and says so."""
        self.precision, self.precisions = precision, [precision] * len(self.models)
        if precision == torch.float32:
            return
        for number, model in enumerate(self.models):
            try:
                self._logits(number, map_inputs(lambda tensor: tensor.to(self.device), inputs))
            except ModelCompressionError:
                raise
            except Exception as error:  # of code that was written for float32, or is quantised
                self.precisions[number] = torch.float32
                kind = str(self.precision).removeprefix("torch.")
                report(f"the teacher {model.name} answers in float32, as it fails in {kind}: {reason_of(error)}")

    def release(self) -> None:
        """Taps its networks no longer, so that others can."""
        if self._tapped is not None:
            self._tapped.remove()

    @torch.no_grad()
    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, …) in float32, and what is tapped, for samples as the batch shows them."""
        if self._tapped is not None:
            return self._tapped_answer(self._tapped, batch.inputs)
        shown = [batch.inputs]
        if self.tta == "flip":
            shown.append(_mirrored(batch.inputs))
        answers = [self._logits(number, inputs) for number in range(len(self.models)) for inputs in shown]
        return Outputs(logits=answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0))

    def _tapped_answer(self, tapped: Tapped, inputs: Inputs) -> Outputs:
        with self._autocast(0):
            answer: Outputs = tapped(self.models[0].preprocessing(inputs))
        return dataclasses.replace(answer, logits=as_logits(answer.logits.float(), self.answers))

    def _logits(self, number: int, inputs: Inputs) -> Tensor:
        model = self.models[number]
        assert not any(module.training for module in model.modules())
        with self._autocast(number):
            answer: Tensor = model(model.preprocessing(inputs))
        return as_logits(answer.float(), self.answers)

    def _autocast(self, number: int) -> torch.autocast:
        precision = self.precisions[number]
        return torch.autocast(self.device.type, precision, enabled=precision != torch.float32)


def _mirrored(inputs: Inputs) -> Tensor:
    """Images (B, C, H, W), left for right. Raises UsageError for inputs of another kind."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        raise UsageError(f"{setting('teacher_tta', 'flip')} is for images only; leave it out")
    return inputs.flip(3)


def as_logits(answers: Tensor, kind: TeacherAnswers) -> Tensor:
    """Logits (B, K) that ``answers`` (B, K) of that kind may be made of: log p, or log p − log(1 − p) of a sigmoid."""
    if kind == "logits":
        return answers
    return answers.clamp(min=_LEAST).log() if kind == "probabilities" else answers.logit(eps=_LEAST)


def _ready(model: Network, device: torch.device) -> Network:
    """``model`` on ``device``, in eval mode and without gradients. Raises UsageError for one that stays in training."""
    model = place(model, device).eval().requires_grad_(False)
    staying = next((name for name, module in model.named_modules() if module.training), None)
    if staying is not None:
        raise UsageError(
            f"the teacher {model.name} stays in training mode after eval(), at {staying or 'the network itself'}: its "
            "train() must pass the mode on, as nn.Module's does"
        )
    return model


class PlainTeacher:
    """Answers the images as ``loader`` has them, without augmentation, whatever view the batch shows."""

    def __init__(self, live: LiveTeacher, loader: Loader):
        self._live, self._loader = live, loader

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32, and what is tapped."""
        return self._live.answer(self._loader.batch(batch.ids, view=0))
