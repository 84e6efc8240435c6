"""Where a step runs: on which device, in which precision, and with which other processes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One process. A runtime of several has the same names, and its own answers to them."""

    device: torch.device
    precision: torch.dtype

    def wrap(self, step: nn.Module) -> nn.Module:
        """``step`` as it is called in training; several processes add up its gradients."""
        return step

    def reduce(self, sums: Tensor) -> Tensor:
        """``sums`` of all processes, added up."""
        return sums

    def agree(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process, so that all do the same."""
        return flag
