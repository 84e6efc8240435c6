"""Features of tokens, without padding: what methods for transformers compare."""

import torch
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import as_map, to_smaller, wide


def token_pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(student's, teacher's, mask) of each pair: tokens (B, L, D) of both, and (B, L) with 1 for each that counts.

    In float32 or wider, the teacher's without gradient. Maps (B, C, H, W) are tokens by pixel, and those of different
    sizes are pooled to the smaller. Raises UsageError where there are no features.
    """
    if not student.features or len(student.features) != len(teacher.features):
        raise UsageError(
            f"there are {len(student.features)} and {len(teacher.features)} layers to compare: a method that does so "
            "has 'features' in its needs"
        )
    found = []
    for s, t in zip(student.features.values(), teacher.features.values(), strict=True):
        s, t = wide(s), wide(t.detach())
        if not (s.ndim == t.ndim == 3 and s.shape[1] == t.shape[1]):
            s, t = (one.flatten(2).transpose(1, 2) for one in to_smaller(as_map(s), as_map(t)))
        found.append((s, t, mask_for(student, s)))
    return found


def mask_for(outputs: Outputs, tokens: Tensor) -> Tensor:
    """(B, L) float: 1 where one of ``tokens`` (B, L, …) is no padding."""
    mask = outputs.mask
    if mask is None or mask.shape[1] < tokens.shape[1]:
        return torch.ones(tokens.shape[:2], dtype=tokens.dtype, device=tokens.device)
    return mask[:, : tokens.shape[1]].to(tokens.dtype)


def mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over samples of each sample's mean over its tokens, of ``values`` (B, L)."""
    sums = (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return sums.mean()
