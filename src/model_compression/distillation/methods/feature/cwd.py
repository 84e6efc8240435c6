"""Channel-wise knowledge distillation for dense prediction (Shu et al. 2021, arXiv 2011.13256)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_positions,
    check_temperature,
    feature_pairs,
    map_pair,
    pair_shapes,
    to_smaller,
)


def channel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² / C · Σ_c KL(p(t_c; T) ‖ p(s_c; T)) of maps (B, C, H, W), mean over the batch; p is over the positions.

    The sum over positions is kept: a mean over them would make the term H · W times too small.
    """
    log_p_student = F.log_softmax(student.flatten(2) / temperature, dim=2)  # (B, C, H · W)
    log_p_teacher = F.log_softmax(teacher.flatten(2) / temperature, dim=2)
    divergence = log_p_teacher.exp() * (log_p_teacher - log_p_student)
    return temperature**2 * divergence.sum(dim=2).mean()


@METHODS.register("cwd")
class CWD(Method):
    """Each channel of the student looks where the teacher's does: a softmax over positions, compared by divergence.

    For each pair T² / C · Σ_c KL(p(f_t,c; T) ‖ p(f_s,c; T)), p a softmax over the H · W positions of a channel, mean
    over the batch, sum over the pairs. A 1×1 convolution brings the student to the teacher's width where they differ;
    the larger map is pooled. Made for dense prediction; in classification it needs maps of some size, and a map of 1×1
    is refused, whose divergence is always zero.

    In segmentation ``on="logits"`` compares the maps of class scores, the paper's main use: of all pixels, also of
    those that do not count. It taps no layers, so that stored answers serve. Published weights are 50 for feature maps
    and 3 for logits, the defaults. Both are for one map: of pairs that are chosen by stage the last is compared. A
    projection where widths are equal, which some code has, is not made.

    Args:
        temperature: from 0.01 to 1000; the paper uses 4, published values lie between 1 and 10.
        on: "features", or "logits" of a network for segmentation.
    """

    needs = frozenset({"features"})
    default_pairs = 1  # the published weight is of one map
    default_weights = {"cwd": 50.0}
    default_label_weight = 1.0
    per_sample = True

    def __init__(self, temperature: float = 4.0, on: str = "features"):
        super().__init__()
        check_temperature("cwd: temperature", temperature, "published: 1 to 10")
        if on not in ("features", "logits"):
            raise UsageError(f"cwd: on must be 'features' or 'logits', got {on!r}")
        self.temperature, self.on_logits = temperature, on == "logits"
        if self.on_logits:
            self.needs = frozenset({"logits"})  # type: ignore[misc]
            self.compares_maps = True
            self.default_weights = {"cwd": 3.0}
        self.aligners = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the convolutions for pairs of other widths. Raises UsageError for maps of a single position."""
        if self.on_logits:
            return
        check_positions("cwd", shapes)
        widths = [(s[0], t[0]) for s, t in pair_shapes(shapes)]
        self.aligners = nn.ModuleList(nn.Identity() if s == t else nn.Conv2d(s, t, 1) for s, t in widths)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"cwd": Σ over the pairs of T² times the divergence over positions, mean over channels and batch}."""
        if self.on_logits:
            return {"cwd": channel_kl(*map_pair("cwd: on='logits'", student, teacher), self.temperature)}
        terms = []
        for align, pair in zip(self.aligners, feature_pairs(student, teacher), strict=True):
            s, t = to_smaller(*pair)
            terms.append(channel_kl(align(s), t, self.temperature))
        return {"cwd": torch.stack(terms).sum()}
