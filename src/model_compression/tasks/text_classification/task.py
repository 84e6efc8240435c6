"""The task of texts with one class each: K logits, of which the largest is the answer."""

from typing import Any

import torch
from torch import Tensor

from model_compression.core.config import TeacherAnswers
from model_compression.core.inputs import Inputs
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.models.eval_mode import evaluating
from model_compression.tasks.base import TASKS
from model_compression.tasks.image_classification.figures import macro_f1
from model_compression.tasks.image_classification.task import ImageClassification
from model_compression.tasks.text_classification.tokenizer_checks import check_tokenizer, tokenizer_facts

_ALIKE = 1e-3  # how far a sum of probabilities may be from one


@TASKS.register("text-classification")
class TextClassification(ImageClassification):
    """One class of K for each text; labels (N,) are class numbers."""

    name = "text-classification"

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Those of images, and the mean of the classes' F1, 0 to 1."""
        return super().figures(logits, targets) | {"f1": macro_f1(logits, targets)}

    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless there is a logit for each class, and the network knows the data's tokens."""
        check_tokenizer(role, model, dataset)
        super().check_answer(role, model, dataset, answer)

    def answer_fault(
        self, role: str, model: Network, inputs: Inputs, expected: TeacherAnswers = "logits"
    ) -> str | None:
        """A softmax at the end of the network, unless that is ``expected``."""
        with evaluating(model), torch.no_grad():
            answers = model(model.preprocessing(inputs)).double()
        sums = bool((answers >= 0).all()) and bool(((answers.sum(dim=1) - 1).abs() < _ALIKE).all())
        if not sums or expected == "probabilities":
            return None
        return f"the {role} {model.name} answers with probabilities: leave its softmax out, the loss has its own"

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """The names of the classes, and the tokenizer."""
        return super().facts(dataset) | tokenizer_facts(dataset)
