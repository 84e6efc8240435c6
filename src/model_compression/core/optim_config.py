"""The options of the optimiser and of its schedule."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from model_compression.core.config_values import Config
from model_compression.core.errors import UsageError
from model_compression.core.options import SHARE, option, setting

Optimizer = Literal["sgd", "adam", "adamw", "muon"]
Schedule = Literal["constant", "step", "one_cycle", "cosine"]

_RISES_FIRST = {"schedule": ("constant", "step", "cosine")}  # one_cycle has a rise of its own


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Config):
    """The optimiser and its schedule, which is a function of the share of training that is done."""

    optimizer: Optimizer = option("adam", help="optimiser: sgd, adam, adamw or muon")
    lr: float = option(1e-3, help="largest learning rate of the schedule", above=0, search=(1e-4, 0.5, "log"))
    weight_decay: float = option(
        0.0,
        help="weight decay, never on biases and norms; decoupled for adamw, muon",
        minimum=0,
        search=(1e-6, 0.5, "log"),
    )
    momentum: float = option(
        0.9,
        help="momentum of sgd and muon, with Nesterov's correction",
        needs={"optimizer": ("sgd", "muon")},
        search=(0.8, 0.99),
        **SHARE,
    )
    bias_lr_scale: float = option(1.0, help="factor of the rate for biases of normalisation layers", above=0)
    backbone_lr_scale: float = option(
        1.0, help="factor of the rate for all layers but the last", above=0, search=(0.01, 1.0, "log")
    )
    layer_decay: float = option(
        1.0, help="factor of the rate from each block to the block before it", above=0, maximum=1, search=(0.5, 1.0)
    )
    freeze_epochs: int = option(0, help="first epochs, in which the last layer learns alone", minimum=0)
    clip_grad_norm: float = option(
        0.0, help="largest norm of a step's gradient; longer ones are scaled; 0: any", minimum=0
    )
    schedule: Schedule = option("constant", help="schedule of the learning rate: constant, step, one_cycle or cosine")
    step_at: float = option(
        0.8,
        help="share of the epochs after which the step schedule lowers the rate",
        needs={"schedule": ("step",)},
        **SHARE,
    )
    step_factor: float = option(
        0.1, help="factor by which the step schedule lowers the rate", above=0, needs={"schedule": ("step",)}
    )
    warmup: float = option(
        0.25, help="share of the steps in which the one_cycle rate rises", needs={"schedule": ("one_cycle",)}, **SHARE
    )
    warmup_epochs: int = option(
        0, help="first epochs, in which the rate rises from 0; not of one_cycle", minimum=0, needs=_RISES_FIRST
    )
    warmup_steps: int = option(0, help="the same in steps", minimum=0, needs=_RISES_FIRST)

    def check(self) -> None:
        """Checks what goes together."""
        if self.warmup_epochs and self.warmup_steps:
            raise UsageError(f"{setting('warmup_epochs')} and {setting('warmup_steps')} both say how long; give one")
        if self.backbone_lr_scale != 1 and self.layer_decay != 1:
            raise UsageError(
                f"{setting('backbone_lr_scale')} and {setting('layer_decay')} both set the rates of layers; give one"
            )

    def going_on(self) -> "OptimConfig":
        """The same for a network that is trained further: without what is for the first epochs only."""
        return dataclasses.replace(self, freeze_epochs=0, warmup_epochs=0, warmup_steps=0)
