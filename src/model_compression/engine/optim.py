"""Optimisers and schedules, from plain numbers."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.core.options import setting
from model_compression.engine.muon import MuonWithAdamW
from model_compression.models.base import Network
from model_compression.models.layer_order import block_factors, last_layer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


def check_optimizer(config: OptimConfig, epochs: int) -> None:
    """Raises UsageError for an optimiser that the installed torch does not have, and for a beginning without an end."""
    if 0 < epochs <= config.warmup_epochs:
        raise UsageError(f"{setting('warmup_epochs')} {config.warmup_epochs} must be below the run's {epochs} epochs")
    if 0 < epochs < config.freeze_epochs:
        raise UsageError(
            f"{setting('freeze_epochs')} must be at most the run's {epochs} epochs: {config.freeze_epochs}"
        )
    if config.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise UsageError(
            f"{setting('optimizer', 'muon')} needs torch 2.9 or newer, got torch {torch.__version__}; upgrade torch, "
            f"or use {setting('optimizer', 'adamw')}"
        )


def build_optimizer(
    model: nn.Module, config: OptimConfig, factors: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser over the parameters that need a gradient: weights decay, biases and norms do not.

    ``factors`` of the rate are those of `rate_factors`, 1 where none is given. Each group keeps ``lr_scale``, its rate
    relative to the schedule's.
    """
    groups = []
    decayed, plain, norm_biases = _parameter_groups(model)
    for parameters, decay, scale in (
        (decayed, config.weight_decay, 1.0),
        (plain, 0.0, 1.0),
        (norm_biases, 0.0, config.bias_lr_scale),
    ):
        by_factor: dict[float, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_factor.setdefault(scale * (factors or {}).get(parameter, 1.0), []).append(parameter)
        for own, members in by_factor.items():
            groups.append({"params": members, "weight_decay": decay, "lr": config.lr * own, "lr_scale": own})
    fused = not any(parameter.is_complex() for parameter in model.parameters())  # torch fuses real numbers only
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    if config.optimizer == "muon":
        if not fused:
            raise UsageError(
                f"{setting('optimizer', 'muon')} takes no complex parameters, and {type(model).__name__} has some; use "
                f"{setting('optimizer', 'adamw')}"
            )
        return MuonWithAdamW(groups, momentum=config.momentum)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, fused=fused)


def rate_factors(student: Network, config: OptimConfig, num_outputs: int) -> dict[nn.Parameter, float]:
    """The factors of the rate of the student's parameters where they differ; no others.

    Raises UsageError for a network whose last layer or blocks are not known.
    """
    if config.layer_decay != 1:
        return block_factors(student, config.layer_decay, setting("layer_decay"))
    if config.backbone_lr_scale != 1:
        head = set(last_layer(student, num_outputs, setting("backbone_lr_scale")).parameters())
        return {parameter: config.backbone_lr_scale for parameter in student.parameters() if parameter not in head}
    return {}


def has_biases_of_norms(model: nn.Module) -> bool:
    """Whether ``bias_lr_scale`` is the scale of anything."""
    return bool(_parameter_groups(model)[2])


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group, times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def rate_at(config: OptimConfig, *, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of ``step`` (from 0), of ``epochs`` · ``steps_per_epoch`` steps in all.

    Cosine: ½ · lr · (1 + cos(π · share)), of the steps behind the warm-up (Loshchilov and Hutter 2017, arXiv
    1608.03983, equation 5, without restarts). In the warm-up of n steps the rate is multiplied by (step + ½) / n.
    """
    total = epochs * steps_per_epoch
    position = step + 0.5  # the middle of the step: neither end is a wasted step of rate zero
    if config.schedule == "one_cycle":
        peak = config.warmup * total
        return config.lr * (position / peak if position < peak else (total - position) / (total - peak))
    rising = config.warmup_steps or config.warmup_epochs * steps_per_epoch
    risen = position / rising if position < rising else 1.0
    if config.schedule == "step":
        # A run so short that the rate would have fallen before the first epoch keeps it.
        falls = falls_at(config, epochs)
        fallen = falls is not None and step // steps_per_epoch >= falls
        return config.lr * (config.step_factor if fallen else 1.0) * risen
    if config.schedule == "cosine" and position >= rising:
        return config.lr * 0.5 * (1 + math.cos(math.pi * (position - rising) / (total - rising)))
    return config.lr * risen


def falls_at(config: OptimConfig, epochs: int) -> int | None:
    """The epoch, from 0, before which the step schedule lowers the rate; None where it never does."""
    epoch = int(config.step_at * epochs)
    return epoch if config.schedule == "step" and 0 < epoch < epochs else None


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
