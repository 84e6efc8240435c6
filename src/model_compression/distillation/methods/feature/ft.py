"""Factor transfer (Kim et al. 2018, "Paraphrasing complex network", arXiv 1802.04977)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def factor_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over batch and elements of |F_s / ‖F_s‖₂ − F_t / ‖F_t‖₂|, norms per image, of factors of one shape."""
    s, t = (F.normalize(factor.flatten(1), dim=1) for factor in (student, teacher))
    return (s - t).abs().mean()


@METHODS.register("ft")
class FactorTransfer(Method):
    """The student matches what an autoencoder makes of the teacher's maps, rather than the maps themselves.

    Before training, a paraphraser (three convolutions and three transposed ones) learns to restore the teacher's maps
    through ``ratio`` times as many channels, its factors F_t: `first_stage`, the mean square of the restored maps'
    error. In training it stands still, and a translator (three convolutions) makes F_s of the student's maps; the term
    is the mean over batch and elements of |F_s / ‖F_s‖₂ − F_t / ‖F_t‖₂|, summed over the pairs. Without the first
    stage the factors are a random projection. Tap the end of the last stage, after the activation, as the paper does.

    Deviations: the paper writes the L1 norm; the authors' code takes the mean over the elements, and its weight of 500,
    the default here, belongs to that. Its paraphraser learns by the mean absolute error, here by the mean square, as in
    the benchmark of CRD (arXiv 1910.10699). That benchmark trains both parts too, but compares the means of f² over the
    channels: its weight of 200 belongs to vectors of H · W elements, whose mean difference is far larger. Larger
    factors are average-pooled to the smaller. As in the authors' code there is no BatchNorm.

    Args:
        ratio: channels of the factors over channels of the teacher, above 0; the paper takes 0.5.
    """

    needs = frozenset({"features"})
    default_pairs = 1  # the published weight is of the last stage alone
    default_weights = {"ft": 500.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, ratio: float = 0.5):
        super().__init__()
        check_number("ft: ratio", ratio, "a number > 0 (published: 0.5)", lambda value: value > 0)
        self.ratio = ratio
        self.encoders, self.decoders, self.translators = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds a paraphraser, which is an encoder and a decoder, and a translator for each pair."""
        widths = [(s[0], t[0], max(1, round(self.ratio * t[0]))) for s, t in pair_shapes(shapes)]
        self.encoders = nn.ModuleList(_layers(nn.Conv2d, t, t, factor, factor) for _, t, factor in widths)
        self.decoders = nn.ModuleList(_layers(nn.ConvTranspose2d, factor, factor, t, t) for _, t, factor in widths)
        self.translators = nn.ModuleList(_layers(nn.Conv2d, s, s, factor, factor) for s, _, factor in widths)

    def first_stage(self, teacher: Outputs) -> Tensor:
        """Mean of (f_t − decoder(encoder(f_t)))², summed over the pairs."""
        maps = [t for _, t in feature_pairs(teacher, teacher)]
        coders = zip(self.encoders, self.decoders, maps, strict=True)
        return torch.stack([F.mse_loss(decoder(encoder(t)), t) for encoder, decoder, t in coders]).sum()

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"ft": mean of |F_s / ‖F_s‖₂ − F_t / ‖F_t‖₂|, summed over the pairs}."""
        terms = []
        pairs = feature_pairs(student, teacher)
        for encoder, translator, (s, t) in zip(self.encoders, self.translators, pairs, strict=True):
            with torch.no_grad():  # a paraphraser that could move would meet the student halfway
                factor = encoder(t)
            terms.append(factor_difference(*to_smaller(translator(s), factor)))
        return {"ft": torch.stack(terms).sum()}


def _layers(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], *widths: int) -> nn.Sequential:
    """3×3 layers from each width to the next, with a leaky ReLU after each; height and width stay."""
    return nn.Sequential(
        *(nn.Sequential(kind(a, b, kernel_size=3, padding=1), nn.LeakyReLU(0.1)) for a, b in pairwise(widths))
    )
