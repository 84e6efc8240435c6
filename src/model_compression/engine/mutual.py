"""Deep mutual learning (Zhang et al. 2018, arXiv 1706.00384): networks that learn at once, from labels and each other.

Each network's loss is its label loss plus the mean of KL(p_other ‖ p_own) over the others, at temperature 1, all on the
same view of the same batch, each with an optimiser of its own. With `kd` as the method the others answer by the mean of
their probabilities, whose divergence differs from the mean of divergences by what does not depend on the network that
learns: the gradients are the paper's, equation 7.

Updates are simultaneous: all answer with their weights before the step, then all step. The paper's algorithm 1
alternates, and lets a network answer again once it has stepped; that costs another pass for each and makes the order of
the networks matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.engine.checkpoint import State
from model_compression.engine.trainer import Trainer
from model_compression.engine.trainer_state import restore, state_of
from model_compression.models.base import Network

METHOD = MethodConfig(name="kd", params={"temperature": 1.0}, weights={"kd": 1.0}, label_weight=1.0)
"""The paper's loss: both terms weigh 1."""

SEED_STRIDE = 1000
"""Between the seeds of networks that learn together or in turn: runs of seeds 0, 1, 2 share none of them."""


def peer_configs(config: TrainConfig) -> list[TrainConfig]:
    """The configuration that each of the peers of ``config`` is trained by."""
    assert config.peers is not None
    names = [name.strip() for name in config.peers.name.split(",")]
    return [
        replace(
            config,
            student=ModelConfig(name=name, options=config.peers.options),
            peers=None,
            seed=config.seed + SEED_STRIDE * number,
        )
        for number, name in enumerate(names, start=1)
    ]


class Peers:
    """The student's peers: a teacher to it that answers in train mode, and learns from its answers in turn."""

    def __init__(self, trainers: Iterable[Trainer]):
        self.trainers = list(trainers)
        self._answers: list[Outputs] = []
        for trainer in self.trainers:
            trainer.student.train()

    @property
    def networks(self) -> list[Network]:
        """What is evaluated and saved of each."""
        return [trainer.network for trainer in self.trainers]

    def answer(self, batch: Batch) -> Outputs:
        """Their common logits (B, K), without gradient, for images as the batch shows them."""
        self._answers = [trainer.answer(batch) for trainer in self.trainers]
        return self._common(self._answers)

    def learn(self, batch: Batch, epoch: int, student: Outputs) -> None:
        """A step of each on what it has answered to ``batch``, from what the student and the other peers have."""
        for number, trainer in enumerate(self.trainers):
            others = [student, *self._answers[:number], *self._answers[number + 1 :]]
            trainer.learn(batch, epoch, self._answers[number], self._common(others))

    def _common(self, answers: Sequence[Outputs]) -> Outputs:
        return Outputs(logits=self.trainers[0].task.mean_of([answer.logits for answer in answers]))

    def state(self) -> dict[str, Tensor]:
        """Everything that changes as training goes on, NUMBER.NAME."""
        return {
            f"{number}.{name}": tensor
            for number, trainer in enumerate(self.trainers)
            for name, tensor in state_of(trainer).items()
        }

    def restore(self, state: State) -> None:
        """Inverse of `state`."""
        for number, trainer in enumerate(self.trainers):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
            restore(trainer, State(tensors=own, progress=state.progress))
