"""What comes before a training: a method that has parts to train on the teacher's answers, as ft."""

from collections.abc import Callable

import torch

from model_compression.engine.trainer import Trainer
from model_compression.models.weights import not_finite

_FIRST_STAGE_LR = 1e-3


def run_first_stage(trainer: Trainer, watch: Callable[[], None]) -> None:
    """Trains what the method has of its own on the teacher's answers alone, where the method asks for that."""
    method, teacher = trainer.objective.method, trainer.teacher
    if trainer.step or method is None or not method.has_first_stage or teacher is None or trainer.peers is not None:
        return
    assert trainer.config.method is not None
    optimizer = torch.optim.Adam(method.parameters(), lr=_FIRST_STAGE_LR)
    for epoch in range(trainer.config.method.first_stage_epochs):
        for batch in trainer.loader.epoch(epoch=epoch, seed=trainer.config.seed, batch_size=trainer.config.batch_size):
            loss = trainer.training_step.first_stage(teacher.answer(batch))
            trainer.fail_unless_finite(not_finite({"the loss of the first stage": loss}))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch()
