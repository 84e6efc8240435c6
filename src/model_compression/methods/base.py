"""The contract of a distillation method: a small module of named, unweighted, batch-mean terms."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from model_compression.errors import UsageError
from model_compression.outputs import Outputs
from model_compression.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where in the run a batch is: ``indices`` (B,) of its images in the data set, epoch, step, and the run's seed."""

    indices: Tensor
    epoch: int
    step: int
    seed: int


class Method(nn.Module):
    """A distillation loss; `forward` returns its terms, and only the trainer applies weights and adds the label loss.

    Subclasses declare ``needs`` (of "logits", "embedding", "features"), ``default_weights`` {term: weight} and
    ``default_label_weight``, the weight of the cross-entropy with the labels beside them.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    default_weights: Mapping[str, float]
    default_label_weight: float

    def __init__(self) -> None:
        super().__init__()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds what depends on the models or the data, before the optimiser is made; most methods need nothing.

        ``shapes`` maps "student" and "teacher" to their outputs' shapes, of a batch of one.
        """

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The named terms, each a scalar, mean over the batch; ``targets`` (B,) are class numbers."""
        raise NotImplementedError


METHODS: Registry[Callable[..., Method]] = Registry("method")


def create(name: str, /, **params: Any) -> Method:
    """The method registered under ``name``.

    Raises:
        UnknownNameError: no such method, or a parameter that it does not have; near matches are listed.
        UsageError: an impossible value.
    """
    method: Method = METHODS.create(name, **params)
    return method


def logit_pair(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Logits (B, K) of both in float32 or wider, the teacher's without gradient.

    Raises UsageError when the shapes differ or there is a single class, where a comparison of classes is undefined.
    """
    s, t = student.logits, teacher.logits.detach()
    if s.shape != t.shape:
        raise UsageError(f"logits of student {tuple(s.shape)} and teacher {tuple(t.shape)} must have the same shape")
    if s.ndim != 2 or s.shape[1] < 2:
        raise UsageError(f"logits must be (batch, classes) with at least 2 classes, got {tuple(s.shape)}")
    return _wide(s), _wide(t)


def check_number(name: str, value: Any, expected: str, holds: Callable[[float], bool]) -> None:
    """Raises UsageError that ``name`` must be ``expected``, unless ``value`` is a finite number for which it holds."""
    try:
        good = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and holds(value)
    except OverflowError:  # an integer, which has no largest
        good = False
    if not good:
        raise UsageError(f"{name} must be {expected}, got {value!r}")


def check_variant(method: str, variant: str) -> None:
    """Raises UsageError unless ``variant`` is "paper" or "historic"."""
    if variant not in ("paper", "historic"):
        raise UsageError(f"{method}: variant must be 'paper' or 'historic', got {variant!r}")


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.element_size() < 4 else tensor
