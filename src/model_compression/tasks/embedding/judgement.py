"""How good embeddings are for classes that they were not made for: nearest neighbours, and a linear probe."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.reports.sections.neighbours import knn_classes
from model_compression.reports.statistics import Proportion

_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_HELD_OUT = 5  # every fifth training sample of a class chooses the penalty
_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How many test samples get their class, by neighbours and by a linear probe, both of training samples."""

    knn: Proportion
    probe: Proportion
    penalty: float
    """Of the probe, see `linear_probe`."""


def judge(train: Tensor, train_classes: Tensor, test: Tensor, test_classes: Tensor) -> Judgement:
    """Judges embeddings (N, D) of training and (M, D) of test samples by their classes (N,) and (M,), on the CPU."""
    truth = test_classes.numpy()
    voted = knn_classes(test.numpy(), train_classes.numpy(), train.numpy())
    probed, penalty = linear_probe(train, train_classes, test)
    knn, probe = (_share(found, truth) for found in (voted, probed.numpy()))
    return Judgement(knn=knn, probe=probe, penalty=penalty)


def _share(found: Any, truth: Any) -> Proportion:
    return Proportion(count=int((found == truth).sum()), total=len(truth))


def linear_probe(train: Tensor, classes: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """The classes (M,) that logistic regression on ``train`` (N, D) gives ``test`` (M, D), and its penalty λ.

    Minimises mean cross-entropy + λ/2 ‖W‖² over W and b by L-BFGS, of embeddings that are scaled to mean 0 and
    deviation 1 by the training samples. λ is the best of 1e-5 to 1 on every fifth sample of each class, without which
    it is chosen; then all are used. Test samples choose nothing.
    """
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0).clamp(min=1e-6)
    x, queries = ((one.float() - mean) / std for one in (train, test))
    known, y = torch.unique(classes, return_inverse=True)
    held = _ranks(y) % _HELD_OUT == _HELD_OUT - 1
    penalty = _PENALTIES[2]
    if held.any():
        right = []
        for one in _PENALTIES:
            weights, bias = fit_logistic(x[~held], y[~held], len(known), one)
            right.append(int(((x[held] @ weights + bias).argmax(dim=1) == y[held]).sum()))
        penalty = _PENALTIES[int(np.argmax(right))]
    weights, bias = fit_logistic(x, y, len(known), penalty)
    return known[(queries @ weights + bias).argmax(dim=1)], penalty


def _ranks(classes: Tensor) -> Tensor:
    """(N,) how many samples of its class (N,) come before each, in their order."""
    order = classes.argsort(stable=True)
    sizes = torch.bincount(classes)
    ranks = torch.empty_like(classes)
    ranks[order] = torch.arange(len(classes)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return ranks


def fit_logistic(x: Tensor, y: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """W (D, K) and b (K,) of multinomial logistic regression of y (N,) on x (N, D), see `linear_probe`."""
    weights = torch.zeros(x.shape[1], num_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=_STEPS, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(torch.addmm(bias, x, weights), y) + penalty / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weights.detach(), bias.detach()
