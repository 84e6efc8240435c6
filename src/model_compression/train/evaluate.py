"""What a network answers on a whole data set, and the figures that follow from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.config import DataConfig
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.models.base import Network
from model_compression.train.device import autocast
from model_compression.train.out_of_memory import in_parts

_BATCH = 500
_LARGE = 512 * 512  # pixels, from which on a network's own size makes batches smaller


@torch.no_grad()
def predict(
    model: Network,
    dataset: Dataset,
    device: torch.device,
    precision: torch.dtype,
    watch: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits (N, K) float32, on the CPU, of every image in index order, without augmentation, in eval mode.

    ``watch`` is told how many images are done.
    """
    loader = loader_for(dataset, DataConfig(name=dataset.name), device)
    with evaluating(model), autocast(device, precision):
        logits: list[Tensor] = []
        height, width = model.preprocessing.size or (1, 1)
        size = max(1, min(_BATCH, _BATCH * _LARGE // (height * width)))
        for batch in loader.in_order(view=0, batch_size=size):
            logits.append(in_parts(lambda images: model(model.preprocessing(images)).float().cpu(), batch.images))
            if watch is not None:
                watch(sum(map(len, logits)))
        return torch.cat(logits)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, what it was after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def figures(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy, NLL in nats and calibration error of logits (N, K) against class numbers (N,)."""
    return {
        "accuracy": accuracy(logits, targets),
        "nll": float(F.cross_entropy(logits.double(), targets)),
        "ece": calibration_error(logits, targets),
    }


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Share of the samples (N,) whose largest logit is the target's, 0 to 1."""
    return float((logits.argmax(dim=1) == targets).double().mean())


def agreement(logits: Tensor, others: Tensor) -> float:
    """Share of the samples on which two networks' logits (N, K) choose the same class, 0 to 1."""
    return accuracy(logits, others.argmax(dim=1))


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Expected calibration error, 0 to 1, with equal-width bins (Guo et al. 2017, arXiv 1706.04599, equation 5)."""
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = (predicted == targets).double()
    number = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins are open below and closed above
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, number, correct - confidence)
    return float(gap.abs().sum() / len(targets))
