"""Which parameters of the student wait until its last layer has learned the data's classes."""

from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.distillation.objective import Objective
from model_compression.models.base import Network
from model_compression.models.layer_order import last_layer


def frozen_first(student: Network, epochs: int, num_outputs: int, objective: Objective) -> list[nn.Parameter]:
    """The parameters that do not learn in the first ``epochs``: all but those of the last layer. None for 0 epochs.

    Raises UsageError for a student whose last layer is not known, and for a method that teaches no last layer.
    """
    if not epochs:
        return []
    asked, method = setting("freeze_epochs"), objective.method
    if method is not None and not objective.label_weight and "logits" not in method.needs:
        raise UsageError(
            f"{asked} needs a loss of the student's answers, and {objective.name} has one of its features only: give "
            f"{setting('label_weight')}, or leave {asked} out"
        )
    last = set(last_layer(student, num_outputs, asked).parameters())
    return [parameter for parameter in student.parameters() if parameter.requires_grad and parameter not in last]
