"""Kinds of answers: what a row of K numbers means, and what depends on that alone."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Answer = Literal["categorical", "bernoulli", "real", "embedding"]
"""What a row of K numbers means: logits of a softmax, logits of K sigmoids, K real numbers, or a vector whose length K
may differ between student and teacher."""


def answer_distance(kind: Answer, found: Tensor, reference: Tensor) -> float:
    """How far answers (N, K) are from ``reference`` (N, K), a mean over samples: KL divergence in nats.

    Of real answers it is half the squared error, which is that of normal distributions of deviation 1.
    """
    if kind in ("real", "embedding"):
        return float(0.5 * (found - reference).square().sum(dim=1).mean())
    if kind == "categorical":
        return float(
            F.kl_div(found.log_softmax(dim=1), reference.log_softmax(dim=1), log_target=True, reduction="batchmean")
        )
    own, wanted = (torch.stack([F.logsigmoid(one), F.logsigmoid(-one)]) for one in (found, reference))
    return float((wanted.exp() * (wanted - own)).sum(dim=(0, 2)).mean())


def drawn_loss(kind: Answer, logits: Tensor, generator: torch.Generator) -> Tensor:
    """−log p of an answer that is drawn for each sample from its own ``logits`` (B, K), summed over the batch.

    Its squared gradients are Fisher's information: what the answers depend on. Each pixel of maps (B, K, H, W) is a
    sample.
    """
    if logits.ndim == 4:
        logits = logits.movedim(1, -1).flatten(0, 2)
    own = logits.detach()
    if kind in ("real", "embedding"):
        drawn = own + torch.randn(own.shape, generator=generator)
        return 0.5 * (logits - drawn).square().sum()
    if kind == "bernoulli":
        labels = torch.bernoulli(own.sigmoid(), generator=generator)
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    classes = torch.multinomial(own.softmax(dim=1), 1, generator=generator)[:, 0]
    return F.cross_entropy(logits, classes, reduction="sum")
