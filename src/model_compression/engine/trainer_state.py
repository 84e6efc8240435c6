"""What of a trainer changes as training goes on, as tensors by name, and back: a run goes on from it bit for bit."""

import torch
from torch import Tensor

from model_compression.engine.checkpoint import State, optimizer_tensors, restore_optimizer
from model_compression.engine.trainer import Trainer
from model_compression.models.weights import load_tensors, not_finite


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Everything that changes as training goes on. Raises NumericalError when a weight is not finite."""
    weights = trainer.training_step.parts.state_dict()
    trainer.fail_unless_finite(not_finite(weights))  # a step after the last loss that was looked at
    tensors = {f"modules.{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(trainer.optimizer).items()}
    if trainer.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in trainer.average.state_dict().items()}
    if trainer.scaler.is_enabled():
        scale = trainer.scaler.state_dict()
        tensors["scaler"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float64)
    if trainer.peers is not None:
        tensors |= {f"peers.{name}": tensor for name, tensor in trainer.peers.state().items()}
    if trainer.lr != trainer.config.optim.lr:
        tensors["lr"] = torch.tensor(trainer.lr, dtype=torch.float64)
    if trainer.micro_batch:
        tensors["micro_batch"] = torch.tensor(trainer.micro_batch)
    return tensors | trainer.sums.tensors() | {"guard": trainer.guard.state()}


def restore(trainer: Trainer, state: State) -> None:
    """Continues from a saved state. Raises WeightsMismatchError when it is of another network."""
    parts: dict[str, dict[str, Tensor]] = {"modules": {}, "optimizer": {}, "average": {}, "terms": {}, "peers": {}}
    for name, tensor in state.tensors.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = tensor
    load_tensors(trainer.training_step.parts, parts["modules"], "the saved state")
    restore_optimizer(trainer.optimizer, parts["optimizer"])
    if trainer.average is not None:
        load_tensors(trainer.average, parts["average"], "the saved state")
    if trainer.peers is not None:
        trainer.peers.restore(State(tensors=parts["peers"], progress=state.progress))
    trainer.sums.restore(state.tensors["sums"], parts["terms"])
    if "guard" in state.tensors:  # not in states of before
        trainer.guard.restore(state.tensors["guard"])
    if "lr" in state.tensors:
        trainer.change_lr(float(state.tensors["lr"]))
    trainer.micro_batch = int(state.tensors.get("micro_batch", torch.tensor(0))) or None
    if trainer.scaler.is_enabled():
        scale, tracker = state.tensors["scaler"].tolist()
        trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})
    trainer.step = int(state.progress["step"])
