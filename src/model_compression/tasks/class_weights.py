"""How much each class weighs in the label loss: by its number of samples, or as a file says."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_compression.core.config import TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.data.dataset import Dataset
from model_compression.tasks.class_files import read_class_file
from model_compression.tasks.named_classes import NamedClasses

NONE, BALANCED = "none", "balanced"


class WeighsClasses(NamedClasses):
    """A task with one class for each row, whose label loss weighs classes: a mean over rows of weight · loss."""

    loss_options = frozenset({"class_weights"})

    def __init__(self, weights: Tensor | None = None):
        self._weights = weights

    def learning(self, config: TrainConfig, train: Dataset) -> Self:
        """With the weights of the classes."""
        super().learning(config, train)
        if config.class_weights == NONE:
            return self
        rows = train.labels[(train.labels >= 0) & (train.labels < train.num_classes)]  # others do not count
        counts = np.bincount(rows, minlength=train.num_classes)
        return type(self)(class_weights(config.class_weights, train.class_names, counts))

    def weights_for(self, logits: Tensor) -> Tensor | None:
        """(K,) the weights of the classes, beside ``logits``; None where all weigh 1."""
        return None if self._weights is None else self._weights.to(logits)


def is_file(wanted: str) -> bool:
    """Whether the option ``class_weights`` names a file."""
    return wanted not in (NONE, BALANCED)


def balanced_weights(counts: npt.NDArray[np.integer]) -> Tensor:
    """(K,) N / (K · Nₖ) from the numbers of samples (K,): the mean weight of all samples is 1.

    So do scikit-learn's `compute_class_weight`, and King and Zeng 2001, "Logistic regression in rare events data".
    """
    return torch.from_numpy(counts.sum() / (len(counts) * counts.astype(np.float64))).float()


def class_weights(wanted: str, names: Sequence[str], counts: npt.NDArray[np.integer]) -> Tensor:
    """(K,) the weights that ``wanted`` asks for: "balanced" or a file.

    ``counts`` (K,) are the numbers of training samples. Raises UsageError for a class without samples, which has no
    balanced weight, and for a file that names other classes.
    """
    if is_file(wanted):
        return weights_in_order(wanted, names)
    check_each_has_samples(counts, names)
    return balanced_weights(counts)


def check_each_has_samples(counts: npt.NDArray[Any], names: Sequence[str]) -> None:
    """Raises UsageError for a class without training samples, of which ``counts`` (K,) are the numbers."""
    if not counts.all():
        raise UsageError(
            f"{setting('class_weights')} balanced needs training samples of each class, and "
            f"{names[int(np.argmin(counts))]!r} has none: give a file with a weight for each class, or leave it out"
        )


def weights_in_order(path: str, names: Sequence[str]) -> Tensor:
    """(K,) the weights of the classes ``names`` in a file; see `read_class_weights`."""
    found = read_class_weights(path)
    for name in found:
        if name not in names:
            raise UsageError(f"{path}: {unknown_name('class', name, list(names))}")
    missing = [name for name in names if name not in found]
    if missing:
        raise UsageError(f"{path} has no weight for the class {missing[0]!r}; give one for each of {len(names)}")
    return torch.tensor([found[name] for name in names], dtype=torch.float32)


def read_class_weights(path: str) -> dict[str, float]:
    """The weights in a JSON file, an object of class names and numbers of at least 0, not all 0.

    Raises UsageError for a file that is not there or holds something else.
    """
    form = 'expected JSON as {"cat": 1.0, "dog": 2.5}'
    found = read_class_file(path, "class_weights", f"{NONE}, {BALANCED}", form)
    if not isinstance(found, dict):
        raise UsageError(f"{path}: {form}, got a {type(found).__name__}")
    for name, weight in found.items():
        if type(weight) not in (int, float) or not 0 <= weight < math.inf:
            raise UsageError(f"{path}: the weight of {name!r} must be a number of at least 0, got {weight!r}")
    if not any(found.values()):
        raise UsageError(f"{path}: the weights are all 0; {form}")
    return {name: float(weight) for name, weight in found.items()}


def digest_of_weights(path: str) -> str:
    """SHA-256 of what `read_class_weights` gives."""
    return hashlib.sha256(json.dumps(read_class_weights(path), sort_keys=True).encode()).hexdigest()
