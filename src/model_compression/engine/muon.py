"""Muon for matrices and AdamW for everything else, as one optimiser with one state."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class MuonWithAdamW(torch.optim.Optimizer):
    """PyTorch's Muon on weights that are matrices, a convolution's as (outputs, the rest); its AdamW on all others.

    ``groups`` are those of every optimiser, with ``lr`` and ``weight_decay``. Muon's step is as large as one of AdamW
    at the same rate (arXiv 2502.16982), so that one rate and one decay serve both. Source: Jordan and others 2024,
    https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], *, momentum: float):
        # "fused" makes a state that is loaded keep AdamW's count of steps on the device, where a fused step wants it.
        super().__init__([dict(group) for group in groups], {"fused": True})
        muon, adamw = [], []
        self._twins: dict[nn.Parameter, nn.Parameter] = {}  # what is stepped on: the parameter, or its copy as a matrix
        for group in self.param_groups:
            settings = {name: group[name] for name in ("lr", "weight_decay")}
            matrices = [parameter for parameter in group["params"] if _is_matrix(parameter)]
            others = [parameter for parameter in group["params"] if not _is_matrix(parameter)]
            self._twins |= {p: p if p.ndim == 2 else nn.Parameter(_matrix(p).clone()) for p in matrices}
            self._twins |= {p: p for p in others}
            muon.append({"params": [self._twins[p] for p in matrices], **settings})
            adamw.append({"params": others, **settings})
        self._muon = torch.optim.Muon(muon, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(adamw, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step on the gradients that are there."""
        copies = [(parameter, twin) for parameter, twin in self._twins.items() if twin is not parameter]
        for parameter, twin in copies:
            twin.copy_(_matrix(parameter))
            twin.grad = None if parameter.grad is None else _matrix(parameter.grad)
        for optimizer in (self._muon, self._adamw):
            for outer, inner in zip(self.param_groups, optimizer.param_groups, strict=True):
                inner["lr"] = outer["lr"]
            optimizer.step()
        for parameter, twin in copies:
            parameter.copy_(twin.view(parameter.shape))
        for parameter, twin in self._twins.items():
            state = self._holder(parameter).state
            if twin in state:
                self.state[parameter] = state[twin]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what ``state_dict()`` gave."""
        super().load_state_dict(state_dict)
        for parameter, twin in self._twins.items():
            if parameter in self.state:
                self._holder(parameter).state[twin] = self.state[parameter]

    def _holder(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return self._muon if _is_matrix(parameter) else self._adamw


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(_matrix(parameter).shape) > 1


def _matrix(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten(1)
