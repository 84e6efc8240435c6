"""Noisy teacher (Sau & Balasubramanian 2016, "Deep model compression", arXiv 1610.09650, equations 4 and 5)."""

import torch
from torch import Tensor

from model_compression.core import counter_random
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_number,
    check_variant,
    logit_pair,
)
from model_compression.distillation.methods.logit.logits import logit_regression

_SELECTED, _NOISE = 1, 2  # the two draws of a sample


@METHODS.register("noisy_teacher")
class NoisyTeacher(Method):
    """`logits` against a teacher whose answers are disturbed: t′ = (1 + ξ) · t, which regularises the student.

    Each sample is disturbed with probability ``alpha``, by one ξ ~ N(0, sigma²) for all its classes, drawn anew each
    step from (seed, step, sample index), so that a resumed run draws the same.

    Args:
        alpha: share of the samples that are disturbed, 0 to 1; the paper uses 0.5.
        sigma: standard deviation of ξ, from 0 to 100; the paper uses 0.1 to 0.9.
        variant: "paper", or "historic" for the script of 2016, t′ = ξ · t for disturbed samples and 0 for the others,
            whose mean is zero, so that the student learns little from it.
    """

    uses_ids = True
    default_weights = {"logits": 1.0}
    default_label_weight = 0.0
    uses_context = True
    per_sample = True

    def __init__(self, alpha: float = 0.5, sigma: float = 0.1, variant: str = "paper"):
        super().__init__()
        check_number("noisy_teacher: alpha", alpha, "a number from 0 to 1", lambda value: 0 <= value <= 1)
        check_number("noisy_teacher: sigma", sigma, "a number from 0 to 100", lambda value: 0 <= value <= 100)
        check_variant("noisy_teacher", variant)
        self.alpha, self.sigma, self.variant = alpha, sigma, variant

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"logits": ½ · Σ_k (s_k − t′_k)², mean over the batch}."""
        s, t = logit_pair(student, teacher)
        assert context is not None
        noise = self.noise(context).to(t.dtype)[:, None]  # (B, 1): one number for all classes
        disturbed = noise * t if self.variant == "historic" else (1 + noise) * t
        return {"logits": logit_regression(s, disturbed)}

    def noise(self, context: Context) -> Tensor:
        """ξ per sample (B,), zero for those that are not disturbed."""
        key = (context.seed, context.step)
        selected = counter_random.uniform(context.ids, *key, _SELECTED) < self.alpha
        noise = self.sigma * counter_random.normal(context.ids, *key, _NOISE)
        return torch.where(selected, noise, torch.zeros_like(noise))
