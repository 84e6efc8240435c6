"""What the trainer expects of a teacher, and what it tells those who watch."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.engine.checkpoint import State


class Teacher(Protocol):
    """What answers for the teacher."""

    def answer(self, batch: Batch) -> Outputs:
        """Its outputs for a batch."""


@runtime_checkable
class LearningTeacher(Teacher, Protocol):
    """What answers for the teacher and learns from the student's answers in turn, as its peers do."""

    def learn(self, batch: Batch, epoch: int, student: Outputs) -> None:
        """A step on the batch that it has answered last."""

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs to go on."""

    def restore(self, state: State) -> None:
        """Continues from a saved state."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, for whoever watches; reading loss or score waits for the device."""

    epoch: int
    step: int
    steps_per_epoch: int
    sums: Tensor

    @property
    def loss(self) -> float:
        """Mean of this epoch so far."""
        return float(self.sums[0] / self.sums[2].clamp(min=1))

    @property
    def score(self) -> float:
        """The primary metric on this epoch's augmented training images so far, while they were trained on.

        Without labels against what the teacher answers.
        """
        return float(self.sums[1] / self.sums[2].clamp(min=1))
