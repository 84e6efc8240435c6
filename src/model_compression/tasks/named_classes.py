"""Tasks whose answers are classes with names: what they check and state alike."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from model_compression.core.config import TeacherAnswers
from model_compression.core.finding import Finding
from model_compression.core.inputs import Inputs
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.tasks.base import Task
from model_compression.tasks.image_classification import class_names
from model_compression.tasks.image_classification.answer_kinds import answer_fault, find_fault_of_answers


class NamedClasses(Task):
    """A task whose numbers of a row belong to classes with names."""

    def differences(self, model: Network, dataset: Dataset) -> list[str]:
        """A line where network and dataset name their classes differently."""
        return class_names.other_classes(model, dataset)

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """The names of the classes."""
        return {"class_names": list(dataset.class_names)}


class LogitPerClass(NamedClasses):
    """A task whose answer to a sample is a logit for each class."""

    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless there is a logit for each class, and the classes are in the dataset's order."""
        class_names.check_classes(role, model, dataset, answer)

    def answer_fault(
        self, role: str, model: Network, inputs: Inputs, expected: TeacherAnswers = "logits"
    ) -> str | None:
        """A softmax or a sigmoid at the end of a network for images, unless that is ``expected``."""
        return answer_fault(role, model, inputs, expected) if isinstance(inputs, Tensor) else None

    def answer_findings(self, model: Network, inputs: Inputs) -> Iterator[Finding]:
        """Whether the teacher answers with logits."""
        return find_fault_of_answers(self.answer_fault("teacher", model, inputs))
