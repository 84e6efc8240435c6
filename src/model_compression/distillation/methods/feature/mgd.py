"""Masked generative distillation (Yang et al. 2022, arXiv 2205.01529, equations 2 to 5)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core import counter_random
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_number,
    feature_pairs,
    pair_shapes,
    to_smaller,
)

_MASK = 3  # this draw's number, apart from those of other methods that may run beside it


def summed_squares(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ (s − t)² over the elements of a sample, mean over the batch: not the mean over elements."""
    return (student - teacher).square().sum() / len(student)


def keep_mask(context: Context, pair: int, size: tuple[int, int], mask_ratio: float) -> Tensor:
    """Mask (B, 1, H, W) of a pair: False with probability ``mask_ratio``, for all channels of a position.

    Drawn from (seed, step, sample index, position), so that a resumed run draws the same.
    """
    positions = size[0] * size[1]
    places = context.ids[:, None] * positions + torch.arange(positions, device=context.ids.device)
    drawn = counter_random.uniform(places, context.seed, context.step, _MASK, pair)  # (B, H · W)
    return (drawn >= mask_ratio).reshape(-1, 1, *size)


class Generator(nn.Module):
    """Restores a teacher's map from the student's with holes: to the teacher's width, then two 3×3 convolutions."""

    def __init__(self, student_channels: int, teacher_channels: int):
        super().__init__()
        same = student_channels == teacher_channels
        self.align = nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1)
        self.restore = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    def forward(self, s: Tensor, keep: Tensor) -> Tensor:
        restored: Tensor = self.restore(self.align(s) * keep)  # after the alignment, whose bias would fill the holes
        return restored


@METHODS.register("mgd")
class MGD(Method):
    """The student's map, with random positions blanked, must be enough to generate the teacher's whole map.

    For each pair Σ (f_t − G(M · A(f_s)))²: A a 1×1 convolution where the widths differ, M a mask of positions that all
    channels share, drawn anew each step, G two 3×3 convolutions with a ReLU between them. Sum over elements and pairs,
    mean over the batch: hence the small weight. The larger map of a pair is pooled. The term does not vanish at
    equality, as G stands between the maps.

    The paper masks positions in all its tasks (equation 2). Its code for classification masks whole channels instead,
    with a share of 0.15.

    Args:
        mask_ratio: λ, share of the positions that are blanked, from 0 to below 1; the paper uses 0.45 to 0.75, for
            classification 0.5.
    """

    needs = frozenset({"features"})
    default_pairs = 1  # the published weight is of the last stage alone
    uses_ids = True
    default_weights = {"mgd": 7e-5}
    default_label_weight = 1.0
    uses_context = True
    per_sample = True

    def __init__(self, mask_ratio: float = 0.5):
        super().__init__()
        expected = "a number from 0 to below 1 (published: 0.15 to 0.75)"
        check_number("mgd: mask_ratio", mask_ratio, expected, lambda value: 0 <= value < 1)
        self.mask_ratio = mask_ratio
        self.generators = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the generator of each pair."""
        self.generators = nn.ModuleList(Generator(s[0], t[0]) for s, t in pair_shapes(shapes))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"mgd": Σ over the pairs of the summed squares, mean over the batch}."""
        assert context is not None
        terms = []
        for number, (generator, pair) in enumerate(zip(self.generators, feature_pairs(student, teacher), strict=True)):
            s, t = to_smaller(*pair)
            keep = keep_mask(context, number, (s.shape[2], s.shape[3]), self.mask_ratio).to(s.device)
            terms.append(summed_squares(generator(s, keep), t))
        return {"mgd": torch.stack(terms).sum()}
