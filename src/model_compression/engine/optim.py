"""Optimisers and schedules, from plain numbers."""

import torch
from torch import nn

from model_compression.core.config import OptimConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.engine.muon import MuonWithAdamW

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


def check_optimizer(config: OptimConfig) -> None:
    """Raises UsageError for an optimiser that the installed torch does not have."""
    if config.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise UsageError(
            f"{setting('optimizer', 'muon')} needs torch 2.9 or newer, got torch {torch.__version__}; upgrade torch, "
            f"or use {setting('optimizer', 'adamw')}"
        )


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser over the parameters that need a gradient: weights decay, biases and norms do not.

    Each group keeps ``lr_scale``, its rate relative to the schedule's.
    """
    groups = []
    decayed, plain, norm_biases = _parameter_groups(model)
    for parameters, decay, scale in (
        (decayed, config.weight_decay, 1.0),
        (plain, 0.0, 1.0),
        (norm_biases, 0.0, config.bias_lr_scale),
    ):
        if parameters:
            groups.append({"params": parameters, "weight_decay": decay, "lr": config.lr * scale, "lr_scale": scale})
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)
    if config.optimizer == "muon":
        return MuonWithAdamW(groups, momentum=config.momentum)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group, times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def rate_at(config: OptimConfig, *, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of ``step`` (from 0), of ``epochs`` · ``steps_per_epoch`` steps in all."""
    if config.schedule == "step":
        fallen = step // steps_per_epoch >= int(config.step_at * epochs)
        # A run so short that the rate would have fallen before the first epoch keeps it.
        return config.lr * (config.step_factor if fallen and int(config.step_at * epochs) > 0 else 1.0)
    if config.schedule == "one_cycle":
        total = epochs * steps_per_epoch
        peak = config.warmup * total
        position = step + 0.5  # the middle of the step: neither end is a wasted step of rate zero
        return config.lr * (position / peak if position < peak else (total - position) / (total - peak))
    return config.lr


def _parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Weights that decay, other biases and vectors, and biases of normalisation layers."""
    norm_biases = {
        id(module.bias) for module in model.modules() if isinstance(module, _NORMS) and module.bias is not None
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise UsageError(
            "there is nothing to train: each parameter has requires_grad=False; set it to True where it is to learn"
        )
    return (
        [p for p in trained if p.ndim > 1],
        [p for p in trained if p.ndim <= 1 and id(p) not in norm_biases],
        [p for p in trained if id(p) in norm_biases],
    )
