"""Logit standardisation (Sun et al. 2024, "Logit standardization in knowledge distillation", arXiv 2403.01427)."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model_compression.errors import UsageError
from model_compression.methods.base import METHODS, Context, Method, check_number, logit_pair
from model_compression.outputs import Outputs

_EPS, _TEMPERATURE, _FACTOR = 1e-7, 2.0, 9.0


def standardised(logits: Tensor) -> Tensor:
    """Z-scores over the classes of logits (B, K): (x − mean) / (std + 1e-7), std with K − 1 in the denominator."""
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + _EPS)


@METHODS.register("logit_std")
class LogitStd(Method):
    """Another logit method on z-scores, so that the student need not match the size of the teacher's logits.

    The terms are the base's; the labels see the student's own logits. The weights are 9 times the base's, the factor of
    the authors' code for `dkd`. For `kd` that code sets the weight itself to 9 where this makes it 8.1: give the weight
    9 to compare with it. (Its option for `dkd` also takes β for 9 · 9 · α, and leaves T at 4.)

    Args:
        base: name of a method that needs logits alone.
        temperature: what the base is given as its own, above 0; the paper uses 2. For a base without a parameter of
            that name it has no effect, and another value than 2 is refused.
        options: the base's other parameters.

    A student whose logits are all equal, as with a last layer that starts at zero, gets gradients of the order of 1e7.
    """

    def __init__(self, base: str = "kd", temperature: float = _TEMPERATURE, **options: Any):
        super().__init__()
        check_number("logit_std: temperature", temperature, "a number > 0 (published: 2)", lambda value: value > 0)
        if base == "logit_std":
            raise UsageError("logit_std: base must be another method, got 'logit_std'")
        # A base without a temperature refuses the parameter, by name, when it is not the default.
        if "temperature" in inspect.signature(METHODS.get(base)).parameters or temperature != _TEMPERATURE:
            options["temperature"] = temperature
        method: Method = METHODS.create(base, **options)
        if method.needs != {"logits"}:
            raise UsageError(
                f"logit_std: base must need logits alone, got {base!r}, which needs {sorted(method.needs)}"
            )
        self.method = method
        self.default_weights = {term: _FACTOR * weight for term, weight in method.default_weights.items()}
        self.default_label_weight = method.default_label_weight
        self.uses_targets, self.uses_indices = method.uses_targets, method.uses_indices
        self.per_sample = method.per_sample

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """The base's."""
        self.method.setup(shapes, num_samples, num_classes)

    def first_stage(self, teacher: Outputs) -> Tensor | None:
        """The base's, on z-scores."""
        return self.method.first_stage(Outputs(logits=standardised(logit_pair(teacher, teacher)[1])))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The base's terms on z-scores."""
        s, t = (standardised(logits) for logits in logit_pair(student, teacher))
        terms: dict[str, Tensor] = self.method(Outputs(logits=s), Outputs(logits=t), targets, context)
        return terms
