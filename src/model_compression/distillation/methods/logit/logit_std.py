"""Logit standardisation (Sun et al. 2024, "Logit standardization in knowledge distillation", arXiv 2403.01427)."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_temperature, logit_pair

_EPS, _TEMPERATURE, _FACTOR = 1e-7, 2.0, 9.0
_PLAIN = {"mlkd": ("batch", "class")}  # terms of a base that compare its own logits
_FLAT = 0.01  # logits that deviate by less are taken as they are: the gradient, of the order of 1 / std, would be noise


def standardised(logits: Tensor) -> Tensor:
    """Z-scores over the classes of logits (B, K): (x − mean) / (std + 1e-7), std with K − 1 in the denominator.

    Rows whose std is below 0.01 have no gradient. Raises UsageError for fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise UsageError(
            f"logit_std: z-scores of {logits.shape[1]} classes are the same whatever the network answers; "
            "use the base by itself"
        )
    std = logits.std(dim=1, keepdim=True)
    scores = (logits - logits.mean(dim=1, keepdim=True)) / (std + _EPS)
    return torch.where(std > _FLAT, scores, scores.detach())


@METHODS.register("logit_std")
class LogitStd(Method):
    """Another logit method on z-scores, so that the student need not match the size of the teacher's logits.

    The terms are the base's; the labels see the student's own logits. Of `mlkd` "instance" alone is on z-scores, as in
    the authors' code. The weights are 9 times the base's: the newest code multiplies α and β of `dkd` by 9 and leaves
    the base's temperature as it is; the first release set β to 9 · 9 · α. For `kd` it sets the weight itself to 9 where
    this makes it 8.1: give the weight 9 to compare with it.

    Args:
        base: name of a method that needs logits alone.
        temperature: what the base is given as its own, from 0.01 to 1000; the paper uses 2. For a base without a
            parameter of that name it has no effect, and another value than 2 is refused.
        options: the base's other parameters.

    Where a student's logits deviate by less than 0.01, as with a last layer that starts at zero, the term has no
    gradient and the labels lead: it would be of the order of 1e7, which Adam's second moments do not forget. Of two
    classes the z-scores are the same whatever the network answers: it is refused.
    """

    def __init__(self, base: str = "kd", temperature: float = _TEMPERATURE, **options: Any):
        super().__init__()
        check_temperature("logit_std: temperature", temperature, "published: 2")
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
        if not method.needs_teacher:
            raise UsageError(f"logit_std: base must learn from a teacher, got {base!r}, which has none")
        self.method, self.plain_terms = method, _PLAIN.get(base, ())
        self.default_weights = {term: _FACTOR * weight for term, weight in method.default_weights.items()}
        self.default_label_weight = method.default_label_weight
        self.uses_targets, self.uses_ids = method.uses_targets, method.uses_ids
        self.uses_context = method.uses_context
        self.per_sample = method.per_sample

    @property
    def has_first_stage(self) -> bool:
        """Whether the base has."""
        return self.method.has_first_stage

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """The base's. Raises UsageError for two classes."""
        standardised(torch.zeros(1, num_classes))
        self.method.setup(shapes, num_samples, num_classes)

    def first_stage(self, teacher: Outputs) -> Tensor:
        """The base's, on z-scores."""
        return self.method.first_stage(Outputs(logits=standardised(logit_pair(teacher, teacher)[1])))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The base's terms on z-scores, but for those that compare the logits as they are."""
        own = logit_pair(student, teacher)
        s, t = (standardised(logits) for logits in own)
        terms: dict[str, Tensor] = self.method(Outputs(logits=s), Outputs(logits=t), targets, context)
        if self.plain_terms:
            plain = self.method(Outputs(logits=own[0]), Outputs(logits=own[1]), targets, context)
            terms |= {name: plain[name] for name in self.plain_terms}
        return terms
