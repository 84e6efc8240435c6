"""Figures of answers that choose one class of K."""

import torch
import torch.nn.functional as F
from torch import Tensor


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


def f1_by_class(predicted: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """(K,) F1 of each class, 0 to 1, of class numbers (N,); NaN of a class that neither side has."""
    right = torch.bincount(targets[predicted == targets], minlength=num_classes).double()
    found, there = (torch.bincount(one, minlength=num_classes).double() for one in (predicted, targets))
    return 2 * right / (found + there)


def macro_f1(logits: Tensor, targets: Tensor) -> float:
    """The mean of the classes' F1, 0 to 1, of logits (N, K); without classes that neither side has."""
    return float(f1_by_class(logits.argmax(dim=1), targets, logits.shape[1]).nanmean())
